"""Fine-tuning of pruned networks, their teacher, and which are delivered: those after it, or those before."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.recipe import pruned_again
from gnnrl_lightning.candidates.pruner import default_final_examples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.racing import sign_test
from gnnrl_lightning.job.options import DeliveryOptions
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.processes import rank
from gnnrl_lightning.report.costs import cost_figures
from gnnrl_lightning.runs.folder import DENSE, RunFolder
from gnnrl_lightning.surgery.layers import kept_inputs
from gnnrl_lightning.surgery.masks import zeros_held
from gnnrl_lightning.surgery.plan import Plan
from gnnrl_lightning.training.distillation import DISTILLATIONS, Teacher, outputs
from gnnrl_lightning.trees import Tree, map_tensors

GUESS = "guess"
"""Name of a network whose outputs are zero, among those that are measured before the fine-tuning."""

WORSE = 0.05
"""Level of the sign test by which a fine-tuning has made a network worse."""

NEAR_CHANCE = 0.1
"""Share of the way from guessing to the dense network's primary figure; a pruned network below it causes a warning."""

Scored = tuple[Tensor, dict[str, float]]
"""Scores of the held-out examples `(N,)`, higher is better, and the objective's figures."""


@dataclass(frozen=True)
class Finetuned:
    """A network after its fine-tuning.

    Args:
        network: The fine-tuned network, or the one before, if fine-tuning has made it worse.
        figures: Figures on the holdout under the keys of result.json: `*_search_before` and `*_search_after`
            fine-tuning, the primary figure after each epoch (`*_search_epochs`), and `finetuning_kept`: whether
            `network` is the fine-tuned one.
    """

    network: nn.Module
    figures: Mapping[str, Any]


def finetune(
    trained: Trained, before: Mapping[str, nn.Module], plans: Mapping[str, Plan], folder: RunFolder
) -> dict[str, Finetuned]:
    """Fine-tune copies of pruned networks with the same settings, and undo what has made a network worse.

    It has if the primary figure on the holdout is worse, and a paired sign test on the scores of the held-out examples
    is sure of it (`WORSE`): differences of few examples are chance. The network of the last epoch counts, not that of
    the best one: the best of many epochs on the holdout owes much to chance, too.

    Args:
        trained: The job, its dense network trained.
        before: Phase ("uniform" or "pruned") -> network before fine-tuning, which is not changed.
        plans: Phase -> the channels that it keeps.
        folder: Folder of the run.

    Returns:
        Phase -> network and figures; empty in all processes but the first one. Without epochs, the networks are those
        before.
    """
    job = trained.job
    trains, starts = job.options.finetuning.epochs > 0, {}
    if rank() == 0:
        known = {GUESS: Guess(trained.dense), DENSE: trained.dense} if trains else {}
        starts = _on_holdout(trained, {**known, **before})
        if trains:
            _warn_near_chance(job.task, {name: figures for name, (_, figures) in starts.items()})
    after, curves = {name: independent_copy(network) for name, network in before.items()}, {}
    for name, network in after.items():
        with zeros_held(network, job.graph.masked):
            curves[name] = job.train(name, network, job.options.finetuning, folder, teacher_of(trained, plans[name]))
    if rank() > 0:
        return {}
    ends, found = _on_holdout(trained, after) if trains else starts, {}
    for name, network in after.items():
        undone = not curves[name] and trains  # it diverged
        kept = not undone and not worse(job.task, starts[name], ends[name])
        figures = {
            **keyed("search_before", starts[name][1]),
            **keyed("search_after", ends[name][1]),
            f"{job.task.goal.primary}_search_epochs": [epoch[job.task.goal.primary] for epoch in curves[name]],
            "finetuning_kept": kept,
        }
        found[name] = Finetuned(network if kept and trains else before[name], figures)
    return found


def worse(task: Task, start: Scored, end: Scored) -> bool:
    """Whether training has made a network worse on the holdout, by more than chance.

    Args:
        task: The task.
        start: Scores and figures before the training, see `Task.scored`.
        end: Those after it.
    """
    primary = task.goal.primary
    if task.primary.merit(end[1][primary]) >= task.primary.merit(start[1][primary]):
        return False
    first, second = (scores.double().nan_to_num(-math.inf, math.inf, -math.inf) for scores, _ in (start, end))
    return sign_test(int((second > first).sum()), int((second < first).sum())) < WORSE


def keyed(suffix: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Return figures under the keys of result.json, `<name>_<suffix>`."""
    return {f"{name}_{suffix}": value for name, value in scores.items()}


def _on_holdout(trained: Trained, networks: Mapping[str, nn.Module]) -> dict[str, Scored]:
    """Return the scores of the held-out examples, and the figures, of networks by name."""
    task, found = trained.job.task, {}
    with trained.job.runtime.shown("holdout", len(networks)) as advance:
        for name, network in networks.items():
            found[name] = task.scored(network, task.data.holdout)
            advance()
    return found


class Guess(nn.Module):
    """A network whose outputs are zero.

    Args:
        network: Its outputs are replaced.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tree, **named: Tree) -> Tree:
        """Return zeros of the shapes of the network's outputs."""
        return map_tensors(torch.zeros_like, self.network(*inputs, **named))


def _warn_near_chance(task: Task, starts: Mapping[str, Mapping[str, float]]) -> None:
    """Warn of networks that have lost nearly all that the dense one has learned."""
    figure, values = task.primary, {name: scores[task.goal.primary] for name, scores in starts.items()}
    guess, dense = figure.merit(values[GUESS]), figure.merit(values[DENSE])
    for name in [each for each in values if each not in (GUESS, DENSE)]:
        if dense > guess and figure.merit(values[name]) < guess + NEAR_CHANCE * (dense - guess):
            warnings.warn(
                f"the {name} network starts its fine-tuning near chance: {figure.label} on the holdout "
                f"{figure.with_unit(values[name])}, of a guess {figure.with_unit(values[GUESS])}, of the dense network "
                f"{figure.with_unit(values[DENSE])}; set a larger budget, or as many epochs and as large a learning "
                "rate as a new network needs",
                stacklevel=2,
            )


def teacher_of(trained: Trained, plan: Plan) -> Teacher:
    """Return the teacher of a candidate: the dense network of the run, and the channels that the candidate keeps."""
    job = trained.job
    if DISTILLATIONS.find(job.options.finetuning.distillation) is outputs:  # which compares no layers
        return Teacher(trained.dense)
    cuts = [kept_inputs(job.graph, plan.selection)]
    if job.origin is not None and job.task.artifact is not None:
        steps = job.task.steps
        first = [step["fingerprint"] for step in steps].index(job.origin.graph.fingerprint)
        again = pruned_again(steps[first:], job.origin.network, job.task.example(), Path(job.task.artifact))
        cuts = [*(kept_inputs(graph, earlier.selection) for graph, earlier, _ in again), *cuts]
    return Teacher(trained.dense, reduce(_both, cuts))


def _both(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what two cuts, one after the other, have kept; a layer that one of them does not cut has kept all."""
    every = {**first, **second}
    return {name: first[name][second[name]] if name in first and name in second else every[name] for name in every}


def save_finetuned(
    task: Task, network: nn.Module, scores: Mapping[str, float], folder: Path, delivery: DeliveryOptions
) -> Mapping[str, Callable[..., Tree]]:
    """Save the pruned network of a task's artifact as a new artifact after further training.

    Args:
        task: The task, with its artifact.
        network: The network after it.
        scores: The objective's figures on the holdout.
        folder: Folder of the new artifact.
        delivery: Its formats, and the examples on which lossy ones calibrate.

    Returns:
        Format -> what was loaded again, see `gnnrl_lightning.artifacts.artifact.save`.

    Raises:
        UserError: The task has no artifact.
    """
    if task.artifact is None:
        raise UserError("the task has no artifact: give the folder of a pruned network")
    recipe = artifact.read_recipe(task.artifact)
    figures = cost_figures(recipe["figures"]) | {f"{name}_search_after": value for name, value in scores.items()}
    description = artifact.Description(recipe["network"], recipe["budget"], task.data.transform_record(), figures)

    def calibration() -> Tree:
        examples = delivery.calibration_examples
        examples = default_final_examples(task.trace_again(network)) if isinstance(examples, str) else examples
        return task.example(min(examples, len(task.data.train)))

    return artifact.save(
        folder,
        network,
        dense=task.original(),
        steps=recipe["steps"],
        example=task.example(),
        description=description,
        formats=delivery.formats,
        calibration=calibration,
    )
