"""The best candidates of a search are measured if the budget limits the latency; the best one within it is delivered.

Predictions flatter some candidates, and a search prefers those. If all of the best ones miss the limit, the search goes
on for a few evaluations with a limit that is smaller by what they have missed it: networks alike are flattered alike.
Then each candidate has a correction of its own: one that takes 5 % more than the limit is narrowed until it is
predicted to take 5 % less than before, and one with time to spare is widened. What has become of them is scored and
measured in turn.
"""

from __future__ import annotations

import statistics
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.cost.metrics import LATENCY
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.latency import with_latency
from gnnrl_lightning.job.saved import once
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.processes import from_first, rank
from gnnrl_lightning.search.surrogate_search import SurrogateSearch

TOLERANCE = 0.03
"""Share of the limit by which a measured candidate may exceed it: the error of a measurement."""

BEST = 5
"""Candidates of the search that are measured, the best ones by their evaluations."""

MORE, FEWEST = 16, 20
"""Evaluations with a smaller limit, if all of the best ones miss it, and distinct candidates that make a search: single
allocations are not continued."""

ROUNDS = 2
"""How often what has been measured is narrowed or widened to the limit, scored and measured again."""


@dataclass(frozen=True)
class Check:
    """A candidate that was measured at the end of a search.

    Attributes:
        candidate: The candidate.
        predicted: Its predicted latency, milliseconds.
        measured: Its measured latency while the dense network took `dense`, milliseconds.
        dense: The dense network's, measured in alternation.
        exceeds_by: Share of the limit by which it exceeds the limit; below 0: it has time to spare.
    """

    candidate: Evaluation
    predicted: float
    measured: float
    dense: float
    exceeds_by: float

    @property
    def met(self) -> bool:
        """Whether it meets the limit, within `TOLERANCE`."""
        return self.exceeds_by <= TOLERANCE

    def as_record(self) -> dict[str, Any]:
        """The check in plain JSON types."""
        figures = {name: getattr(self, name) for name in ("predicted", "measured", "dense", "met")}
        return {"widths": list(self.candidate.widths), **figures}


def with_latency_checked(searched: Searched, saved: Path | None = None) -> Searched:
    """Measure the best candidates of a search, bring them to the limit on the latency, and choose the best within it.

    After finals, only their winner is measured. What is scored here is not counted in the search's evaluations. If no
    candidate meets the limit, the nearest one is chosen, with a warning. The model of the latency is corrected by the
    one that is chosen. If the file has the choice, nothing is measured.
    """
    job = searched.trained.job
    limited = LATENCY in job.limits.budget.parsed  # not by every budget of a comparison
    if job.latency is None or not job.latency.milliseconds or not limited:
        return searched
    found = once(saved, "the winner is measured again", lambda: _chosen(searched))
    return _with(searched, Evaluation.from_record(found["best"]), found["checks"])


def _chosen(searched: Searched) -> dict[str, Any]:
    """Measure candidates, and return the record of the one to deliver, and those of all measurements."""
    checks = newest = _measured(searched, [searched.best] if searched.finals else searched.ranked()[:BEST])
    if not any(check.met for check in checks):
        again = _measured(searched, _searched_on(searched, checks))
        checks, newest = checks + again, again or newest
    for _ in range(ROUNDS):
        newest = _measured(searched, _brought(searched, checks, newest))
        checks = checks + newest
    chosen = _best_met(checks) or min(checks, key=lambda check: check.exceeds_by)
    if not chosen.met:
        _warn(searched.trained.job.limits, chosen)
    return {"best": chosen.candidate.as_record(), "checks": [check.as_record() for check in checks]}


def _searched_on(searched: Searched, checks: Sequence[Check]) -> list[Evaluation]:
    """Search on with a limit that is smaller by what the checks have missed it; return the best new candidates."""
    limits, sensitivity = searched.trained.job.limits, searched.sensitivity
    most = limits.limits[LATENCY] / (1 + statistics.median(check.exceeds_by for check in checks))
    few = len({item.widths for item in searched.history}) < FEWEST or searched.finals is not None
    if few or sensitivity is None or limits.functions[LATENCY](limits.smallest) > most:
        return []
    trained = searched.trained.under(replace(limits, limits={**limits.limits, LATENCY: most}))
    problem = trained.problem(trained.journalled(Journal()), lambda: sensitivity)
    problem.evaluations = sys.maxsize  # what the search has paid for is not paid for again
    for name in (*trained.pruner.passes, *problem.sensitivity.passes):
        problem.calibrate(name)
    problem.remember([item for item in searched.history if not item.dropped])
    known, problem.evaluations = len(problem.history), problem.spent + MORE
    SurrogateSearch(LATENCY).improve(problem, trained.job.task.seed)
    new = {item.widths: item for item in problem.history[known:]}
    return from_first(sorted(new.values(), key=lambda item: item.merit, reverse=True)[:BEST])


def _measured(searched: Searched, candidates: Sequence[Evaluation]) -> list[Check]:
    """Measure candidates and the dense network in alternation; the first process does."""
    if not candidates:
        return []
    trained, job = searched.trained, searched.trained.job
    rows = [torch.tensor(item.widths) for item in candidates]
    pruned = [job.graph.plan(trained.network, row).apply(trained.network) for row in rows]
    dense, *times = from_first(job.timer.networks([trained.dense, *pruned]) if rank() == 0 else [])
    most = job.limits.budget.parsed[LATENCY].of(dense)
    return [
        Check(item, float(job.graph.latency(row)), measured, dense, measured / most - 1)
        for item, row, measured in zip(candidates, rows, times, strict=True)
    ]


def _best_met(checks: Sequence[Check]) -> Check | None:
    return max((check for check in checks if check.met), key=lambda check: check.candidate.merit, default=None)


def _brought(searched: Searched, checks: Sequence[Check], newest: Sequence[Check]) -> list[Evaluation]:
    """Narrow or widen the newest candidates to the limit, score them, and return those better than the best within it.

    A candidate that misses the limit and is no better than the best within it is left out: narrowed, it is worse still.
    """
    limits, best = searched.trained.job.limits, _best_met(checks)
    lowest = float(limits.functions[LATENCY](limits.smallest))
    known, found = {check.candidate.widths for check in checks}, dict[tuple[int, ...], torch.Tensor]()
    for check in newest:
        hopeless = best is not None and not check.met and check.candidate.merit <= best.candidate.merit
        most = check.predicted / (1 + check.exceeds_by)
        if abs(check.exceeds_by) > TOLERANCE and not hopeless and most >= lowest:
            row = limits.project(torch.tensor(check.candidate.widths), {**limits.limits, LATENCY: most})
            found[tuple(row.tolist())] = row
    evaluate = searched.trained.evaluator()
    scored = from_first([evaluate(row, LATENCY) for widths, row in found.items() if widths not in known])
    return [item for item in scored if best is None or item.merit > best.candidate.merit]


def _warn(limits: BoundBudget, check: Check) -> None:
    limit = limits.budget.parsed[LATENCY]
    asked = f"{limit.value:.1%} of the dense network's" if limit.relative else f"{limit.value:g} ms"
    warnings.warn(
        f"budget.latency is missed: {asked} was asked for, and the nearest candidate takes {check.measured:.4g} ms, "
        f"{check.measured / check.dense:.1%}; set a smaller budget",
        stacklevel=3,
    )


def _with(searched: Searched, best: Evaluation, checks: Sequence[Mapping[str, Any]]) -> Searched:
    """Choose a candidate, and fit the model of the latency to its measured time, too."""
    job = searched.trained.job
    assert job.latency is not None
    record = next(record for record in checks if tuple(record["widths"]) == best.widths)
    # Relative to the dense network, whose time may have changed since it was measured first.
    milliseconds = record["measured"] / record["dense"] * job.dense_milliseconds
    latency = job.latency.learnt(torch.tensor(best.widths), milliseconds)
    try:
        job = with_latency(job, latency)
    except UserError:  # the smallest network misses the limit by the corrected model
        job = replace(job, graph=job.graph.with_latency(latency.model), latency=latency)
    trained = replace(searched.trained, job=job)
    return replace(searched, trained=trained, best=best, latency_checks=tuple(checks))
