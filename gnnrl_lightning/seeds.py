"""Seeds and generators that depend on nothing but a key: everything random derives from them."""

import numpy as np
import torch


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator that depends on nothing but `key`, e.g. (seed, epoch, batch).

    Nothing about it has to be saved: a resumed run derives the same generator again. Keys that differ in any
    place give unrelated streams (`numpy.random.SeedSequence`).

    Args:
        key: non-negative integers.
    """
    return torch.Generator().manual_seed(derived_seed(*key))


def derived_seed(*key: int) -> int:
    """A 63-bit seed that depends on nothing but `key` (non-negative integers)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
