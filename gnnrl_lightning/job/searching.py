"""The third part: a search, with files from which it resumes, or in memory."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from gnnrl_lightning.checks import instance
from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.result import Evaluation, best_of, within
from gnnrl_lightning.files import replacing
from gnnrl_lightning.job.agent_training import fit_agent
from gnnrl_lightning.job.arguments import KINDS, check_folder
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.processes import from_first, rank, share, world_size
from gnnrl_lightning.report.progress import SearchStatus
from gnnrl_lightning.rl.env.reward import find_reward, reward_of
from gnnrl_lightning.rl.environments import AGENT, Environments
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.range_acquisition import RangeAcquisition
from gnnrl_lightning.runs.folder import DELIVERED, POLICY, SENSITIVITY, RunFolder
from gnnrl_lightning.search.baselines import starting_count
from gnnrl_lightning.search.methods import METHODS, SearchMethod, run_method
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem, reasons_of
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.surrogate.sensitivity import Sensitivity, load_sensitivity, save_sensitivity
from gnnrl_lightning.training.checkpoint import LatestCheckpoint
from gnnrl_lightning.training.train import quiet_trainer


@dataclass(frozen=True)
class Searching:
    """A running search: the starting candidates are scored, and the agent has its environments.

    Args:
        trained: The job with its trained dense network.
        problem: The history of the search and its account of evaluations.
        agent: The agent.
        began: Reading of `time.perf_counter` at the start of the search, corrected for interruptions.
    """

    trained: Trained
    problem: SearchProblem
    agent: GraphLearner
    began: float

    @property
    def episodes(self) -> int:
        """Episodes of an iteration of the agent, over all processes."""
        return self.agent.episodes_per_iteration * world_size()

    @property
    def seconds(self) -> float:
        """Seconds that the search has taken, without interruptions."""
        return time.perf_counter() - self.began

    def notes(self) -> dict[str, Any]:
        """State of the search that the agent's checkpoint holds in addition to the learner."""
        return {"seconds": self.seconds}

    def best(self) -> Evaluation | None:
        """The best evaluation within the budget so far."""
        return best_of(item for item in self.problem.history if within(self.problem.limits, item))

    def status(self) -> SearchStatus:
        """Progress of the search."""
        best, limits = self.best(), self.trained.job.limits
        if best is None:
            return SearchStatus(self.problem.spent)
        kept = {name: best.costs[name] / limits.dense[name] for name in limits.limits}
        reward = find_reward(self.trained.job.options.episode.reward, self.trained.job.task.goal)
        return SearchStatus(self.problem.spent, reward_of(reward, best), kept)

    def finished(self) -> Searched:
        """Return the finished search; over a range of budgets, its last candidates are scored first.

        Raises:
            NotApplicable: No candidate within the budget was evaluated.
        """
        front, evaluate = dict[float, Evaluation](), self.agent.evaluate
        if isinstance(evaluate, RangeAcquisition):
            steps = len(share((None, *evaluate.shares)))
            with self.trained.job.runtime.shown("budgets of the range", steps) as advance:
                front = evaluate.score_front(advance)
        found = Searched.of(self.problem, self.trained, self.seconds)
        return replace(found, episodes=self.episodes, front=front)


def begin(trained: Trained, agent: GraphLearner, folder: RunFolder) -> Searching:
    """Measure the sensitivity, score the starting candidates, and connect the agent to its environments.

    An interrupted search is resumed: its sensitivity, the evaluations in the journal, and the complete iterations in
    the agent's checkpoint are reused.

    Args:
        trained: The job with its trained dense network.
        agent: The agent.
        folder: Folder of the run.
    """
    job, began = trained.job, time.perf_counter()
    measure = job.options.measure()
    sensitivity = _calibrate(trained, measure, folder)
    journalled = trained.journalled(trained.journal(folder.journal))
    problem = trained.problem(journalled, None if sensitivity is None else lambda: sensitivity)
    with job.runtime.shown(
        "starting candidates", starting_count(measure is not None, job.limits) // world_size()
    ) as advance:
        problem.start(measure is not None, advance)
    job.environments().connect(agent, problem)
    searching = Searching(trained, problem, agent, began)
    if from_first(folder.checkpoint(AGENT).is_file()):
        return _resumed(searching, folder, journalled)
    return searching


def search(
    trained: Trained,
    by: GraphLearner | SearchMethod,
    folder: RunFolder,
    trainer: Callable[..., Trainer] = quiet_trainer,
    watched: Callable[[Searching], Sequence[Callback]] = lambda searching: (),
) -> Searched:
    """Search, or resume the search that this folder has.

    Args:
        trained: The job with its trained dense network.
        by: An agent, or a method: the object itself or its name, see `gnnrl_lightning.search.methods.METHODS`.
        folder: Folder of the run.
        trainer: Creates the agent's trainer.
        watched: Returns further callbacks of this trainer, which may read the running search.

    Raises:
        UserError: The evaluations do not suffice, the method is unknown or does not support this network; or see
            `fit_agent`.
    """
    instance("trained", trained, Trained, "what train has returned")
    instance("by", by, *KINDS["by"])
    check_folder(folder)
    job = trained.job
    if not isinstance(by, GraphLearner):
        journal = trained.journal(folder.journal)
        began = time.perf_counter() - sum(record["seconds"] for record in journal.before)  # they are not repeated
        problem = trained.problem(trained.journalled(journal))
        with reasons_of(f"by {METHODS.name_of(by)!r}"):
            run_method(by, problem, job.task.seed, "by")
        return Searched.of(problem, trained, time.perf_counter() - began)
    real = job.iterations(by, world_size())
    searching = begin(trained, by, folder)
    policy = folder.weights(POLICY)
    if not from_first(policy.is_file()):
        latest = LatestCheckpoint(folder.checkpoint(AGENT), searching.notes)
        folder.checkpoints.mkdir(exist_ok=True)
        fitting = trainer(
            max_epochs=by.iterations(real),
            accelerator="gpu" if job.runtime.device.type == "cuda" else "cpu",
            devices=1,
            callbacks=[*watched(searching), latest],
            enable_checkpointing=True,  # the latest one
            log_every_n_steps=1,
        )
        fit_agent(by, fitting, latest.found)
        if rank() == 0:
            with replacing(policy, checksum=True) as partial:
                by.save_policy(partial)
    return searching.finished()


def search_in_memory(
    problem: SearchProblem, by: GraphLearner | SearchMethod, environments: Environments, seed: int, option: str
) -> Mapping[float, Evaluation]:
    """Search without files: all evaluations of a problem are spent at once, and nothing resumes.

    An agent scores the starting candidates first, and then as many iterations as the evaluations allow, see
    `EpisodeOptions.iterations`.

    Args:
        problem: The problem, with all of its evaluations left.
        by: The agent, or the method.
        environments: Makes the environments of the agent; not read by methods.
        seed: Seed of a method; an agent has its own.
        option: What messages call the method.

    Returns:
        Share of the dense MACs -> its best candidate, of a search over a range of budgets; else empty.

    Raises:
        NotApplicable: The evaluations do not suffice, or the method does not support this network.
        UserError: The method is unknown, or one of the user's own fails.
    """
    if not isinstance(by, GraphLearner):
        run_method(by, problem, seed, option)
        return {}
    problem.start(from_sensitivity=environments.measure is not None)
    left = problem.left - environments.reserved
    iterations = environments.options.iterations(left, by.episodes_per_iteration, environments.measure)
    if iterations < 1:
        raise NotApplicable(
            f"has {left} evaluations left, an iteration needs {by.episodes_per_iteration}; raise search.evaluations"
        )
    environments.connect(by, problem)
    fit_agent(by, quiet_trainer(max_epochs=by.iterations(iterations), accelerator="cpu", log_every_n_steps=1))
    return by.evaluate.score_front() if isinstance(by.evaluate, RangeAcquisition) else {}


def _calibrate(trained: Trained, measure: str | None, folder: RunFolder) -> Sensitivity | None:
    """Pass the calibration examples through the dense network, and measure the sensitivity or read it from its file.

    Every process does this; the sensitivity of the first one is used.
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
        with replacing(saved, checksum=True) as partial:
            save_sensitivity(sensitivity, partial)
    return sensitivity


def _resumed(searching: Searching, folder: RunFolder, journalled: Journalled) -> Searching:
    """Reuse the evaluations that the agent's checkpoint counts, if the journal has all of them."""
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
            f"{folder.journal} lacks evaluations of iterations that {path.name} counts as complete: "
            "the agent starts again, and evaluations in the journal are not repeated",
            stacklevel=3,
        )
        # Results of the search are deleted too, the agent last, so that an interruption is detected again.
        for phase in (POLICY, *DELIVERED):
            folder.weights(phase).unlink(missing_ok=True)
            folder.checkpoint(phase).unlink(missing_ok=True)
        path.unlink()
    return searching
