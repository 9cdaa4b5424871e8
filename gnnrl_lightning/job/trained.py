"""The second part: a trained dense network, from which candidates are made and scored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.checks import instance
from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.data import ExampleSet
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.racing import random_order
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.arguments import check_folder
from gnnrl_lightning.job.checked import Checked
from gnnrl_lightning.job.identity import named_tensors, sha256_of
from gnnrl_lightning.job.job import Job
from gnnrl_lightning.job.latency import shared_latency
from gnnrl_lightning.job.trial import make_sensitivity
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.processes import from_first, of_all, rank
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.runs.folder import DENSE, RunFolder
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.speed.inference import PRECISIONS
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


def train(checked: Checked, folder: RunFolder | None = None) -> Trained:
    """Train a copy of the dense network and save its weights, unless it is trained already.

    Args:
        checked: The checked job.
        folder: Folder of the run, from which existing weights are loaded; None: the network is trained already.

    Raises:
        UserError: The network is not trained, and there is no folder.
    """
    instance("checked", checked, Checked, "what check has returned")
    if folder is not None:
        check_folder(folder)
    job = shared_latency(agreed(checked.job), checked.network, folder)
    network = checked.network
    if not job.task.trained:
        if folder is None:
            raise UserError(f"{job.task.path} is not trained: give its checkpoint, or a folder to train it in")
        network = independent_copy(checked.network)
        job.train(DENSE, network, job.options.pretraining, folder)
    pruner = Pruner(
        job.graph,
        network,
        checked.calibration,
        job.options.candidate.importance,
        job.options.candidate.repair,
        dtype=PRECISIONS[job.options.scoring.precision],
        objective=job.task.goal,
    )
    return Trained(job, network, pruner)


def agreed(job: Job) -> Job:
    """Return the job with what the first process has measured of the options; each process has tuned by itself.

    Raises:
        UserError: The processes have different held-out examples.
    """
    if len({*of_all(sha256_of(named_tensors(job.task.data.holdout)))}) > 1:
        raise UserError(
            f"each process has held out other examples of {job.task.data.name}: give the generator that draws its "
            "split a seed, or use the global ones, which are seeded"
        )
    job = replace(job, options=from_first(job.options))
    multiple = from_first(job.limits.budget.channel_multiple)
    if isinstance(multiple, int) and multiple != job.limits.budget.channel_multiple:
        job = replace(job, limits=job.limits.bind(job.limits.budget.aligned(multiple)))
    return job


@dataclass(frozen=True)
class Trained:
    """A job with its trained dense network.

    Args:
        job: The task with its limits and options.
        network: The trained dense network, on the job's device.
        pruner: Makes candidates from it.
    """

    job: Job
    network: nn.Module
    pruner: Pruner
    _known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def dense(self) -> nn.Module:
        """The dense network of the run, of which `network` may be what earlier stages have left."""
        return self.network if self.job.origin is None else self.job.origin.network

    def under(self, limits: BoundBudget) -> Trained:
        """Return the same job under another budget; what has been measured on the network is not measured again."""
        return replace(self, job=replace(self.job, limits=limits))

    def without_finetuning(self) -> Trained:
        """Return the same job, in which nothing is fine-tuned."""
        options = self.job.options
        options = replace(options, finetuning=replace(options.finetuning, epochs=0))
        return replace(self, job=replace(self.job, options=options))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what has been made under this name, for this job or for one with another budget."""
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    @property
    def final_pruner(self) -> Pruner:
        """The pruner of the delivered networks, with the repair and calibration examples of `delivery`."""
        job, repair = self.job, self.job.options.delivery.repair
        return self._once("final_pruner", lambda: self.pruner.final(job.calibration(job.final_examples), repair))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of graph, dense weights and holdout, hexadecimal: a journal's evaluations are of these."""
        graph, holdout = self.job.graph, named_tensors(self.job.task.data.holdout)
        return sha256_of({**state_tensors(self.network), **holdout}, " ".join([graph.fingerprint, *graph.masked]))

    @property
    def sensitivity(self) -> Sensitivity:
        """Effect of narrowing each group, measured once."""
        return self._measured[0]

    @property
    def sensitivity_seconds(self) -> float:
        """Duration of the measurement of the sensitivity, seconds."""
        return self._measured[1]

    @property
    def _measured(self) -> tuple[Sensitivity, float]:
        whole = self.job.limits.allowed.removable is not None
        return self._once(f"sensitivity, whole groups {whole}", self._measure)

    def _measure(self) -> tuple[Sensitivity, float]:
        measure, began = self.job.options.search.sensitivity, time.perf_counter()
        assert measure is not None, "a search without a sensitivity reads none"
        with self.job.runtime.shown("sensitivity", len(self.job.graph.groups)) as advance:
            found = make_sensitivity(measure, self.pruner, self.job.limits.allowed, advance)
        return found, time.perf_counter() - began

    def evaluator(self, drop_probability: float | None = None) -> Evaluator:
        """Return a new evaluator of a search's candidates, without results.

        Args:
            drop_probability: Probability of dropping a candidate that is as good as the best one; None: none is.
        """
        scoring, reward, held = self.job.options.scoring, self.job.options.episode.reward, self.job.task.data.holdout
        ranked = None if reward is None else find_reward(reward, self.job.task.goal)
        examples = scoring.count(len(held))
        if examples < len(held):
            held = held.subset(random_order(len(held))[:examples])
        return self._evaluator(self.pruner, held, scoring.finetune_steps, drop_probability, ranked)

    def final_evaluator(self, steps: int | None = None) -> Evaluator:
        """Return a new evaluator of networks as they would be delivered: few, so that all of the holdout scores each.

        Args:
            steps: Steps of training before a network is scored; None: as for a search's candidates.
        """
        steps = self.job.options.scoring.finetune_steps if steps is None else steps
        return self._evaluator(self.final_pruner, self.job.task.data.holdout, steps)

    def _evaluator(
        self,
        pruner: Pruner,
        held: ExampleSet,
        steps: int,
        drop_probability: float | None = None,
        reward: Callable[[Evaluation], float] | None = None,
    ) -> Evaluator:
        task, scoring = self.job.task, self.job.options.scoring
        data, finetune = task.data, None
        assert isinstance(scoring.batch_size, int)  # resolved
        if steps > 0:
            made = {"batch_size": data.batch_size, "seed": task.seed, "precision": scoring.precision}
            finetune = ShortFinetune(data.train, data.augment, data.normalize, task.goal, steps, **made)
        return Evaluator(
            pruner,
            held,
            data.normalize,
            task.goal,
            scoring.batch_size,
            scoring.precision,
            finetune,
            drop_probability,
            self.job.limits.costs,
            reward,
        )

    def journal(self, path: Path) -> Journal:
        """Return the journal in a file, to be resumed; it must be of this network. Only the first process has one."""
        return Journal(path, resume=True, start=self.fingerprint) if rank() == 0 else Journal()

    def journalled(self, journal: Journal, episode: EpisodeOptions | None = None) -> Journalled:
        """Return an evaluator that records its results in a journal.

        Args:
            journal: File of the results; those that it has are not evaluated again.
            episode: Options of the searching agent's episodes: with a budget for each, candidates do not race; None:
                as configured.
        """
        probability = self.job.options.playing(episode).drop_probability()
        return Journalled(self.evaluator(probability), journal, self.job.limits.ratios)

    def problem(self, evaluate: Journalled, sensitivity: Callable[[], Sensitivity] | None = None) -> SearchProblem:
        """Return a new search problem with all evaluations left; without `sensitivity`, the configured one."""
        options, limits = self.job.options, self.job.limits
        configured = None if options.search.sensitivity is None else lambda: self.sensitivity
        return SearchProblem(
            self.job.graph,
            limits,
            evaluate,
            options.search.evaluations,
            starting_candidates(self.job.graph, limits),
            sensitivity or configured,
            self.job.evaluation_examples,
            self.pruner,
            evaluate.settle,
        )
