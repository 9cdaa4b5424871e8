"""The main job in plain Python; the command line and the notebooks call it.

```
compression = Compression(task, Budget(macs=0.5), search)         # checks everything, writes nothing
compression.train_dense(folder)                                   # where there is no checkpoint
real = compression.iterations(agent)                              # what the evaluations are enough for
compression.start(folder, agent)                                  # sensitivity, starting candidates, environments
Trainer(max_epochs=agent.iterations(real)).fit(agent)
result = deliver(compression, folder)                             # prunes, fine-tunes, tests once, saves
```

In a folder where an earlier run was interrupted the same calls go on: they take over what they find there. For the
search itself to go on, the trainer needs `latest = LatestCheckpoint(folder.checkpoint(AGENT), compression.notes)` among
its callbacks, and `fit(agent, ckpt_path=latest.found)`.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from gnnrl_lightning.candidates.pruner import Pruner, default_final_images
from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.racing import random_order
from gnnrl_lightning.evaluation.result import Evaluation, best_of, within
from gnnrl_lightning.job.policy_search import AGENT, SearchOptions, connect, environment
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.task import Task, save_weights
from gnnrl_lightning.networks import load_weights
from gnnrl_lightning.processes import from_first, rank, world_size
from gnnrl_lightning.repair.table import default_repair
from gnnrl_lightning.report.progress import SearchStatus, ShownSteps, hidden_steps
from gnnrl_lightning.rl.env import Evaluated
from gnnrl_lightning.rl.env.reward import check_reward, find_reward
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.speed.inference import PRECISIONS
from gnnrl_lightning.speed.tuning import AUTO, BATCH_SIZES, Tuned, tune
from gnnrl_lightning.surgery.layers import find_layers
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.surrogate.sensitivity import Sensitivity, load_sensitivity, save_sensitivity
from gnnrl_lightning.training.finetune import TrainingOptions, quiet_trainer

# Names of what phases leave in `checkpoints/`, beside AGENT.
DENSE, SENSITIVITY, POLICY = "dense", "sensitivity", "policy"
DELIVERED = ("uniform", "pruned")

PhaseTrainers = Callable[[str], Callable[..., Trainer]]
"""Phase ("dense", "uniform", "pruned") -> what makes the trainer of that phase."""


def quiet_trainers(phase: str) -> Callable[..., Trainer]:
    """Trainers that show and write nothing."""
    return quiet_trainer


class Compression:
    """One run of the main job: a network and a budget go in, a smaller network comes out.

    Args:
        task: The network and its images.
        budget: What the smaller network may cost.
        search: How candidates are found.
        pretrain: How the dense network is trained, where it has no checkpoint.
        finetune: How pruned networks are fine-tuned, uniform and ours alike.
        trainers: Makes the trainers of the training phases.
        shown: Shows progress of what else takes long.
        device: Where candidates are pruned, repaired and scored: the dense network, the calibration images and, as far
            as they fit, the search split are kept there.

    Attributes:
        limits: The budget in the numbers of the network.
        search: How candidates are found; what it left open is decided: repair, final images, precision and batch size.
        tuned: What was measured for these; None: nothing.
        problem: The search, its history and what it has spent.
        episodes: Of an iteration of the agent that searches, all processes together.

    Raises:
        UserError: Anything about the input is wrong; nothing has been written then.
    """

    def __init__(
        self,
        task: Task,
        budget: Budget,
        search: SearchOptions | None = None,
        pretrain: TrainingOptions | None = None,
        finetune: TrainingOptions | None = None,
        trainers: PhaseTrainers = quiet_trainers,
        shown: ShownSteps = hidden_steps,
        device: torch.device | str = "cpu",
    ) -> None:
        self.task, self.budget, self.trainers, self.shown = task, budget, trainers, shown
        self.device = torch.device(device)
        self.search = search or SearchOptions()
        self.pretrain, self.finetune = pretrain or TrainingOptions(), finetune or TrainingOptions()
        if self.pretrain.distillation_weight > 0:
            raise UserError("pretraining.distillation_weight needs a teacher, which only finetuning has")
        self.dense = task.build()
        self.graph = task.trace(self.dense)
        if not self.graph.groups:
            raise UserError(f"{task.network.class_path} has no channels that can be pruned; inspect says why")
        self.limits = budget.on(self.graph)
        if self.limits.met(self.graph.widths):
            raise UserError(f"{task.network.class_path} meets the budget as it is: nothing to prune")
        self.dense.to(self.device)
        self.tuned = self._tune() if self.search.precision == AUTO else None
        if self.tuned is not None:
            self.search = replace(self.search, precision=self.tuned.precision, batch_size=self.tuned.batch_size)
        if self.search.repair == AUTO:
            self.search = replace(self.search, repair=default_repair(self.dense))
        if self.search.final_calibration_images is None:
            images = default_final_images(task.data.search.image_shape)
            self.search = replace(self.search, final_calibration_images=images)
        self.pruner = Pruner(
            self.graph,
            self.dense,
            self._calibration(self.search.calibration_images),
            self.search.importance,
            self.search.repair,
            dtype=PRECISIONS[self.search.precision],
        )
        self.problem = self.make_problem(self.limits, Journal())
        self._began, self.episodes = 0.0, 0

    def _tune(self) -> Tuned:
        """The fastest way to score candidates, measured on the dense network; an untrained one takes as long."""
        data, size = self.task.data, self.search.batch_size
        sizes = BATCH_SIZES if size is None else (size,)
        images = data.search.images[random_order(len(data.search))[: max(sizes)]]
        return tune(self.dense, find_layers(self.graph), data.normalize(images.to(self.device)), sizes)

    def _calibration(self, images: int) -> Tensor:
        return self.task.data.calibration(images).to(self.device)

    def make_evaluator(self, error: float | None = None, pruner: Pruner | None = None) -> Evaluator:
        """What scores candidates, and knows none yet.

        Args:
            error: With which candidates race; None: each is scored on the whole search split.
            pruner: Makes the candidates; None: the search's.
        """
        data, precision = self.task.data, self.search.precision
        images = data.search, data.normalize, self.search.batch_size or data.eval_batch_size
        return Evaluator(pruner or self.pruner, *images, precision, self._short(), error, self.limits.costs)

    def make_problem(self, limits: BoundBudget, journal: Journal, agent: SearchOptions | None = None) -> SearchProblem:
        """A search that has not begun, with all evaluations left, and its own evaluator.

        Args:
            limits: What a candidate may cost.
            journal: Where its evaluations are written.
            agent: What the episodes of an agent are that searches; None: as for all. One that has a budget for each
                episode races with none.
        """
        error = (agent or self.search).drop_error
        return self._problem(limits, Journalled(self.make_evaluator(error), journal, limits.ratios))

    def _problem(self, limits: BoundBudget, evaluate: Journalled) -> SearchProblem:
        search = self.search
        return SearchProblem(
            self.graph,
            limits,
            evaluate,
            search.evaluations,
            starting_candidates(self.graph, limits),
            None if search.table is None else lambda: self.sensitivity,
            self._evaluation_images,
            self.pruner,
            evaluate.settle,
        )

    @property
    def _evaluation_images(self) -> int:
        data = self.task.data
        return self.search.evaluation_images(len(data.search), min(data.batch_size, len(data.train)))

    def _short(self) -> ShortFinetune | None:
        """The training of candidates before they are scored."""
        data, search = self.task.data, self.search
        if search.finetune_steps == 0:
            return None
        options = {"batch_size": data.batch_size, "seed": self.task.seed, "precision": search.precision}
        return ShortFinetune(data.train, data.augment, data.normalize, search.finetune_steps, **options)

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """What narrowing one group costs: made once, when the dense network is trained."""
        assert self.search.table is not None, "a search without a sensitivity reads none"
        with self.shown("sensitivity", len(self.graph.groups)) as advance:
            return SENSITIVITIES.find(self.search.table).make(self.pruner, advance)

    def iterations(self, agent: GraphLearner, processes: int = 1) -> int:
        """Iterations of the agent in the real environment.

        Args:
            agent: The agent.
            processes: Processes, each of which plays as many episodes.

        Raises:
            UserError: There are not enough evaluations for one.
        """
        return self.search.iterations(self.graph, self._evaluation_images, processes * agent.episodes_per_iteration)

    def prepare(self, agent: GraphLearner, search: SearchOptions | None = None) -> None:
        """Make the agent's policy, in an environment that scores nothing yet.

        Args:
            agent: The agent.
            search: What its episodes are; None: as for all.

        Raises:
            UserError: The policy cannot be made, or does not fit.
        """
        search = search or self.search
        reward = Evaluated(self.problem.ask, find_reward(search.reward), AGENT)
        agent.env = environment(self.graph, self.limits, search, reward)
        try:
            agent.configure_model()
        except UserError:
            raise
        except Exception as error:  # the user's own policy may raise anything
            raise UserError(f"model.actor_critic cannot be made: {one_line(error)}") from error
        check_reward(reward.reward, search.reward, self._untrained())

    def _untrained(self) -> Evaluation:
        """What an evaluation of a candidate that guesses may look like."""
        classes = self.task.data.num_classes
        widths = self.limits.project(self.graph.widths)
        scores = 100 / classes, math.log(classes), math.log(classes)
        images, seen = self._evaluation_images, len(self.task.data.search)
        return Evaluation(tuple(widths.tolist()), self.limits.costs(widths), *scores, 1.0, images, AGENT, seen)

    def train_dense(self, folder: RunFolder) -> None:
        """Train the dense network and save its weights, unless a checkpoint gave them."""
        if self.task.checkpoint is None:
            self.train_phase(DENSE, self.dense, self.pretrain, folder)

    def train_phase(
        self,
        phase: str,
        network: nn.Module,
        options: TrainingOptions,
        folder: RunFolder,
        teacher: nn.Module | None = None,
    ) -> None:
        """Train a network and save its weights, or load those that the folder has.

        Args:
            phase: "dense", "uniform" or "pruned".
            network: Trained in place.
            options: How.
            folder: Keeps checkpoint and weights.
            teacher: The network to distil from, where the options ask for that.
        """
        weights, checkpoint = folder.weights(phase), folder.checkpoint(phase)
        if from_first(weights.is_file()):
            load_weights(network, weights)
            return
        self.task.train(network, options, self.trainers(phase), teacher=teacher, checkpoint=checkpoint)
        if rank() == 0:
            save_weights(network, weights)
            checkpoint.unlink(missing_ok=True)

    def start(self, folder: RunFolder, agent: GraphLearner) -> None:
        """Measure the sensitivity, score the starting candidates, and give the agent its environments.

        Of a search that was interrupted there are the sensitivity, the evaluations in the journal, and the agent's
        checkpoint, whose iterations are complete.
        """
        self._began, self.episodes = time.perf_counter(), agent.episodes_per_iteration * world_size()
        self.search = from_first(self.search)  # where each process has tuned for itself
        self.pruner.dtype = PRECISIONS[self.search.precision]
        self._calibrate(folder)
        journal = Journal(folder.journal, resume=True) if rank() == 0 else Journal()
        journalled = Journalled(self.make_evaluator(self.search.drop_error), journal, self.limits.ratios)
        self.problem = self._problem(self.limits, journalled)
        with self.shown("starting candidates", self.search.starting // world_size()) as advance:
            self.problem.start(self.search.table is not None, advance)
        connect(agent, self.problem, self.search)
        if from_first(folder.checkpoint(AGENT).is_file()):
            self._go_on(folder, journalled)

    def _go_on(self, folder: RunFolder, journalled: Journalled) -> None:
        """Take over the evaluations that the agent's checkpoint counts, where the journal has them all."""
        path, counted = folder.checkpoint(AGENT), (0, 0.0)
        if rank() == 0:  # alone: it may remove the file before others have read it
            saved = torch.load(path, map_location="cpu", weights_only=True)
            counted = int(saved["state_dict"]["evaluations"]), saved["seconds"]
        count, seconds = from_first(counted)
        if journalled.holds(count):
            self.problem.remember(journalled.skip(count))
            self._began -= seconds
        elif rank() == 0:
            warnings.warn(
                f"{folder.journal} has lost evaluations of iterations that {path.name} counts as complete: "
                "the agent begins anew, and what the journal holds is not evaluated again",
                stacklevel=3,
            )
            # What came of the search goes too; the agent last, so that an interruption leaves it to be found again.
            for phase in (POLICY, *DELIVERED):
                folder.weights(phase).unlink(missing_ok=True)
                folder.checkpoint(phase).unlink(missing_ok=True)
            path.unlink()

    def _calibrate(self, folder: RunFolder) -> None:
        """Pass the calibration images through the dense network, and measure the sensitivity or read it.

        Of several processes each does that for itself; the first one's sensitivity counts.
        """
        passes, saved = {*self.pruner.passes}, folder.weights(SENSITIVITY)
        missing = self.search.table is not None and not from_first(saved.is_file())
        if missing:
            passes |= {*SENSITIVITIES.find(self.search.table).passes}
        elif self.search.table is not None:
            self.sensitivity = load_sensitivity(saved)
        found = ["scores", *sorted(passes & {"moments", "recording"})]
        with self.shown("calibration", len(found)) as advance:
            for name in found:
                getattr(self.pruner, name)  # made once
                advance()
        if missing:
            self.sensitivity = from_first(self.sensitivity)
            if rank() == 0:
                save_sensitivity(self.sensitivity, saved)

    def notes(self) -> dict[str, Any]:
        """What the agent's checkpoint holds beside the agent: seconds since the search began, in all its parts."""
        return {"seconds": time.perf_counter() - self._began}

    def best(self, proposer: str | None = None) -> Evaluation | None:
        """The best evaluation within the budget so far.

        Args:
            proposer: Whose; None: anybody's.
        """
        return best_of((item for item in self.problem.history if within(self.limits, item)), proposer)

    def status(self) -> SearchStatus:
        """How far the search is."""
        best = self.best()
        if best is None:
            return SearchStatus(self.problem.spent)
        kept = {name: best.costs[name] / self.limits.dense[name] for name in self.limits.limits}
        return SearchStatus(self.problem.spent, find_reward(self.search.reward)(best), kept)

    def final_pruner(self) -> Pruner:
        """Prunes what is delivered, with the repair and as many calibration images as are meant for that."""
        images = self.search.final_calibration_images
        assert images is not None  # decided
        calibration = self._calibration(min(images, len(self.task.data.train)))
        return self.pruner.final(calibration, self.search.final_repair)
