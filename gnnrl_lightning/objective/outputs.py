"""Which of a network's outputs an objective reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gnnrl_lightning.errors import UserError

NAMES = ("logits", "out")
"""Names of the output that counts among several: of Hugging Face's networks and Inception, and of segmentation in
torchvision."""


def main_output(outputs: Any, expected: str, least: int, most: float = math.inf) -> Tensor:
    """Return the output of a network that an objective reads: the only one, or the one with a name of `NAMES`.

    Args:
        outputs: What the network returns: a tensor, a dictionary, or an object with attributes.
        expected: What is expected, for the message.
        least: Least number of dimensions.
        most: Largest number of dimensions.

    Raises:
        UserError: There is no such tensor.
    """
    found = outputs
    if not isinstance(outputs, Tensor):
        named = [outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None) for name in NAMES]
        found = next((each for each in named if isinstance(each, Tensor)), outputs)
    if not isinstance(found, Tensor) or not least <= found.dim() <= most:
        given = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        names = " or ".join(NAMES)
        raise UserError(f"the network returns {given}: expected {expected}, as its only output or one named {names}")
    return found
