"""The third stage: a search under way, and what it comes to."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Trainer

from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import Evaluation, best_of, within
from gnnrl_lightning.job.job import DELIVERED, POLICY, SENSITIVITY, UNIFORM
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.processes import from_first, rank, world_size
from gnnrl_lightning.report.progress import SearchStatus
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.search.baselines import starting_count
from gnnrl_lightning.search.methods import METHODS
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.surrogate.sensitivity import Sensitivity, load_sensitivity, save_sensitivity
from gnnrl_lightning.training.checkpoint import LatestCheckpoint
from gnnrl_lightning.training.train import quiet_trainer


@dataclass(frozen=True)
class Searching:
    """A search that has begun: the starting candidates are scored, the agent has its environments.

    Args:
        trained: The job, its dense network trained.
        problem: The search's history and what it has spent.
        sensitivity: What narrowing each group costs, where the search reads that.
        episodes: Of an iteration of the agent, all processes together; None: a method without iterations searches.
        began: Reading of `time.perf_counter` when the search began, as if it had never been interrupted.
    """

    trained: Trained
    problem: SearchProblem
    sensitivity: Sensitivity | None
    episodes: int | None
    began: float

    @property
    def seconds(self) -> float:
        """Seconds since the search began, in all its parts."""
        return time.perf_counter() - self.began

    def notes(self) -> dict[str, Any]:
        """What the agent's checkpoint holds beside the agent."""
        return {"seconds": self.seconds}

    def best(self, proposer: str | None = None) -> Evaluation | None:
        """The best evaluation within the budget so far.

        Args:
            proposer: Whose; None: anybody's.
        """
        limits = self.trained.job.limits
        return best_of((item for item in self.problem.history if within(limits, item)), proposer)

    def status(self) -> SearchStatus:
        """How far the search is."""
        best, limits = self.best(), self.trained.job.limits
        if best is None:
            return SearchStatus(self.problem.spent)
        kept = {name: best.costs[name] / limits.dense[name] for name in limits.limits}
        reward = find_reward(self.trained.job.options.episode.reward, self.trained.job.task.goal)
        return SearchStatus(self.problem.spent, reward(best), kept)

    def finished(self) -> Searched:
        """What the search has come to.

        Raises:
            RuntimeError: No candidate was within the budget.
        """
        best = self.best()
        if best is None:
            raise RuntimeError("the search has asked for no candidate within the budget")
        history = tuple(self.problem.history)
        spent = self.problem.spent, self.problem.examples
        return Searched(self.trained, history, best, *spent, self.seconds, self.sensitivity, self.episodes)


@dataclass(frozen=True)
class Searched:
    """A finished search.

    Args:
        trained: The job, its dense network trained.
        history: The candidates in the order in which they were asked for.
        best: The best one within the budget.
        evaluations: Evaluations that were spent.
        examples: Forward passes of one example that were spent.
        seconds: How long it took.
        sensitivity: What narrowing each group costs, where the search read that.
        episodes: Of an iteration of the agent, all processes together; None: a method without iterations searched.
    """

    trained: Trained
    history: tuple[Evaluation, ...]
    best: Evaluation
    evaluations: int
    examples: int
    seconds: float
    sensitivity: Sensitivity | None
    episodes: int | None

    def best_by(self, proposer: str) -> Evaluation | None:
        """The best evaluation within the budget of those that somebody proposed."""
        limits = self.trained.job.limits
        return best_of((item for item in self.history if within(limits, item)), proposer)

    @property
    def uniform(self) -> Evaluation | None:
        """The candidate with one keep ratio for all groups; None: the method has not asked for it."""
        return best_of(self.history, UNIFORM)


def begin(trained: Trained, agent: GraphLearner, folder: RunFolder) -> Searching:
    """Measure the sensitivity, score the starting candidates, and give the agent its environments.

    Of a search that was interrupted there are the sensitivity, the evaluations in the journal, and the agent's
    checkpoint, whose iterations are complete: they are taken over.

    Args:
        trained: The job, its dense network trained.
        agent: The agent.
        folder: Folder of the run.
    """
    job, began = trained.job, time.perf_counter()
    measure = job.options.measure()
    sensitivity = _calibrate(trained, measure, folder)
    journalled = trained.journalled(job.limits, _journal(folder))
    problem = trained.problem(job.limits, journalled, None if sensitivity is None else lambda: sensitivity)
    with job.runtime.shown("starting candidates", starting_count(measure is not None) // world_size()) as advance:
        problem.start(measure is not None, advance)
    job.environments().connect(agent, problem)
    searching = Searching(trained, problem, sensitivity, agent.episodes_per_iteration * world_size(), began)
    if from_first(folder.checkpoint(AGENT).is_file()):
        return _resumed(searching, folder, journalled)
    return searching


def search(
    trained: Trained,
    by: GraphLearner | str,
    folder: RunFolder,
    trainer: Callable[..., Trainer] = quiet_trainer,
) -> Searched:
    """Search, as far as that has not been done before in this folder.

    Args:
        trained: The job, its dense network trained.
        by: The agent that searches, or the name of a method, see `gnnrl_lightning.search.methods.METHODS`.
        folder: Folder of the run.
        trainer: Makes the agent's trainer.

    Raises:
        UserError: There are not enough evaluations, or the method cannot do this network.
    """
    if isinstance(by, str):
        return search_by_method(trained, by, folder)
    real = trained.job.options.iterations(
        trained.job.graph, trained.job.evaluation_examples, by.episodes_per_iteration * world_size()
    )
    searching = begin(trained, by, folder)
    policy = folder.weights(POLICY)
    if not from_first(policy.is_file()):
        latest = LatestCheckpoint(folder.checkpoint(AGENT), searching.notes)
        folder.checkpoints.mkdir(exist_ok=True)
        fitting = trainer(
            max_epochs=by.iterations(real),
            accelerator="gpu" if trained.job.runtime.device.type == "cuda" else "cpu",
            devices=1,
            callbacks=[latest],
            enable_checkpointing=True,  # the latest one
            log_every_n_steps=1,
        )
        fitting.fit(by, ckpt_path=latest.found, weights_only=True)
        if rank() == 0:
            by.save_policy(policy)
    return searching.finished()


def search_by_method(trained: Trained, name: str, folder: RunFolder) -> Searched:
    """Let a method without an agent spend the evaluations; what the journal in the folder knows costs no time.

    Args:
        trained: The job, its dense network trained.
        name: Name or import path of the method.
        folder: Folder of the run.

    Raises:
        UserError: There is no such method, or it cannot do this network.
    """
    method, began = METHODS.find(name, "method"), time.perf_counter()
    job = trained.job
    problem = trained.problem(job.limits, trained.journalled(job.limits, _journal(folder)))
    method.run(problem, job.task.seed)
    sensitivity = problem.sensitivity if problem.reads_sensitivity else None
    return Searching(trained, problem, sensitivity, None, began).finished()


def _journal(folder: RunFolder) -> Journal:
    return Journal(folder.journal, resume=True) if rank() == 0 else Journal()


def _calibrate(trained: Trained, measure: str | None, folder: RunFolder) -> Sensitivity | None:
    """Pass the calibration examples through the dense network, and measure the sensitivity or read it.

    Of several processes each does that for itself; the first one's sensitivity counts.
    """
    pruner, saved = trained.pruner, folder.weights(SENSITIVITY)
    passes, known = {*pruner.passes}, None
    if measure is not None and from_first(saved.is_file()):
        known = load_sensitivity(saved)
    elif measure is not None:
        passes |= {*SENSITIVITIES.find(measure).passes}
    found = ["scores", *sorted(passes & {"moments", "recording"})]
    with trained.job.runtime.shown("calibration", len(found)) as advance:
        for name in found:
            getattr(pruner, name)  # made once
            advance()
    if measure is None or known is not None:
        return known
    sensitivity = from_first(trained.sensitivity)
    if rank() == 0:
        save_sensitivity(sensitivity, saved)
    return sensitivity


def _resumed(searching: Searching, folder: RunFolder, journalled: Journalled) -> Searching:
    """Take over the evaluations that the agent's checkpoint counts, where the journal has them all."""
    path, counted = folder.checkpoint(AGENT), (0, 0.0)
    if rank() == 0:  # alone: it may remove the file before others have read it
        saved = torch.load(path, map_location="cpu", weights_only=True)
        counted = int(saved["state_dict"]["evaluations"]), saved["seconds"]
    count, seconds = from_first(counted)
    if journalled.holds(count):
        searching.problem.remember(journalled.skip(count))
        return replace(searching, began=searching.began - seconds)
    if rank() == 0:
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
    return searching
