"""Of the candidates that accuracy cannot tell apart, the fastest one is delivered.

After fine-tuning, many allocations of the same cost are equally accurate, and their times differ by a tenth and more.
The sixteen best candidates of a search of ResNet-20 at half of its MACs, in multiples of 8 channels, took 55 to 70 % of
the dense network's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gnnrl_lightning.cost.metrics import LATENCY
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.finetuning import Scored, worse
from gnnrl_lightning.job.saved import once
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.processes import rank

FASTER = 0.98
"""Share of the best candidate's time below which another one counts as faster: measurements differ by as much."""


def with_fastest(searched: Searched, saved: Path | None = None) -> Searched:
    """Choose the fastest of the best candidates that is as good as the best one.

    The `delivery.fastest_of` best candidates are timed. Beginning with the fastest, those that are faster than the best
    one are pruned, repaired as for delivery and scored on the holdout, until one is as good as the best one: unless its
    primary figure is worse and a paired sign test is sure of it, see `gnnrl_lightning.job.finetuning`. Nothing is done
    where no fine-tuning follows, where the budget limits the latency, and after finals, which train their candidates
    instead. If the file has the choice, nothing is measured.
    """
    job = searched.trained.job
    limited = LATENCY in job.limits.budget.parsed
    candidates = searched.ranked()[: job.options.delivery.fastest_of]
    if job.options.finetuning.epochs == 0 or limited or searched.finals is not None or len(candidates) < 2:
        return searched

    def measured() -> dict[str, Any]:
        return {"candidates": _measured(searched, candidates) if rank() == 0 else []}

    records = once(saved, "the candidates are measured again", measured)["candidates"]
    fastest = min((each for each in records if each["alike"]), key=lambda each: each["milliseconds"])
    best = next(item for item in candidates if list(item.widths) == fastest["widths"])
    return replace(searched, best=best, alike=tuple(records))


def _measured(searched: Searched, candidates: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Time candidates, and score those that are faster than the first one until one is as good.

    Returns:
        For each candidate its widths and time (`milliseconds`); whether it is as good as the first one (`alike`), which
        is None where it was not scored, and the primary figure where it was.
    """
    trained, job = searched.trained, searched.trained.job
    pruner, primary = trained.final_pruner, job.task.goal.primary
    plans = [pruner.plan(torch.tensor(item.widths)) for item in candidates]
    times = job.timer.networks([plan.slice(pruner.network).eval() for plan in plans])
    alike, figures = {0: True}, dict[int, float]()

    def scored(number: int) -> Scored:
        found = job.task.scored(pruner.prune(plans[number]), job.task.data.holdout)
        figures[number] = found[1][primary]
        return found

    faster = [number for number in range(len(times)) if times[number] < FASTER * times[0]]
    if faster:
        with job.runtime.shown("candidates alike", 1 + len(faster)) as advance:
            best = scored(0)
            advance()
            for number in sorted(faster, key=times.__getitem__):
                alike[number] = not worse(job.task, best, scored(number))
                advance()
                if alike[number]:
                    break
    return [
        {"widths": list(item.widths), "milliseconds": times[number], "alike": alike.get(number)}
        | ({primary: figures[number]} if number in figures else {})
        for number, item in enumerate(candidates)
    ]
