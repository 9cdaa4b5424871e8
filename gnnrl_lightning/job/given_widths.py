"""Pruning to widths that the user gives: read and check them, then deliver as after a search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError, one_line, suggestion
from gnnrl_lightning.files import text_of
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.delivery import Delivered, finish
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.runs.folder import PRUNED, RunFolder

GIVEN = "given"
"""Proposer of widths that the user gives."""


def read_widths(path: str | Path, share: float | None = None) -> Mapping[str, int] | Sequence[int]:
    """Read the widths in a file.

    Args:
        path: Output of `predict --json`, a run's result.json, or the user's own JSON: name of each group -> width, or
            a list of widths in the order of the groups.
        share: Share of the dense MACs of the prediction to use, if there are several, or of the candidate of a search
            over a range of budgets; None: there is only one, or that of the result.

    Returns:
        Widths by name or in order, not checked yet.

    Raises:
        UserError: The file cannot be read or has another format, several predictions match, or none.
    """
    try:
        found = json.loads(text_of(Path(path)))
    except OSError as error:
        raise UserError(f"--widths {path} cannot be read: {error.strerror}; expected a JSON file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"--widths {path} is not JSON: {one_line(error)}; expected the output of predict --json, a "
            "result.json, or your own"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("predictions"), list):
        return _prediction(path, found["predictions"], share)
    if share is not None:
        search = found.get("search") if isinstance(found, dict) else None
        front = search.get("front") if isinstance(search, dict) else None
        if not isinstance(front, list):
            raise UserError(f"--share {share:g} selects a prediction, but {path} has none: omit it")
        return _prediction(path, front, share)
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
        raise UserError(f"--widths {path} has no predictions: write it again with predict --json")
    given = ", ".join(f"{each:g}" for each in widths)
    if share is None and len(widths) == 1:
        return next(iter(widths.values()))
    if share is None:
        raise UserError(f"--widths {path} has predictions for {given}: choose one, for example --share {max(widths):g}")
    if share not in widths:
        raise UserError(f"--widths {path} has no prediction for {share:g}: expected one of {given}")
    return widths[share]


def as_widths(graph: ComputationGraph, given: Mapping[str, int] | Sequence[int]) -> Tensor:
    """Check widths and return them as a tensor `(G,)`.

    Args:
        graph: The traced network.
        given: Name of each group -> width, or all widths in the order of the groups.

    Raises:
        UserError: A group is missing or unknown, a width is out of range, or nothing would be pruned.
    """
    names = [group.name for group in graph.groups]
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise UserError(
                    f"widths has {name!r}{suggestion(str(name), names)}, which is not a prunable group: see inspect"
                )
        missing = [name for name in names if name not in given]
        if missing:
            raise UserError(f"widths lacks {', '.join(missing)}: give the width of every group")
        given = [given[name] for name in names]
    if len(given) != len(names):
        raise UserError(
            f"widths has {len(given)} numbers, but the network has {len(names)} groups: give one width for each"
        )
    ranges = zip(names, given, graph.ranges.lowest.tolist(), graph.ranges.highest.tolist(), strict=True)
    for number, (name, width, lowest, highest) in enumerate(ranges):
        whole = isinstance(width, int) and not isinstance(width, bool)
        if whole and width == 0 and bool(graph.removable.groups[number] & ~graph.ranges.stays[number]):
            continue
        if not whole or not lowest <= width <= highest:
            raise UserError(f"the width of {name} is {width!r}: expected a whole number from {lowest} to {highest}")
    widths = torch.tensor(given, dtype=torch.int64)
    if torch.equal(widths, graph.widths):
        raise UserError("widths has the dense width of every group: expected fewer channels of one, at least")
    return widths


def budget_of(graph: ComputationGraph, widths: Tensor) -> Budget:
    """Return the budget that these widths meet exactly: their MACs, and the parameters that masks leave."""
    nonzero = int(graph.cost.nonzero(widths)) if graph.masks else None
    return Budget(macs=int(graph.cost.macs(widths)), nonzero=nonzero, min_width=int(bool((widths > 0).all())))


def deliver_widths(
    trained: Trained, widths: Tensor, folder: RunFolder, by: str = GIVEN, budget: Mapping[str, Any] | None = None
) -> Delivered | None:
    """Prune the dense network to given widths, repair, score, fine-tune, test once and save, without a search.

    The repair is `delivery.repair`, the score is measured before fine-tuning, and 0 epochs skip fine-tuning.

    Args:
        trained: The job, its dense network trained.
        widths: Checked widths `(G,)`, see `as_widths`.
        folder: Folder of the run.
        by: Who proposes them, for the record.
        budget: The budget that they meet, for the record; None: there was none.

    Returns:
        As `gnnrl_lightning.job.delivery.deliver`.
    """
    with trained.job.runtime.shown("scoring", 1) as advance:
        scored = trained.final_evaluator()(widths, by)
        advance()
    search = {"seed": trained.job.task.seed, "found_by": by}
    return finish(trained, {PRUNED: scored}, folder, budget or {}, search)
