"""Tests of the trace: whether the pruned network runs, and whether its MACs and outputs are as predicted.

The exported graph does not show which sizes are constants in the code (`view(B, 2, 4, H, W)`), so the network's own
forward pass is run. `shape_fault` runs it at smaller widths on meta tensors and compares its MACs with the cost model;
`exactness_fault` compares the pruned network with the masked dense one in float64. `find_culprits` finds the faulty
groups by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning.errors import first_line
from gnnrl_lightning.surgery.surgery import NOTHING, Cut, Dependents, mask, prune, structural_copy
from gnnrl_lightning.surgery.traced import Traced
from gnnrl_lightning.tracing.axes import Selection
from gnnrl_lightning.tracing.export import Inputs, run
from gnnrl_lightning.trees import map_tensors, to_device

TOLERANCE = 1e-9
"""Maximum difference of pruned and masked outputs, relative to the largest output, in float64."""


def find_faults(graph: Traced, network: nn.Module, inputs: Inputs, self_test: bool) -> dict[str, str]:
    """Return the groups that fail the tests of the pruned network: name -> description of the fault.

    Args:
        graph: The traced network.
        network: The network, in evaluation mode.
        inputs: Its inputs for one example.
        self_test: Whether to compare outputs as well as shapes.
    """
    if not graph.groups:
        return {}
    generator = torch.Generator().manual_seed(0)
    dense = graph.widths
    drawn = (torch.rand(len(graph.groups), generator=generator) * dense).long().clamp(min=1)
    for item, axis in graph.dependents.summaries:
        if item.operator == "einsum":  # over one channel PyTorch multiplies, which `FlopCounterMode` does not count
            summed = list(axis.counts)
            drawn[summed] = drawn[summed].clamp(min=2)
    orders = [
        torch.stack([torch.randperm(group.width, generator=generator) for _ in range(group.sets)])
        for group in graph.groups
    ]

    def selection(pruned: Sequence[int]) -> tuple[Selection, Tensor]:
        chosen = torch.zeros(len(graph.groups), dtype=torch.bool)
        chosen[list(pruned)] = True
        widths = torch.where(chosen, drawn, dense)
        kept = [order[:, : int(width)].sort(1)[0] for order, width in zip(orders, widths, strict=True)]
        return Selection(kept, dense.tolist()), widths

    skeleton = on_meta(network)

    def shapes(pruned: Sequence[int]) -> str | None:
        chosen, widths = selection(pruned)
        return shape_fault(skeleton, inputs, graph.cuts, chosen, int(graph.cost.macs(widths)), graph.dependents)

    def values(pruned: Sequence[int]) -> str | None:
        fresh = torch.Generator().manual_seed(1)
        return exactness_fault(network, inputs, graph.cuts, selection(pruned)[0], fresh, graph.dependents)

    every = range(len(graph.groups))
    found = find_culprits(every, shapes)
    if not found and self_test:
        with kept_random_state():
            found = find_culprits(every, values)
    return {graph.groups[group].name: reason for group, reason in found.items()}


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Restore the global random state after the block."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def on_meta(network: nn.Module) -> nn.Module:
    """Copy the network to the meta device: its tensors have shapes but no data."""
    named = (*network.named_parameters(), *network.named_buffers(), *plain_tensors(network))
    return structural_copy(network, {name: torch.empty_like(tensor, device="meta") for name, tensor in named})


def plain_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the tensors that are plain attributes of modules, with their names."""
    return [
        (f"{path}.{name}" if path else name, value)
        for path, module in network.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    ]


def count_macs(network: nn.Module, inputs: Inputs) -> int:
    """Count the MACs of one forward pass on meta tensors with `FlopCounterMode`, halved."""
    moved = to_device(inputs, "meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        run(on_meta(network), moved)
    return counter.get_total_flops() // 2


def shape_fault(
    network: nn.Module,
    inputs: Inputs,
    cuts: Mapping[str, Cut],
    selection: Selection,
    macs: int,
    dependents: Dependents = NOTHING,
) -> str | None:
    """Return why the pruned network does not run or does not cost `macs`, or None if it runs at that cost.

    Only shapes matter: the network may be on the meta device, see `on_meta`.
    """
    try:
        counted = count_macs(prune(network, cuts, selection, dependents), inputs)
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        return f"the network's own code does not follow when it is pruned ({first_line(error)[:160]})"
    return None if counted == macs else f"the pruned network has {counted:,} MACs where {macs:,} were expected"


def exactness_fault(
    network: nn.Module,
    inputs: Inputs,
    cuts: Mapping[str, Cut],
    selection: Selection,
    generator: torch.Generator,
    dependents: Dependents = NOTHING,
) -> str | None:
    """Return how the pruned network differs from the masked dense one, in float64 with random weights, or None."""
    doubled = randomised(network, generator)
    inputs = map_tensors(lambda tensor: _random_like(tensor, generator), inputs)
    small = _tensors(run(prune(doubled, cuts, selection, dependents), inputs))
    reference = _tensors(run(mask(doubled, cuts, selection, dependents), inputs))
    for mine, theirs in zip(small, reference, strict=True):
        if mine.shape != theirs.shape:
            return f"the pruned network's output has the shape {tuple(mine.shape)} instead of {tuple(theirs.shape)}"
        scale = theirs.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        difference = float((mine - theirs).abs().max() / scale)
        if not difference <= TOLERANCE:
            return f"the pruned network's output is {difference:.1e} away from the masked dense network's"
    return None


def _random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Replace a float tensor by float64 noise: an example of zeros would hide all differences."""
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.device)


def randomised(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return a float64 copy with random weights, without dead channels and zero scales, so that differences show."""

    def random(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        noise = torch.empty(tensor.shape, dtype=torch.float64)
        if tensor.dim() > 1:
            noise.normal_(generator=generator).mul_((2 / max(tensor[0].numel(), 1)) ** 0.5)
        elif name.endswith(("bias", "mean")):
            noise.normal_(std=0.1, generator=generator)
        else:
            noise.uniform_(0.5, 1.5, generator=generator)
        return noise.to(tensor.device)

    named = (*network.named_parameters(), *network.named_buffers(), *plain_tensors(network))
    return structural_copy(network, {name: random(name, tensor.detach()) for name, tensor in named})


def find_culprits(groups: Sequence[int], fault: Callable[[Sequence[int]], str | None]) -> dict[int, str]:
    """Find the faulty groups by bisection, and return group -> description of the fault.

    Args:
        groups: Groups that fail together.
        fault: Returns the fault of pruning exactly the given groups, or None.
    """
    reason = fault(groups)
    if reason is None:
        return {}
    if len(groups) == 1:
        return {groups[0]: reason}
    half = len(groups) // 2
    found = find_culprits(groups[:half], fault) | find_culprits(groups[half:], fault)
    # Neither half fails alone: the halves fail together, and the later one is frozen.
    return found or dict.fromkeys(groups[half:], reason)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output.double()]
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for item in output for tensor in _tensors(item)]
    return []
