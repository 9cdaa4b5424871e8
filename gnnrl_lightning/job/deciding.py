"""Options that are "auto", decided by what the network, its data and the machine are."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from gnnrl_lightning.candidates.pruner import default_calibration_examples, default_final_examples
from gnnrl_lightning.evaluation.racing import random_order
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.job import Job
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.options import AUTO
from gnnrl_lightning.search.baselines import uniform
from gnnrl_lightning.speed.training import TunedTraining
from gnnrl_lightning.speed.tuning import BATCH_SIZES, Tuned, tune
from gnnrl_lightning.surgery.layers import find_layers
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.trees import Tree, device_of, take, to_device


def decided(job: Job, network: nn.Module) -> tuple[Options, tuple[Tuned | TunedTraining, ...]]:
    """Decide every option of a job that is "auto"; `network` is the dense one, on the job's device.

    Scoring is measured on the dense network, trainings on the network that they train, at the keep ratio of all groups
    that meets the budget if it is a pruned one; an untrained network takes as long as a trained one.

    Returns:
        The options, and the measurements behind them.
    """
    task, graph, options = job.task, job.graph, job.options
    scoring, measured = options.scoring, list[Tuned | TunedTraining]()
    if scoring.precision == AUTO:
        sizes = BATCH_SIZES if scoring.batch_size == AUTO else (scoring.batch_size,)
        found = tune(network, find_layers(graph), _some(task, max(sizes), network), task.goal, sizes)
        scoring = replace(scoring, precision=found.precision, batch_size=found.batch_size)
        measured.append(found)
    if scoring.batch_size == AUTO:
        scoring = replace(scoring, batch_size=task.data.eval_batch_size)
    pretraining, finetuning = options.pretraining, options.finetuning
    if pretraining.open and not task.trained:
        pretraining, found = decided_training(pretraining, task, network, "dense network")
        measured.append(found)
    if finetuning.open:
        smaller = graph.plan(network, uniform(graph, job.limits)).apply(network)
        finetuning, found = decided_training(finetuning, task, smaller, "pruned networks")
        measured.append(found)
    trainings = {"pretraining": pretraining.closed, "finetuning": finetuning.closed}
    return replace(options, scoring=scoring, **trainings), tuple(measured)


def decided_training(
    options: TrainingOptions, task: Task, network: nn.Module, trained: str = TunedTraining.trained
) -> tuple[TrainingOptions, TunedTraining]:
    """Decide precision and memory format of a training.

    Args:
        options: Options whose precision is auto.
        task: The task.
        network: The network to train, or one with the same shapes; it is not changed.
        trained: What the line for the user calls it.
    """
    found = replace(task.tune_training(network), trained=trained)
    return found.applied(options), found


def without_auto(options: Options, graph: ComputationGraph, examples: int) -> Options:
    """Decide how many training examples candidates and delivered networks are repaired with, where that is "auto".

    Args:
        options: The options.
        graph: The traced network.
        examples: Number of training examples, of which candidates are repaired with no more.
    """
    candidate, delivery = options.candidate, options.delivery
    if candidate.calibration_examples == AUTO:
        candidate = replace(candidate, calibration_examples=min(default_calibration_examples(graph), examples))
    if delivery.calibration_examples == AUTO:
        delivery = replace(delivery, calibration_examples=default_final_examples(graph))
    return replace(options, candidate=candidate, delivery=delivery)


def _some(task: Task, count: int, network: nn.Module) -> Tree:
    """Return normalised inputs of at most `count` examples of the holdout, on the network's device."""
    data = task.data
    some = take(data.holdout.inputs, random_order(len(data.holdout))[:count])
    return data.normalize(to_device(some, device_of([*network.parameters()])))
