"""The winner of a search with a limited latency is measured; one that misses the limit makes way for the next."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.cost.metrics import LATENCY
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.integrity import read_figures
from gnnrl_lightning.job.latency import with_latency, write_json
from gnnrl_lightning.job.searching import Searched
from gnnrl_lightning.processes import from_first, rank

TOLERANCE = 0.03
"""Share of the limit by which a measured candidate may exceed it: the error of a measurement."""

MOST_CHECKS = 5
"""Candidates that are measured at the end of a search, at most."""

NARROWED = 3
"""Best candidates that are narrowed to the corrected budget and scored, after each candidate that has missed it."""


@dataclass(frozen=True)
class Check:
    """A candidate that was measured at the end of a search.

    Attributes:
        candidate: The candidate.
        predicted: Its predicted latency, milliseconds.
        measured: Its measured latency while the dense network took `dense`, milliseconds.
        dense: The dense network's, measured in alternation.
        met: Whether it meets the limit, within `TOLERANCE`.
    """

    candidate: Evaluation
    predicted: float
    measured: float
    dense: float
    met: bool

    def as_record(self) -> dict[str, Any]:
        """The check in plain JSON types."""
        return {
            "widths": list(self.candidate.widths),
            "predicted": self.predicted,
            "measured": self.measured,
            "dense": self.dense,
            "met": self.met,
        }


def with_latency_checked(searched: Searched, saved: Path | None = None) -> Searched:
    """Measure the winner; if it misses the limit on the latency, correct the model, and take the next best candidate.

    The next one is the best of those that meet the budget by the corrected model: candidates of the search, and the
    `NARROWED` best of them after a projection onto the corrected budget, which are scored. If none of `MOST_CHECKS`
    meets the limit, the one nearest to it is delivered, with a warning.

    Args:
        searched: The finished search.
        saved: File in which the choice is kept for a run that is resumed: if it exists, nothing is measured; None: the
            choice is not kept.
    """
    job = searched.trained.job
    limited = LATENCY in job.limits.budget.parsed  # not by every budget of a comparison
    if job.latency is None or not job.latency.milliseconds or not limited:
        return searched
    if saved is not None and from_first(saved.is_file()):
        found = from_first(read_figures(saved, "the winner is measured again") if rank() == 0 else {})
        return _resumed(searched, found)
    checks, best = list[Check](), searched.best
    while True:
        checks.append(_check(searched, best))
        if checks[-1].met or len(checks) == MOST_CHECKS:
            break
        searched = _corrected(searched, checks[-1])
        following = _next(searched, checks)
        if following is None:
            break
        best = following
    chosen = checks[-1] if checks[-1].met else min(checks, key=lambda check: check.measured / check.dense)
    if not chosen.met:
        _warn(searched.trained.job.limits, chosen)
    if saved is not None and rank() == 0:
        record = {"best": chosen.candidate.as_record(), "checks": [check.as_record() for check in checks]}
        write_json(saved, record)
    return _with(searched, chosen.candidate, [check.as_record() for check in checks])


def _check(searched: Searched, candidate: Evaluation) -> Check:
    """Measure a candidate and the dense network in alternation; the first process does."""
    trained = searched.trained
    job, widths = trained.job, torch.tensor(candidate.widths)
    pruned = job.graph.plan(trained.network, widths).apply(trained.network)
    times = from_first(job.timer.networks([trained.dense, pruned]) if rank() == 0 else [])
    dense, measured = times
    limit = job.limits.budget.parsed[LATENCY]
    most = limit.value * dense if limit.relative else limit.value
    predicted = float(job.graph.latency(widths))
    return Check(candidate, predicted, measured, dense, measured <= (1 + TOLERANCE) * most)


def _corrected(searched: Searched, check: Check) -> Searched:
    """Fit the model to a measured candidate, too."""
    job = searched.trained.job
    assert job.latency is not None
    # Relative to the dense network, whose time may have changed since it was measured first.
    milliseconds = check.measured / check.dense * job.dense_milliseconds
    latency = job.latency.learnt(torch.tensor(check.candidate.widths), milliseconds)
    try:
        job = with_latency(job, latency)
    except UserError:  # the smallest network misses the limit by the corrected model
        job = replace(job, graph=job.graph.with_latency(latency.model), latency=latency)
    return replace(searched, trained=replace(searched.trained, job=job))


def _next(searched: Searched, checks: Sequence[Check]) -> Evaluation | None:
    """Return the best candidate that meets the corrected budget and has not been measured."""
    limits, known = searched.trained.job.limits, {check.candidate.widths for check in checks}
    if limits.graph is not searched.trained.job.graph:
        return None  # nothing meets it
    whole = [item for item in searched.history if not item.dropped]
    ranked = sorted({item.widths: item for item in whole}.values(), key=lambda item: item.merit, reverse=True)
    fitting = [item for item in ranked if item.widths not in known and bool(limits.met(torch.tensor(item.widths)))]
    evaluate = searched.trained.evaluator()
    proposals = torch.tensor([item.widths for item in [check.candidate for check in checks[:1]] + ranked[:NARROWED]])
    narrowed = {tuple(row.tolist()): row for row in limits.project(proposals)}
    fitting += [evaluate(row, LATENCY) for key, row in narrowed.items() if key not in known]
    return from_first(max(fitting, key=lambda item: item.merit, default=None))


def _warn(limits: BoundBudget, check: Check) -> None:
    limit = limits.budget.parsed[LATENCY]
    asked = f"{limit.value:.1%} of the dense network's" if limit.relative else f"{limit.value:g} ms"
    warnings.warn(
        f"budget.latency is missed: {asked} was asked for, and the nearest candidate takes {check.measured:.4g} ms, "
        f"{check.measured / check.dense:.1%}; set a smaller budget",
        stacklevel=3,
    )


def _resumed(searched: Searched, found: Mapping[str, Any]) -> Searched:
    """Return the choice that was made before an interruption."""
    for record in found["checks"][: MOST_CHECKS - 1]:  # the last one of them corrects nothing
        if not record["met"]:
            searched = _corrected(searched, _recorded(searched, record))
    return _with(searched, Evaluation.from_record(found["best"]), found["checks"])


def _recorded(searched: Searched, record: Mapping[str, Any]) -> Check:
    candidate = replace(searched.best, widths=tuple(record["widths"]))
    return Check(candidate, *(record[name] for name in ("predicted", "measured", "dense", "met")))


def _with(searched: Searched, best: Evaluation, checks: Sequence[Mapping[str, Any]]) -> Searched:
    return replace(searched, best=best, latency_checks=tuple(checks))
