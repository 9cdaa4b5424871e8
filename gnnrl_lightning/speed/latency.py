"""Latency of a network at any widths, from a table of operators and a few whole networks, all measured here.

```
found = measure_latency(graph, network, example, LatencyOptions(batch_size=1, threads=1))
graph = graph.with_latency(found.model)
widths = graph.project(graph.widths, latency=0.6)
```
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.grid import Grid
from gnnrl_lightning.cost.latency import LatencyModel
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.options import AUTO
from gnnrl_lightning.report.progress import ShownSteps, hidden_steps
from gnnrl_lightning.speed.backend import Backend
from gnnrl_lightning.speed.backends import BACKENDS
from gnnrl_lightning.speed.cache import Cache
from gnnrl_lightning.speed.grids import covering, measured_grids, wanted_grids
from gnnrl_lightning.speed.machine import machine
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.table import as_record, from_record, read_table
from gnnrl_lightning.speed.timer import RealTimer, Timer
from gnnrl_lightning.trees import Tree

NETWORKS = 14
"""Whole networks that are measured: the dense one, and others of random widths."""

NARROWEST = 0.2
"""Mean keep ratio of the narrowest of these."""

NEAR, SPREAD, GONE = 9, 0.5, 0.6
"""Networks near a budget that are measured, standard deviation of their log keep ratios before they are projected onto
it, and share of the groups that may go which the last one lacks."""

ANCHOR_WEIGHT = 400.0
"""Weight in the fit of candidates that have been checked, and then of the dense network, of which limits are shares."""


@dataclass(frozen=True)
class Latency:
    """The latency of a network at any widths, with the measurements behind it.

    Attributes:
        model: Predicts milliseconds.
        options: What was measured, and with what.
        machine: The machine; empty if the table is the user's.
        widths: Widths of the whole networks `(n, G)`, the dense one first; none if the table is the user's.
        milliseconds: Their measured times.
        checked: How many of the last ones are candidates that were checked at the end of a search.
    """

    model: LatencyModel
    options: LatencyOptions
    machine: Mapping[str, Any]
    widths: Tensor
    milliseconds: tuple[float, ...]
    checked: int = 0

    @property
    def errors(self) -> list[float]:
        """Relative errors for the whole networks, each predicted from the others; the dense one is left out."""
        return self.model.errors(self.widths, self.milliseconds)[1:] if len(self.milliseconds) > 2 else []

    def learnt(self, widths: Tensor, milliseconds: float) -> Latency:
        """The same with one more measured candidate `(G,)`, in which the fit must be nearly exact, as in the dense one.

        Args:
            widths: Its widths.
            milliseconds: Its time, while the dense network takes `self.milliseconds[0]`.
        """
        more = torch.cat([self.widths, widths[None]]), (*self.milliseconds, milliseconds)
        return replace(self, widths=more[0], milliseconds=more[1], checked=self.checked + 1).fitted()

    def fitted(self) -> Latency:
        """The same with the correction fitted to the whole networks."""
        if not self.milliseconds:
            return self
        count = len(self.milliseconds)
        first = count - self.checked
        model = self.model.fitted(self.widths[:first], self.milliseconds[:first])
        if self.checked:
            # A few candidates of about the same widths do not tell how widths are to be rounded, nor the ratio.
            weights = [ANCHOR_WEIGHT if number == 0 or number >= first else 1.0 for number in range(count)]
            model = model.fitted(self.widths, self.milliseconds, weights, model.correction)
        return replace(self, model=model)

    def as_record(self) -> dict[str, Any]:
        """All measurements in plain JSON types, see `latency_of_record`."""
        return {
            "options": asdict(self.options),
            "machine": dict(self.machine),
            "operators": as_record({use.key: self.model.grids[use.key] for use in self.model.uses}),
            "networks": {"widths": self.widths.tolist(), "milliseconds": list(self.milliseconds)},
        }

    def summary(self) -> dict[str, Any]:
        """Conditions and errors in plain JSON types, for results."""
        errors = [abs(error) for error in self.errors]
        return {
            **{name: value for name, value in asdict(self.options).items() if name != "cache"},
            "threads": self.machine.get("threads", self.options.threads),
            "processor": self.machine.get("processor"),
            "device": self.machine.get("device"),
            "versions": self.machine.get("versions"),
            "networks": len(errors),
            "mean_error": statistics.mean(errors) if errors else None,
            "largest_error": max(errors) if errors else None,
        }

    def __str__(self) -> str:
        """One line for the user."""
        found, dense = self.summary(), float(self.model(self.model.graph.widths))
        if not self.milliseconds:
            return f"latency is predicted from {found['table']}, not measured: the dense network takes {dense:.4g} ms"
        where = found["device"] if found["device"] != "cpu" else f"{found['processor']}, {found['threads']} threads"
        how = f"from {len(self.milliseconds)} networks"  # too few to predict each from the others
        if found["networks"]:
            errors = f"mean error of {found['mean_error']:.1%} (largest {found['largest_error']:.1%})"
            how = f"with a {errors} for {found['networks']} networks"
        return (
            f"latency of {found['batch_size']} examples ({where}, precision {found['precision']}, {found['backend']}) "
            f"is predicted {how}; the dense one takes {dense:.4g} ms"
        )


def measure_latency(
    graph: ComputationGraph,
    network: nn.Module,
    example: Tree,
    options: LatencyOptions | None = None,
    timer: Timer | None = None,
    steps: ShownSteps = hidden_steps,
    budget: Budget | None = None,
) -> Latency:
    """Measure a table of operators and a few whole networks, or read the user's table.

    Operators that the cache has are not measured again. The networks are of all sizes, and then some that meet the
    budget, of which the prediction must be right. Their widths are those that the budget allows: processors may compute
    widths that are multiples of 16, say, in another way than all others.

    Args:
        graph: The traced network.
        network: The network, on the device of the measurement.
        example: One example of its input.
        options: What is measured, and with what; None: the defaults.
        timer: Measures; None: this machine.
        steps: Shows progress.
        budget: The budget for whose networks the latency is predicted, with a limit on it; None: networks of all sizes
            and any widths.

    Raises:
        UserError: The user's table lacks an operator or cannot be read, the cache cannot be written, or the budget
            cannot be met.
    """
    options = options or LatencyOptions()
    backend = BACKENDS.find(options.backend, "latency.backend")
    uses, wanted = wanted_grids(graph, network, backend)
    if options.table is not None:
        return _of_table(graph, uses, read_table(options.table), options)
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    timer = timer or RealTimer(options, device, example, steps)
    here = _conditions(options, backend, device)
    named = {name: getattr(options, name) for name in ("batch_size", "precision", "backend")}
    cache = Cache(options.cache, {**here, **named})
    grids = covering(cache.read(), wanted)
    missing = {key: item for key, item in wanted.items() if key not in grids}
    if missing:
        cache.check_writable()
        fresh = measured_grids(missing, timer.operators)
        cache.add(fresh)
        grids |= fresh
    widths = some_widths(graph, 1 if budget is None else _multiple(budget))
    times = timer.networks([network, *(graph.plan(network, row).apply(network) for row in widths[1:])])
    found = Latency(LatencyModel(graph, uses, grids), options, here, widths, tuple(times)).fitted()
    return found if budget is None else _measured_near(found, graph, network, budget, timer)


def _measured_near(
    latency: Latency, graph: ComputationGraph, network: nn.Module, budget: Budget, timer: Timer
) -> Latency:
    """Measure networks that meet the budget by a first model, relative to the dense one, and fit the model again."""
    limits = budget.aligned(_multiple(budget)).on(graph.with_latency(latency.model))
    widths = limits.project(proposals_near(graph.widths, limits.allowed.removable)).unique(dim=0)
    widths = widths[(widths != graph.widths).any(1)]
    dense, *times = timer.networks([network, *(graph.plan(network, row).apply(network) for row in widths)])
    factor = latency.milliseconds[0] / dense  # the machine may have become slower since
    milliseconds = (*latency.milliseconds, *(factor * each for each in times))
    return replace(latency, widths=torch.cat([latency.widths, widths]), milliseconds=milliseconds).fitted()


def _multiple(budget: Budget) -> int:
    return 1 if budget.channel_multiple == AUTO else budget.channel_multiple


def _conditions(options: LatencyOptions, backend: Backend, device: torch.device) -> dict[str, Any]:
    """The machine, and the versions on which times depend, in plain JSON types."""
    versions = {"torch": torch.__version__, **backend.versions()}
    threads = options.threads or torch.get_num_threads()
    return machine(backend.device or device) | {"threads": threads, "versions": versions}


def latency_of_record(
    record: Mapping[str, Any], graph: ComputationGraph, network: nn.Module, options: LatencyOptions
) -> Latency:
    """The latency of a network from the measurements of an earlier run, see `Latency.as_record`.

    Args:
        record: The measurements.
        graph: The traced network.
        network: The network.
        options: What is measured; those of the record are the same, apart from paths.

    Raises:
        UserError: The measurements are of another network.
    """
    uses, _ = wanted_grids(graph, network, BACKENDS.find(options.backend, "latency.backend"))
    model = LatencyModel(graph, uses, from_record(record["operators"]))
    networks = record["networks"]
    widths = torch.tensor(networks["widths"], dtype=torch.int64).reshape(-1, len(graph.widths))
    return Latency(model, options, record["machine"], widths, tuple(networks["milliseconds"])).fitted()


def _of_table(graph: ComputationGraph, uses: Any, grids: Mapping[str, Grid], options: LatencyOptions) -> Latency:
    try:
        model = LatencyModel(graph, uses, grids)
    except UserError as error:
        raise UserError(f"latency.table {options.table}: {error}") from error
    for use in uses:
        grid, channels = grids[use.key], graph.channels(graph.widths[None])[0]
        largest = 0 if use.source is None else int(channels[use.source])
        if not grid.covers(largest, int(channels[use.target])):
            raise UserError(
                f"latency.table {options.table}: {use.key!r} ends at {grid.inputs[-1]} inputs and {grid.outputs[-1]} "
                f"outputs, the network has {largest} and {int(channels[use.target])}: add rows"
            )
    return Latency(model, options, {}, graph.widths[:0].reshape(0, len(graph.widths)), ())


def some_widths(graph: ComputationGraph, channel_multiple: int = 1) -> Tensor:
    """Widths of the networks to measure `(n, G)`, at most `NETWORKS`: the dense ones, then random ones, ever narrower.

    Args:
        graph: The traced network.
        channel_multiple: Number of channels of which those of pruned groups are multiples.
    """
    generator = torch.Generator().manual_seed(0)
    level = torch.linspace(1, NARROWEST, NETWORKS, dtype=torch.float64)[:, None]
    spread = 0.6 + 0.8 * torch.rand(NETWORKS, len(graph.widths), generator=generator, dtype=torch.float64)
    keep = (level * spread).clamp(max=1)
    multiples = (keep * graph.widths / channel_multiple).round().long().clamp(min=1) * channel_multiple
    multiples[0] = graph.widths
    found = multiples.maximum(graph.least).minimum(graph.widths).tolist()
    return torch.tensor([*dict.fromkeys(map(tuple, found))])


def proposals_near(widths: Tensor, removable: Tensor | None) -> Tensor:
    """Different proposals `(NEAR, G)` float64 to project onto a budget, the later ones without more and more groups.

    Args:
        widths: Dense widths `(G,)`.
        removable: Whether a group may go entirely `(G,)`; None: none may.
    """
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(NEAR, len(widths), generator=generator, dtype=torch.float64)
    proposals = widths * (SPREAD * spread).exp()
    if removable is not None:
        order = torch.rand(NEAR, len(widths), generator=generator).masked_fill(~removable, 2).argsort(1).argsort(1)
        gone = torch.linspace(0, GONE * int(removable.sum()), NEAR).round()
        proposals[order < gone[:, None]] = 0
    return proposals
