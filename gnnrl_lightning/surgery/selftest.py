"""Tests of the trace: whether the pruned network runs, and whether its MACs and outputs are as predicted.

The exported graph does not show which sizes are constants in the code (`view(B, 2, 4, H, W)`), so the network's own
forward pass is run. `shape_fault` runs it at smaller widths on meta tensors and compares its MACs with the cost model;
`gnnrl_lightning.surgery.exactness` compares the pruned network with the masked dense one in float64. `find_culprits`
finds the faulty groups by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.networks.attention import unfused
from gnnrl_lightning.seeds import kept_random_states
from gnnrl_lightning.surgery.comparisons import (
    Attributes,
    Record,
    changed_attributes,
    compared,
    equal_by_chance,
    find_turns,
)
from gnnrl_lightning.surgery.constants import DOES_NOT_FOLLOW, SAME_PATH, Expected, explain_shapes, explain_values
from gnnrl_lightning.surgery.exactness import exactness_fault
from gnnrl_lightning.surgery.surgery import NOTHING, Cut, Dependents, prune
from gnnrl_lightning.surgery.traced import TracedNetwork
from gnnrl_lightning.surgery.training import explain_training, training_fault
from gnnrl_lightning.tracing.axes import Selection
from gnnrl_lightning.tracing.groups import Fault
from gnnrl_lightning.tracing.passes import reads_training
from gnnrl_lightning.tracing.program.copies import on_meta, shared_copy, without_gradients
from gnnrl_lightning.tracing.program.export import Inputs, run
from gnnrl_lightning.tracing.program.sources import in_line
from gnnrl_lightning.trees import to_device

Choose = Callable[[Sequence[int]], tuple[Selection, Tensor]]
"""Groups to prune -> kept channels, and widths."""

COMPARES = "the code compares sizes, and at some widths the outcome is another"

DRAWS = 8
"""Number of random draws of widths until no sizes are equal by chance that the code compares."""

META = "meta"
"""Word in the errors of PyTorch about code that needs values, or makes tensors elsewhere, on the meta device."""


def find_faults(graph: TracedNetwork, network: nn.Module, inputs: Inputs, self_test: bool) -> dict[str, Fault]:
    """Return the groups that fail the tests of the pruned network: name -> fault.

    Args:
        graph: The traced network.
        network: The network, in evaluation mode.
        inputs: Its inputs for one example.
        self_test: Whether to compare outputs as well as shapes.

    Raises:
        UserError: The network fails with nothing pruned, as it is or in float64, or has other MACs than its graph; or
            outputs are to be compared, and it is on the meta device.
    """
    if self_test and any(parameter.is_meta for parameter in network.parameters()):
        raise UserError(
            f"{type(network).__name__} is on the meta device, where outputs have no numbers to compare: give it its "
            "weights, or give self_test=False"
        )
    generator = torch.Generator().manual_seed(0)
    tests = _Tests(graph, network, inputs, self_test)
    with kept_random_states(), unfused():
        drawn = tests.draw(generator)
        found = tests.faults(range(len(graph.groups)), _selections(graph, drawn, generator))
        return found or tests.faults_of_comparisons(drawn, generator)


def find_faults_without(
    graph: TracedNetwork, network: nn.Module, inputs: Inputs, self_test: bool, groups: Sequence[int]
) -> dict[str, Fault]:
    """Return which of the given groups fail the tests if they are removed entirely: name -> fault.

    Args:
        graph: As in `find_faults`, like the next three.
        network: The network.
        inputs: Its inputs.
        self_test: Whether to compare outputs as well as shapes.
        groups: Numbers of the groups, all of which are removed together.
    """
    if not groups:
        return {}
    choose = _selections(graph, torch.zeros_like(graph.widths), torch.Generator().manual_seed(0))
    with kept_random_states(), unfused():
        return _Tests(graph, network, inputs, self_test).faults(groups, choose)


class _Tests:
    """Tests of pruned networks; arguments as of `find_faults`."""

    def __init__(self, graph: TracedNetwork, network: nn.Module, inputs: Inputs, self_test: bool) -> None:
        self.graph, self.network, self.inputs, self.self_test = graph, network, inputs, self_test
        self.tested, self.given = on_meta(network), to_device(inputs, "meta")
        self.sizes: Attributes = ()
        self._seen: dict[tuple[nn.Module, tuple[int, ...]], Record] = {}

    def faults(self, every: Sequence[int], choose: Choose) -> dict[str, Fault]:
        """Return which of the given groups fail, by name, where `choose` gives what is kept of those to be pruned."""

        def shapes(pruned: Sequence[int]) -> str | None:
            return self._shapes(pruned, choose)

        def values(pruned: Sequence[int]) -> str | None:
            return self._values(choose(pruned)[0])

        def trains(pruned: Sequence[int]) -> str | None:
            return training_fault(self.network, self.inputs, small(pruned))

        def small(pruned: Sequence[int]) -> Callable[[nn.Module], nn.Module]:
            chosen, _ = choose(pruned)
            return lambda dense: self._pruned(dense, chosen)

        explain, found, names = explain_shapes, dict[int, str](), [group.name for group in self.graph.groups]
        if not every or shapes(every) is not None:
            # If pruned groups pass, the costs of the dense network are right, too.
            macs = int(self.graph.cost.macs(self.graph.widths))
            self.tested, self.given = check_dense(self.network, self.inputs, macs)
            found = find_culprits(every, shapes)
            if any(META in reason for reason in found.values()):
                # Only the pruned network needs values: its code has kept what it computed for the dense one's shapes.
                self.tested, self.given = without_gradients(self.network), self.inputs
                found = find_culprits(list(found), shapes)
        if not found and self.self_test and every:
            explain, found = explain_values, find_culprits(every, values)
        if not found and every and reads_training(self.network):
            failing = find_culprits(every, trains)
            return {names[group]: explain_training(self.network, self.inputs, small([group])) for group in failing}
        return {names[group]: explain(reason, *self._both(*choose([group]))) for group, reason in found.items()}

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return random widths `(G,)` at which, if possible, no sizes are equal by chance that the code compares."""
        drawn = _drawn(self.graph, generator)
        self.sizes = changed_attributes(self.tested, self._first_channels(drawn))
        for _ in range(DRAWS - 1):
            if not equal_by_chance(self._compared(self.graph.widths), self._compared(drawn)):
                break
            drawn = _drawn(self.graph, generator)
        return drawn

    def faults_of_comparisons(self, drawn: Tensor, generator: torch.Generator) -> dict[str, Fault]:
        """Return the groups that fail at widths at which the code compares sizes with another outcome, by name.

        Args:
            drawn: Widths `(G,)` at which the network has passed.
            generator: Generator of the channels that are kept.
        """
        graph, found = self.graph, dict[str, Fault]()
        for turn in find_turns(self._compared, graph.widths, drawn, graph.least):
            widths = graph.widths.clone()
            for group, width in turn.widths.items():
                widths[group] = width
            choose = _selections(graph, widths, generator)
            groups = list(turn.widths)
            reason = self._shapes(groups, choose)
            if reason is None and self.self_test:
                reason = self._values(choose(groups)[0])
            if reason is not None:
                fault = Fault(f"{COMPARES}: {reason}; {SAME_PATH}", turn.line)
                found |= {graph.groups[group].name: fault for group in groups}
        return found

    def _shapes(self, pruned: Sequence[int], choose: Choose) -> str | None:
        """Return why the network does not run without what `choose` removes, or has other MACs, or None."""
        graph = self.graph
        uncounted = _uncounted(graph, choose(pruned)[1])
        if uncounted:
            fault = shape_fault(self.tested, self.given, graph.cuts, choose(pruned)[0], None, graph.dependents)
            if fault is not None:
                return fault
        chosen, widths = choose([group for group in pruned if group not in uncounted])
        macs = int(graph.cost.macs(widths))
        return shape_fault(self.tested, self.given, graph.cuts, chosen, macs, graph.dependents)

    def _values(self, chosen: Selection) -> str | None:
        """Return how the outputs of the pruned network differ from the masked dense one's, or None."""
        fresh, graph = torch.Generator().manual_seed(1), self.graph
        return exactness_fault(self.network, self.inputs, graph.cuts, chosen, fresh, graph.dependents)

    def _compared(self, widths: Tensor) -> Record:
        """Return the comparisons of sizes in the code of the network at `widths (G,)`."""
        key = self.tested, tuple(widths.tolist())
        if key not in self._seen:
            self._seen[key] = compared(self._first_channels(widths), self.given, self.sizes)
        return self._seen[key]

    def _pruned(self, network: nn.Module, selection: Selection) -> nn.Module:
        return prune(network, self.graph.cuts, selection, self.graph.dependents)

    def _first_channels(self, widths: Tensor) -> nn.Module:
        """Return the network with the first channels of each group, so many as `widths (G,)` says."""
        kept = [
            torch.arange(int(width)).expand(group.sets, -1)
            for width, group in zip(widths, self.graph.groups, strict=True)
        ]
        return self._pruned(self.tested, Selection(kept, self.graph.widths.tolist()))

    def _both(self, selection: Selection, widths: Tensor) -> tuple[nn.Module, nn.Module, Inputs, Expected]:
        """Return the pruned and the dense network, their inputs, and the shapes expected of the pruned one."""
        small = self._pruned(self.tested, selection)
        return small, shared_copy(self.tested), self.given, self.graph.shapes_by_line(widths)


def _drawn(graph: TracedNetwork, generator: torch.Generator) -> Tensor:
    """Return random widths `(G,)` at which groups are tested.

    Groups get different shares of their widths, as far as there are enough: the code may need two numbers of channels
    to be equal, of which one is that of a group, and one that of pairs of another group. One and two channels come
    last: their norms are the same whatever the channels are, and hide what comes before.
    """
    drawn, taken = torch.ones_like(graph.widths), set[Fraction]()
    for width in graph.widths[graph.widths > 1].unique().tolist():
        mine, smaller = graph.widths == width, 1 + torch.randperm(width - 1, generator=generator)
        order = sorted(smaller.tolist(), key=lambda number: (number <= 2, Fraction(number, width) in taken))
        chosen = [order[i % len(order)] for i in range(int(mine.sum()))]
        drawn[mine] = torch.tensor(chosen)
        taken |= {Fraction(number, width) for number in chosen}
    drawn = drawn.maximum(graph.least)
    uncounted = sorted(_uncounted(graph, drawn))
    drawn[uncounted] = torch.where(graph.widths[uncounted] > 2, 2, drawn[uncounted])
    return drawn


def _uncounted(graph: TracedNetwork, widths: Tensor) -> set[int]:
    """Return groups of which an Einstein sum has a single channel at `widths (G,)`.

    PyTorch then multiplies instead, which `FlopCounterMode` does not count.
    """
    sums = [axis for item, axis in graph.dependents.summaries if item.operator == "einsum"]
    return {group for axis in sums if int(axis.size(widths)) == 1 for group in axis.counts}


def _selections(graph: TracedNetwork, drawn: Tensor, generator: torch.Generator) -> Choose:
    """Return a function of the groups to prune, to the widths `drawn (G,)`; it gives the kept channels and widths."""
    dense = graph.widths
    orders = [
        torch.stack([torch.randperm(group.width, generator=generator) for _ in range(group.sets)])
        for group in graph.groups
    ]

    def choose(pruned: Sequence[int]) -> tuple[Selection, Tensor]:
        chosen = torch.zeros(len(graph.groups), dtype=torch.bool)
        chosen[list(pruned)] = True
        widths = torch.where(chosen, drawn, dense)
        kept = [order[:, : int(width)].sort(1)[0] for order, width in zip(orders, widths, strict=True)]
        return Selection(kept, dense.tolist()), widths

    return choose


def check_dense(network: nn.Module, inputs: Inputs, macs: int) -> tuple[nn.Module, Inputs]:
    """Run the network with nothing pruned and count its MACs.

    Args:
        network: The network, in evaluation mode.
        inputs: Its inputs for one example.
        macs: MACs of its graph.

    Returns:
        A network and inputs on which shapes can be tested: on the meta device, or as given if the code needs values.

    Raises:
        UserError: It does not run, or its MACs are others.
    """
    name, error = type(network).__name__, None
    for tested, given in ((on_meta(network), to_device(inputs, "meta")), (without_gradients(network), inputs)):
        try:
            counted = _count(shared_copy(tested), given)
        except Exception as raised:  # on the meta device: the code needs values, or makes tensors elsewhere
            error = raised
            continue
        if counted != macs:
            raise UserError(
                f"{name} has {counted:,} MACs by torch.utils.flop_counter, but {macs:,} in its graph: "
                "its forward pass takes another path when torch.export traces it, or computes what nothing reads"
            )
        return tested, given
    assert error is not None
    raise UserError(
        f"{name} fails with nothing pruned{in_line(error)}: {first_line(error)}; change its code"
    ) from error


def count_macs(network: nn.Module, inputs: Inputs) -> int:
    """Count the MACs of one forward pass on meta tensors with `FlopCounterMode`, halved."""
    return _count(on_meta(network), to_device(inputs, "meta"))


def _count(network: nn.Module, inputs: Inputs) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # others on the CPU are not counted
        run(network, inputs)
    return counter.get_total_flops() // 2


def shape_fault(
    network: nn.Module,
    inputs: Inputs,
    cuts: Mapping[str, Cut],
    selection: Selection,
    macs: int | None,
    dependents: Dependents = NOTHING,
) -> str | None:
    """Return why the pruned network does not run or does not cost `macs`, if given, or None if it runs at that cost.

    Only shapes matter: the network may be on the meta device, see `on_meta`.
    """
    try:
        counted = _count(prune(network, cuts, selection, dependents), inputs)
    except Exception as error:  # the user's code may raise anything at other widths
        return f"{DOES_NOT_FOLLOW} ({first_line(error)[:160]})"
    return None if macs in (None, counted) else f"the pruned network has {counted:,} MACs where {macs:,} were expected"


def find_culprits(groups: Sequence[int], fault: Callable[[Sequence[int]], str | None]) -> dict[int, str]:
    """Find the faulty groups by bisection, and return group -> description of the fault.

    Args:
        groups: Groups that fail together.
        fault: Returns the fault of pruning exactly the given groups, or None.

    Raises:
        UserError: The test fails with nothing pruned.
    """
    reason = fault(groups)
    if reason is None:
        return {}
    if not groups:
        raise UserError(f"the network fails a test with nothing pruned: {reason}; change its code")
    if len(groups) == 1:
        return {groups[0]: reason}
    half = len(groups) // 2
    found = find_culprits(groups[:half], fault) | find_culprits(groups[half:], fault)
    # Neither half fails alone: the halves fail together, and the later one is frozen.
    return found or dict.fromkeys(groups[half:], reason)
