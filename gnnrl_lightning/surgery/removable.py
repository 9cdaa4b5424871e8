"""Which groups may be removed entirely, and which others are of no use without them.

A group may go if the network's outputs still depend on its inputs: what a branch gives without it is a constant, which
is added or concatenated elsewhere. All groups that may go can go together, and the network runs without any of them,
with or without any other one. The groups that save most MACs are considered first: of parallel branches, the cheapest
one has to stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnrl_lightning.surgery.selftest import find_faults_without
from gnnrl_lightning.surgery.traced import TracedNetwork
from gnnrl_lightning.tracing.axes import Axis
from gnnrl_lightning.tracing.program.export import Inputs


@dataclass(frozen=True)
class Removable:
    """What may be removed entirely.

    Attributes:
        groups: Whether each group may go, `(G,)` bool.
        reasons: Why it may not, "" for groups that may.
        useless: `(G, G)` bool: without the group of the row, the group of the column, which may go, too, reaches no
            output, or no longer depends on an input.
    """

    groups: Tensor
    reasons: tuple[str, ...]
    useless: Tensor

    def but(self, stay: Tensor) -> Removable:
        """The same without the groups that have to stay `(G,)` bool."""
        groups = self.groups & ~stay
        return Removable(groups, self.reasons, self.useless & groups & groups[:, None])

    def with_masks(self, count: int) -> Removable:
        """The same with so many masked weights, which stay, after the groups."""
        groups = torch.cat([self.groups, torch.zeros(count, dtype=torch.bool)])
        useless = torch.zeros(len(groups), len(groups), dtype=torch.bool)
        useless[: len(self.groups), : len(self.groups)] = self.useless
        return Removable(groups, (*self.reasons, *(MASK,) * count), useless)


MASK = "a masked weight keeps at least one part"

DISCONNECTED = "without it, an output of the network would no longer depend on an input"


def find_removable(graph: TracedNetwork, network: nn.Module, inputs: Inputs, self_test: bool) -> Removable:
    """Find the groups that may be removed entirely.

    The network without all of them is tested as in `gnnrl_lightning.surgery.selftest`, and without halves of them only
    whether it runs at the predicted cost: its code may need a layer where others are left.

    Args:
        graph: The traced network.
        network: The network itself, in evaluation mode.
        inputs: Its inputs for one example.
        self_test: Whether to compare outputs as well as shapes.
    """
    flow = _Flow(graph)
    chosen, reasons = _choose(graph, flow)
    untested = _in_halves(chosen)
    while untested:
        gone = untested.pop(0)
        compared = self_test and len(gone) == int(chosen.sum())
        faults = find_faults_without(graph, network, inputs, compared, gone)
        for number, group in enumerate(graph.groups):
            if group.name in faults:
                fault = faults[group.name]
                reasons[number] = fault.reason + (f" ({fault.source})" if fault.source else "")
                chosen[number] = False
        if faults:
            untested = _in_halves(chosen)
    useless = torch.zeros(len(chosen), len(chosen), dtype=torch.bool)
    for number in chosen.nonzero()[:, 0].tolist():
        useless[number] = chosen & ~flow.used(_only(number, len(chosen)))
        useless[number, number] = False
    return Removable(chosen, tuple(reasons), useless)


def _in_halves(chosen: Tensor) -> list[list[int]]:
    """All chosen groups `(G,)`, and halves of them such that each group is in a half without any given other one."""
    numbers = chosen.nonzero()[:, 0].tolist()
    found = [numbers]
    for bit in range(max(len(numbers) - 1, 0).bit_length()):
        found += [[number for place, number in enumerate(numbers) if place >> bit & 1 == side] for side in (0, 1)]
    return found


def _choose(graph: TracedNetwork, flow: _Flow) -> tuple[Tensor, list[str]]:
    """Return which groups may go by the topology alone `(G,)`, and why the others may not."""
    count, dense = len(graph.groups), graph.widths
    gone, reasons = torch.zeros(count, dtype=torch.bool), [""] * count
    connected = flow.connections(gone)
    saved = graph.cost.macs(dense) - graph.cost.macs(dense * (1 - torch.eye(count, dtype=torch.int64)))
    for number in saved.argsort(descending=True, stable=True).tolist():
        alone = _only(number, count)
        if flow.connections(alone) != connected:
            reasons[number] = DISCONNECTED
        elif flow.connections(gone | alone) != connected:
            reasons[number] = f"{DISCONNECTED} if the groups that may go were gone, too"
        else:
            gone = gone | alone
    return gone, reasons


def _only(number: int, count: int) -> Tensor:
    return torch.arange(count) == number


class _Flow:
    """Dependence of feature maps on the network's inputs, and of its outputs on them, without some groups.

    An operator that contracts no channels, or gives none, depends on nothing: a convolution gives its bias.
    """

    def __init__(self, graph: TracedNetwork) -> None:
        self.graph = graph
        made = {operator.output for operator in graph.operators}
        self.inputs = [number for number in range(len(graph.feature_maps)) if number not in made]

    def connections(self, gone: Tensor) -> list[int]:
        """The inputs on which each output depends, as bits, without the groups `gone (G,)`."""
        reached = self._reached(gone)[0]
        return [reached[number] for number in self.graph.outputs]

    def used(self, gone: Tensor) -> Tensor:
        """Which groups `(G,)` have a layer whose outputs depend on an input, and on which an output depends."""
        reached, open_ = self._reached(gone)
        alive = [False] * len(reached)
        for number in self.graph.outputs:
            alive[number] = True
        for number, operator in reversed(list(enumerate(self.graph.operators))):
            if open_[number] and alive[operator.output]:
                for source in operator.inputs:
                    alive[source] = True
        makes = self.graph.incidence[[self.graph.operators[number].output for number in self.graph.reads]] > 0
        useful = [
            bool(reached[operator.output]) and alive[operator.output]
            for operator in (self.graph.operators[number] for number in self.graph.reads)
        ]
        return makes[torch.tensor(useful, dtype=torch.bool)].any(0) | ~makes.any(0)

    def _reached(self, gone: Tensor) -> tuple[list[int], list[bool]]:
        """The inputs on which each map depends, as bits, and whether each operator passes anything on."""
        graph = self.graph
        widths = graph.widths * ~gone
        sizes = graph.elements(widths[None])[0].tolist()
        reached = [0] * len(sizes)
        for bit, number in enumerate(self.inputs):
            reached[number] = 1 << bit
        open_: list[bool] = []
        for number, operator in enumerate(graph.operators):
            axes: Sequence[Axis] = graph.reads.get(number, ())
            open_.append(bool(sizes[operator.output]) and all(int(axis.size(widths)) for axis in axes))
            if open_[-1]:
                for source in operator.inputs:
                    reached[operator.output] |= reached[source]
        return reached, open_
