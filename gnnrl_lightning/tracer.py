"""Trace a network: follow its channels, form groups, test them, and freeze or part those that fail."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.checks import flag
from gnnrl_lightning.cost.ranges import Limits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.seeds import kept_random_states
from gnnrl_lightning.surgery.selftest import find_faults
from gnnrl_lightning.tracing.forming import form_groups, part_otherwise
from gnnrl_lightning.tracing.groups import Fault
from gnnrl_lightning.tracing.passes import walk_network
from gnnrl_lightning.tracing.program.checks import as_inputs, check_network, check_takes, check_takes_one
from gnnrl_lightning.tracing.program.copies import shared_copy
from gnnrl_lightning.tracing.program.export import one_example
from gnnrl_lightning.tracing.sizes.tied_sizes import tie_sizes

MAX_ROUNDS = 12
"""Maximum number of rounds of the self-test, each of which freezes or parts at least one group."""


@kept_random_states()
@torch.compiler.set_stance("force_eager")  # a network of torch.compile would be compiled for every copy and width
def trace(
    network: nn.Module,
    example_inputs: Any,
    self_test: bool = True,
    keep: Sequence[str | type[nn.Module]] = (),
    limits: Limits | None = None,
    passed: str | None = None,
    masks: Sequence[str | type[nn.Module]] = (),
) -> ComputationGraph:
    """Trace a network into its computational graph: groups of channels that are removed together, and costs.

    Neither the network nor the global random generators are modified. The network is traced in evaluation mode; code
    that only training runs is read where it uses tensors of its own or does not follow the pruned network.

    Args:
        network: A module that `torch.export` supports.
        example_inputs: Its input, batch first, or a tuple of its positional arguments, or a dictionary of its keyword
            arguments. Costs are for one example.
        self_test: Whether to compare a pruned network with the masked dense one in float64 and freeze faulty groups.
        keep: Layers that are not pruned: names of modules or parameters, globs (`layer1.*`), and module types or their
            import paths; see `gnnrl_lightning.tracing.keep.keep_layers`.
        limits: Lowest and highest widths by group, module or glob, see `gnnrl_lightning.cost.ranges.GroupLimit`.
        passed: Fingerprint of a graph of this network that has passed all tests: the same graph is not tested again.
        masks: Linear layers whose smallest weights may be zero, in addition: names of modules, globs, and module types
            or their import paths. Each is one more group, after those of channels, see `gnnrl_lightning.surgery.masks`.

    Raises:
        UserError: The network refuses the example, cannot be exported, has no MACs or others than its graph, or still
            fails the self-test after `MAX_ROUNDS`; or `keep`, `limits` or `masks` match nothing.
    """
    check_network(network)
    flag("self_test", self_test)
    inputs = as_inputs(example_inputs)
    given, inputs = inputs, one_example(inputs)
    try:
        # Its code may keep what it computes first, which in later passes is on the meta device.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning of its operators is no refusal, even where it is an error
            check_takes_one(network, inputs, given)
        walked, kept = walk_network(network, inputs, keep)
    except UserError:
        check_takes(network, given)  # raises a clearer error if the network itself refuses the example
        raise
    copied = shared_copy(network)
    unfit: dict[str, Fault] = {}
    for _ in range(MAX_ROUNDS):
        graph = ComputationGraph(walked, form_groups(walked, unfit), (inputs, self_test), kept)
        found = {} if graph.fingerprint == passed else find_faults(graph, copied, inputs, self_test)
        if not found:
            if not int(graph.cost.macs(graph.widths)):
                raise UserError(
                    f"{type(network).__name__} has no MACs for this example: expected a convolution or "
                    "linear layer that is used"
                )
            return (graph.masking(network, masks) if masks else graph).limited(limits)
        if any(fault.training for fault in found.values()) and not walked.trained:
            walked, kept = walk_network(network, inputs, keep, training=True)
            unfit = {}
            continue
        channels = graph._channels
        if part_otherwise(walked, channels, found) or tie_sizes(walked, channels, found):
            unfit = {}
            continue
        unfit |= found
    raise UserError(
        f"{type(network).__name__} cannot be pruned exactly: {next(iter(unfit.values())).reason}; change its code"
    )
