"""Widths that the user gives: read, checked, applied, and delivered as those that a search has found."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.delivery import Delivered, finish
from gnnrl_lightning.job.job import PRUNED
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.trained import Trained

GIVEN = "given"
"""Proposer of widths that the user gives."""


def read_widths(path: str | Path, share: float | None = None) -> Mapping[str, int] | Sequence[int]:
    """The widths in a file.

    Args:
        path: What `predict --json` wrote, a run's result.json, or JSON of the user's own: name of each group -> width,
            or the list of widths in the groups' order.
        share: Which of several predictions: its share of the dense MACs; None: the only one.

    Returns:
        Widths by name or in order, not checked yet.

    Raises:
        UserError: The file cannot be read, is none of these, or has several predictions, or not the one asked for.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--widths {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--widths {path} is no JSON: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("predictions"), list):
        return _prediction(path, found["predictions"], share)
    if share is not None:
        raise UserError(f"--share {share:g} chooses among predictions, and {path} has none: leave it out")
    if isinstance(found, dict) and isinstance(found.get("pruned"), dict):
        found = found["pruned"].get("widths")
    if not isinstance(found, (dict, list)):
        raise UserError(f"--widths {path} has no widths: expected predictions, a result, or name of each group: width")
    return found


def _prediction(path: str | Path, predictions: Sequence[Any], share: float | None) -> Mapping[str, int]:
    try:
        widths = {float(item["macs_budget"]): dict(item["widths"]) for item in predictions}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"--widths {path} has predictions without macs_budget and widths: write it again") from error
    if not widths:
        raise UserError(f"--widths {path} has no predictions")
    given = ", ".join(f"{each:g}" for each in widths)
    if share is None and len(widths) == 1:
        return next(iter(widths.values()))
    if share is None:
        raise UserError(f"--widths {path} has predictions for {given}: choose one, for example --share {max(widths):g}")
    if share not in widths:
        raise UserError(f"--widths {path} has no prediction for {share:g}: expected one of {given}")
    return widths[share]


def as_widths(graph: ComputationGraph, given: Mapping[str, int] | Sequence[int]) -> Tensor:
    """Widths `(G,)` of a graph's groups, checked.

    Args:
        graph: The traced network.
        given: Name of each group -> width, or all widths in the groups' order.

    Raises:
        UserError: A group is missing or unknown, a width is out of its range, or nothing would be pruned.
    """
    names = [group.name for group in graph.groups]
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, 1)
                meant = f" (did you mean {near[0]}?)" if near else ""
                raise UserError(f"widths has {name!r}{meant}, which is no group that can be pruned: see inspect")
        missing = [name for name in names if name not in given]
        if missing:
            raise UserError(f"widths lacks {', '.join(missing)}: give the width of every group")
        given = [given[name] for name in names]
    if len(given) != len(names):
        raise UserError(f"widths has {len(given)} numbers, the network {len(names)} groups: give the width of each")
    ranges = zip(names, given, graph.ranges.lowest.tolist(), graph.ranges.highest.tolist(), strict=True)
    for name, width, lowest, highest in ranges:
        if not isinstance(width, int) or isinstance(width, bool) or not lowest <= width <= highest:
            raise UserError(f"the width of {name} is {width!r}: expected a whole number from {lowest} to {highest}")
    widths = torch.tensor(given, dtype=torch.int64)
    if torch.equal(widths, graph.widths):
        raise UserError("widths has the dense width of every group: nothing to prune")
    return widths


def budget_of(graph: ComputationGraph, widths: Tensor) -> Budget:
    """The budget that widths use up: as many MACs as they cost."""
    return Budget(macs=int(graph.cost.macs(widths)))


def deliver_widths(trained: Trained, widths: Tensor, folder: RunFolder) -> Delivered | None:
    """Prune the dense network to given widths, repair, score, fine-tune, test once and save, without a search.

    The repair is that of every delivery (`delivery.repair`), the score is that before fine-tuning, and 0 epochs of
    fine-tuning leave it out.

    Args:
        trained: The job, its dense network trained.
        widths: Checked widths `(G,)`, see `as_widths`.
        folder: Folder of the run.

    Returns:
        As `gnnrl_lightning.job.delivery.deliver`.
    """
    with trained.job.runtime.shown("scoring", 1) as advance:
        scored = trained.evaluator(pruner=trained.final_pruner)(widths, GIVEN)
        advance()
    return finish(trained, {PRUNED: scored}, folder, {}, {"seed": trained.job.task.seed, "found_by": GIVEN})
