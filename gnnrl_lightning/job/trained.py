"""The second stage: the dense network is trained, so that candidates can be made of it and scored."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.job.checked import Checked
from gnnrl_lightning.job.job import DENSE, Job
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.processes import from_first
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.speed.inference import PRECISIONS
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


def train(checked: Checked, folder: RunFolder | None = None) -> Trained:
    """Train a copy of the dense network and save its weights, unless it is trained already.

    Args:
        checked: The checked job.
        folder: Folder of the run, which may have the weights; None: there is nothing to write, as the network is
            trained.

    Raises:
        UserError: There is no folder, and the network is not trained.
    """
    job = replace(checked.job, options=from_first(checked.job.options))  # where each process has tuned for itself
    network = checked.network
    if not job.task.trained:
        if folder is None:
            raise UserError(f"{job.task.path} is not trained: give its checkpoint, or a folder to train it in")
        network = copy.deepcopy(checked.network)
        job.train(DENSE, network, job.options.pretraining, folder)
    candidate, dtype = job.options.candidate, PRECISIONS[job.options.scoring.precision]
    made = {"importance": candidate.importance, "repair": candidate.repair, "dtype": dtype}
    made["objective"] = job.task.goal
    return Trained(job, network, Pruner(job.graph, network, checked.calibration, **made))


@dataclass(frozen=True)
class Trained:
    """A job whose dense network is trained.

    Args:
        job: What is to be compressed, and how.
        network: The dense network, trained, on the job's device.
        pruner: Makes candidates of it.
    """

    job: Job
    network: nn.Module
    pruner: Pruner

    @cached_property
    def final_pruner(self) -> Pruner:
        """Prunes what is delivered, with the repair and as many calibration examples as are meant for that."""
        delivery, train = self.job.options.delivery, self.job.task.data.train
        assert isinstance(delivery.calibration_examples, int)  # decided
        calibration = self.job.calibration(min(delivery.calibration_examples, len(train)))
        return self.pruner.final(calibration, delivery.repair)

    @property
    def sensitivity(self) -> Sensitivity:
        """What narrowing one group costs, measured once."""
        return self._measured[0]

    @property
    def sensitivity_seconds(self) -> float:
        """Seconds that it takes to measure the sensitivity."""
        return self._measured[1]

    @cached_property
    def _measured(self) -> tuple[Sensitivity, float]:
        measure, began = self.job.options.search.sensitivity, time.perf_counter()
        assert measure is not None, "a search without a sensitivity reads none"
        with self.job.runtime.shown("sensitivity", len(self.job.graph.groups)) as advance:
            found = SENSITIVITIES.find(measure).make(self.pruner, advance)
        return found, time.perf_counter() - began

    def evaluator(self, drop_probability: float | None = None, pruner: Pruner | None = None) -> Evaluator:
        """What scores candidates, and knows none yet.

        Args:
            drop_probability: With which one as good as the best may be dropped; None: each is scored on all held-out
                examples.
            pruner: Makes the candidates; None: the search's.
        """
        data, scoring = self.job.task.data, self.job.options.scoring
        assert isinstance(scoring.batch_size, int)  # decided
        return Evaluator(
            pruner or self.pruner,
            data.holdout,
            data.normalize,
            self.job.task.goal,
            scoring.batch_size,
            scoring.precision,
            self._short_finetune(),
            drop_probability,
            self.job.limits.costs,
        )

    def _short_finetune(self) -> ShortFinetune | None:
        """The training of candidates before they are scored."""
        task, scoring = self.job.task, self.job.options.scoring
        if scoring.finetune_steps == 0:
            return None
        data = task.data
        made = {"batch_size": data.batch_size, "seed": task.seed, "precision": scoring.precision}
        return ShortFinetune(data.train, data.augment, data.normalize, task.goal, scoring.finetune_steps, **made)

    def journalled(self, limits: BoundBudget, journal: Journal, episode: EpisodeOptions | None = None) -> Journalled:
        """An evaluator whose answers are written down.

        Args:
            limits: What a candidate may cost.
            journal: Where the answers go, and come from.
            episode: What the episodes of the agent are that searches: where each has a budget of its own, candidates
                do not race; None: as configured.
        """
        return Journalled(self.evaluator(self.job.options.drop_probability(episode)), journal, limits.ratios)

    def problem(
        self, limits: BoundBudget, evaluate: Journalled, sensitivity: Callable[[], Sensitivity] | None = None
    ) -> SearchProblem:
        """A search that has not begun, with all evaluations left.

        Args:
            limits: What a candidate may cost.
            evaluate: Scores candidates.
            sensitivity: Gives the sensitivity to those who read it; None: as configured.
        """
        options = self.job.options
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
