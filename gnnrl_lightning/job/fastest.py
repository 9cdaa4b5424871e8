"""Of the candidates that accuracy cannot tell apart, the fastest one is delivered.

After fine-tuning, many allocations of the same cost are equally accurate, and their times differ by a tenth and more.
The sixteen best candidates of a search of ResNet-20 at half of its MACs, in multiples of 8 channels, took 55 to 70 % of
the dense network's time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gnnrl_lightning.cost.metrics import LATENCY
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.finetuning import worse
from gnnrl_lightning.job.saved import once
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.processes import rank


def with_fastest(searched: Searched, saved: Path | None = None) -> Searched:
    """Choose the fastest of the best candidates that are as good as the best one.

    `delivery.fastest_of` candidates are pruned and repaired as for delivery. One is as good as the best one unless its
    primary figure on the holdout is worse and a paired sign test is sure of it, see `gnnrl_lightning.job.finetuning`.
    Nothing is done where no fine-tuning follows, where the budget limits the latency, and after finals, which train
    their candidates instead. If the file has the choice, nothing is measured.
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


def _measured(searched: Searched, candidates: Sequence[Evaluation]) -> list[Mapping[str, Any]]:
    """Score candidates on the holdout as they would be delivered, and time those that are as good as the first one."""
    trained, job = searched.trained, searched.trained.job
    pruner, data, networks, scored = trained.final_pruner, job.task.data, [], []
    with job.runtime.shown("candidates alike", len(candidates)) as advance:
        for item in candidates:
            networks.append(pruner.prune(pruner.plan(torch.tensor(item.widths))))
            scored.append(job.task.scored(networks[-1], data.holdout))
            advance()
    alike = [number for number, each in enumerate(scored) if number == 0 or not worse(job.task, scored[0], each)]
    times = dict(zip(alike, job.timer.networks([networks[number] for number in alike]), strict=True))
    return [
        {
            "widths": list(item.widths),
            job.task.goal.primary: figures[job.task.goal.primary],
            "alike": number in times,
            "milliseconds": times.get(number),
        }
        for number, (item, (_, figures)) in enumerate(zip(candidates, scored, strict=True))
    ]
