"""Test of a pruned network in training mode, whose code may differ from that of evaluation mode.

Only shapes are tested: noise and dropout make the values of two networks differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from gnnrl_lightning.errors import first_line
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.surgery.constants import DOES_NOT_FOLLOW, explain_shapes
from gnnrl_lightning.tracing.groups import Fault
from gnnrl_lightning.tracing.passes import training_error
from gnnrl_lightning.tracing.program.copies import on_meta
from gnnrl_lightning.tracing.program.export import Inputs, two_examples
from gnnrl_lightning.trees import to_device

Prune = Callable[[nn.Module], nn.Module]
"""A network, or a copy of it on the meta device -> the pruned network."""


def training_fault(network: nn.Module, inputs: Inputs, prune: Prune) -> str | None:
    """Return why the pruned network does not train on its inputs, or None.

    If the network itself does not, because its loss needs more than these inputs, nothing is known of the pruned one.

    Args:
        network: The dense network.
        inputs: Its inputs for one example.
        prune: Function that prunes it.
    """
    found = _fault(network, inputs, prune)
    return None if found is None else f"in training mode, {DOES_NOT_FOLLOW} ({first_line(found[0])[:160]})"


def explain_training(network: nn.Module, inputs: Inputs, prune: Prune) -> Fault:
    """Find the line of code that makes a pruned network fail in training mode; arguments as in `training_fault`."""
    found = _fault(network, inputs, prune)
    assert found is not None
    error, tested, given = found
    small, dense = (item.train() for item in (prune(tested), independent_copy(tested)))
    fault = explain_shapes(str(error), small, dense, two_examples(given), {})
    return replace(fault, reason=f"in training mode, {fault.reason}", training=True)


def _fault(network: nn.Module, inputs: Inputs, prune: Prune) -> tuple[Exception, nn.Module, Inputs] | None:
    """Return the error of the pruned network, and the dense one and inputs with which it occurs, or None."""
    for tested, given in ((on_meta(network), to_device(inputs, "meta")), (network, inputs)):
        torch.manual_seed(0)  # of code that takes a branch by chance
        error = training_error(prune(tested), given)
        if error is None:
            return None
        torch.manual_seed(0)
        if training_error(tested, given) is None:
            return error, tested, given
    return None
