"""Random damage to the contents of a file, for `faults.py` and the tests."""

from __future__ import annotations

import random


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one damage: a flipped bit, bytes lost, added or overwritten, an end cut off, or nothing left.

    Args:
        data: The contents, at least one byte.
        draw: Draws the damage.
    """
    at = draw.randrange(len(data))
    some = draw.randrange(1, 1 + min(64, len(data) - at))
    return draw.choice(
        [
            data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :],
            data[:at] + data[at + some :],
            data[:at] + draw.randbytes(some) + data[at:],
            data[:at] + bytes(255 - each for each in data[at : at + some]) + data[at + some :],
            data[:at],
            b"",
        ]
    )
