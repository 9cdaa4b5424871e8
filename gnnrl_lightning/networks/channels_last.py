"""Channels last: the memory format in which two-dimensional convolutions are fast."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.trees import Tree, call, channels_last, count, join, take

EXAMPLES = 2
"""Examples of the trial: with a single one, more views are possible than in a batch."""


def store_channels_last(network: nn.Module) -> None:
    """Store the weights of the two-dimensional convolutions of a network channels last, in place."""
    convert_conv2d_weight_memory_format(network, torch.channels_last)


def runs_channels_last(network: nn.Module, inputs: Tree) -> bool:
    """Run a copy of a network in evaluation mode with its inputs and weights stored channels last.

    Code that views channels and pixels as one dimension, `x.view(len(x), -1)`, raises an error there: PyTorch can only
    copy what lies apart in memory, which `reshape` and `flatten` do.

    Args:
        network: The network; it is not changed.
        inputs: Inputs of at least one example, on the network's device.
    """
    some = take(inputs, slice(EXAMPLES))
    if count(some) < EXAMPLES:
        some = join([some, some])
    trial = independent_copy(network).eval()
    store_channels_last(trial)
    try:
        with torch.inference_mode():
            call(trial, channels_last(some))
    except RuntimeError:  # one of another cause is raised in the usual format as well
        return False
    return True
