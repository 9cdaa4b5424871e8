"""Sizes of calls as they would be with one channel more."""

import numpy as np
import torch

from gnnrl_lightning.tracing.records import SizedCall
from gnnrl_lightning.tracing.sizes.grown import grown_sizes


def test_calls_of_different_modules_have_sizes_of_their_own():
    """Both are the first view of their module."""
    calls = [
        SizedCall("one", "view", 0, (1, 4, 3), (1, 4, 3), torch.arange(4).reshape(1, 4, 1), ""),
        SizedCall("two", "view", 0, (6,), (6,), torch.arange(4, 10), ""),
    ]
    grown = grown_sizes(calls, np.arange(10), lambda along: 1)
    assert grown == {"one": {("view", 0): (1, 5, 3)}, "two": {("view", 0): (7,)}}
