"""The teacher of a fine-tuning: the dense network of the run, and which of its channels a pruned one has kept."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

from torch import Tensor

from gnnrl_lightning.artifacts.recipe import pruned_again
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.surgery.layers import kept_inputs
from gnnrl_lightning.surgery.plan import Plan
from gnnrl_lightning.training.distillation import DISTILLATIONS, Teacher, outputs


def teacher_of(trained: Trained, plan: Plan) -> Teacher:
    """Return the teacher of a candidate.

    Args:
        trained: The job, its network trained.
        plan: The channels of that network which the candidate keeps.
    """
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
