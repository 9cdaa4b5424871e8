"""Run a network in evaluation mode and restore its modes afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Switch to evaluation mode for the block, and restore each module's own mode after it.

    Args:
        network: Any module; some of its submodules may be in training mode and others in evaluation mode.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for module, training in modes:
            module.training = training
