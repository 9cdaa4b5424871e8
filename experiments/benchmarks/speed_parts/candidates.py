"""Candidates of a recorded search, evaluated with the published method, on the whole holdout, and in a race."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau
from torch import Tensor

from gnnrl_lightning.data import ImageSet
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.options import ScoringOptions
from gnnrl_lightning.evaluation.racing import Course, hopeless, stage_ends
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.search.methods import METHODS
from gnnrl_lightning.speed.rounds import synchronize
from speed_parts.memory import peaks
from speed_parts.published import evaluate

RESAMPLES = 1000
MISS = 0.3
"""A race counts as missed if its winner is more than this many points of top-1 below the best candidate."""

RACING = ScoringOptions().drop_probability
"""Probability of dropping a candidate that is as good as the best one: the default."""


def recorded(trained: Trained, path: Path) -> Tensor:
    """Distinct widths `(n, G)` of a search, in the order of its requests.

    Args:
        trained: The network and its images; if the search has more evaluations, every second, third, ... candidate is
            taken.
        path: Journal of the search; if the file is missing, a cross-entropy search is recorded.
    """
    if not path.exists():
        METHODS["cross_entropy"].run(trained.problem(trained.journalled(Journal(path))), 0)
    lines = path.read_text(encoding="utf-8").splitlines()
    asked = dict.fromkeys(tuple(json.loads(line)["widths"]) for line in lines)
    return torch.tensor([*asked][:: math.ceil(len(asked) / trained.job.options.search.evaluations)])


def chosen(count: int, of: int) -> list[int]:
    """Indices of the timed candidates: half of them from the last quarter, evenly spaced in both parts."""
    last = of - of // 4
    half = min(count // 2, of - last)
    early = torch.linspace(1, last - 1, count - half).round().long().tolist()
    return sorted({*early, *torch.linspace(last, of - 1, half).round().long().tolist()})


def measure(trained: Trained, journal: Path, count: int, references: int) -> dict[str, Any]:
    """Time and compare the evaluation methods for each candidate.

    Args:
        trained: The network and its images, with precision bf16.
        journal: Journal of the recorded search, see `recorded`.
        count: Number of timed candidates.
        references: Number of candidates for the published method, whose cost does not depend on the candidate.
    """
    data, graph, device = trained.job.task.data, trained.job.graph, trained.job.runtime.device
    widths = recorded(trained, journal)
    timed = chosen(count, len(widths))
    ways = {"racing": RACING, "plain": None, "plain_fp32": None, "whole": 0.0}  # 0: a race that drops nothing
    evaluators = {}
    for way, probability in ways.items():
        evaluators[way] = trained.evaluator()
        evaluators[way].drop_probability = probability
        evaluators[way].dtype = torch.float32 if way == "plain_fp32" else torch.bfloat16
    start = time.perf_counter()
    trained.pruner.prune(trained.pruner.plan(graph.widths))
    synchronize(device)
    calibration = time.perf_counter() - start
    found: dict[str, list[Evaluation]] = {way: [] for way in ways}
    reference: list[float] = []
    for place, row in enumerate(widths):
        for way in ways if place in timed else ("racing", "whole"):
            trained.pruner.dtype = evaluators[way].dtype
            found[way].append(evaluators[way](row, "recorded"))
        if place in timed and len(reference) < references:
            start = time.perf_counter()
            assert isinstance(data.holdout, ImageSet)
            evaluate(graph, trained.network, row, data.holdout, data.normalize)
            reference.append(time.perf_counter() - start)
    seconds = {way: statistics.mean(item.seconds for item in found[way]) for way in ("plain", "plain_fp32")}
    seconds["racing"] = statistics.mean(found["racing"][place].seconds for place in timed)
    scores = [[found[way][place].merit[0] for place in timed] for way in ("racing", "whole")]
    published = statistics.mean(reference)
    sizes = [len(labels) for _, labels in evaluators["whole"].batches]
    ends = [sum(sizes[:end]) for end in stage_ends(sizes)]
    return {
        "candidates": len(widths),
        "timed": len(timed),
        "images": len(data.holdout),
        "calibration_s": round(calibration, 2),
        "published_s": round(published, 2),
        **{f"{way}_s": round(value, 3) for way, value in seconds.items()},
        **{f"ratio_{way}": round(published / value, 2) for way, value in seconds.items()},
        "kendall_tau": tau(*scores),
        "seen": round(statistics.mean(found["racing"][place].seen for place in timed)),
        "racing_error": RACING,
        "racing_miss": missed(found["whole"], ends, RESAMPLES),
        **peaks(device),
    }


def tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's rank correlation; None if one of the inputs is constant."""
    found: Any = kendalltau(first, second)
    return round(float(found.statistic), 3) if math.isfinite(found.statistic) else None


def missed(evaluations: Sequence[Evaluation], ends: Sequence[int], resamples: int) -> float:
    """Share of races whose winner is more than `MISS` points below the best candidate.

    Args:
        evaluations: Evaluations on the whole holdout, with their results by stage.
        ends: Number of images seen after each stage.
        resamples: Number of races between candidates drawn with replacement, in the order of the search.
    """
    generator, misses = torch.Generator().manual_seed(0), 0
    right = [torch.from_numpy(item.course.scores()) for item in evaluations if item.course]
    parts = [[Course().followed_by(row[:end], {}) for end in ends] for row in right]
    for _ in range(resamples):
        drawn = torch.randint(len(evaluations), (len(evaluations),), generator=generator).sort()[0].tolist()
        leader = drawn[0]
        for racer in drawn[1:]:
            behind = (hopeless(part, parts[leader][-1], len(ends), RACING) for part in parts[racer][:-1])
            if not any(behind):
                leader = max(leader, racer, key=lambda number: evaluations[number].merit)
        misses += max(evaluations[number].merit[0] for number in drawn) - evaluations[leader].merit[0] > MISS
    return misses / resamples
