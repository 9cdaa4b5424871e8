"""How the agent searches: what its episodes are, what it is rewarded for, and what it may read before it begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.candidates.pruner import pruner_passes
from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.importance import IMPORTANCES
from gnnrl_lightning.job.artifact import DEFAULT_FORMATS, find_formats
from gnnrl_lightning.repair.table import REPAIRS
from gnnrl_lightning.rl.env import Evaluated, VectorPruningEnv
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.rl.env.score import Score
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.search.allocations import Allocations
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, STARTING
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.speed.inference import PRECISIONS
from gnnrl_lightning.speed.tuning import AUTO
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.surrogate.proxy import Proxy
from gnnrl_lightning.surrogate.sensitivity import RATIOS, Sensitivity

AGENT = "agent"


@dataclass(frozen=True)
class SearchOptions:
    """How candidates are found and made.

    Args:
        evaluations: Evaluations at most, the starting candidates and the sensitivity's images included.
        max_steps: Steps of a pruning episode at most; 1 makes it a one-step problem.
        max_ratio_per_step: Largest share of a group's channels that one step removes, where there are several.
        penalty: Reward of a candidate that is over the budget when its episode ends, in place of the projection onto
            the budget, as in the paper (-100); null: projection.
        macs_range: Two shares of the dense MACs, between which each episode draws a limit of its own: one policy for
            all budgets; null: all episodes have the budget's.
        importance: Which channels stay, a name of `gnnrl_lightning.importance.IMPORTANCES` or an import path.
        repair: What is done to a sliced network before it is scored, a name of `gnnrl_lightning.repair.table.REPAIRS`,
            an import path, or auto: the cheapest that ranks candidates well, see
            `gnnrl_lightning.repair.table.default_repair`.
        final_repair: What is done to the networks that are fine-tuned and delivered, a name or an import path.
        calibration_images: Training images for importance, repair and sensitivity.
        final_calibration_images: Training images for the repair of the networks that are fine-tuned and delivered, as
            far as there are so many; null: as many as `gnnrl_lightning.candidates.pruner.default_final_images` says.
        formats: Files in which the pruned network is delivered: names of `gnnrl_lightning.job.formats.FORMATS`, or
            import paths. `weights` is what finetune, validate and test read.
        reward: What the agent learns from: top1 (minus the error), cross_entropy or divergence from the dense network
            (minus these), or the path of a function or class of yours, see `gnnrl_lightning.rl.env.reward.find_reward`.
        finetune_steps: Steps of training before each candidate is scored; 0: none.
        table: How the sensitivity is measured, what narrowing each group alone costs: a name of
            `gnnrl_lightning.surrogate.measures.SENSITIVITIES` or an import path. It gives two more starting candidates,
            statistics for the state and the proxy in which the policy warms up; null: none of these.
        proposal: Allocation by the sensitivity from which the policy starts: dynamic_programming, greedy, or null: the
            same ratio for all groups.
        precision: Of weights and activations when candidates are scored: 32, bf16, or auto: what is measured to be the
            fastest on the dense network and agrees with 32 there, see `gnnrl_lightning.speed.tuning`.
        batch_size: Images in a batch when candidates are scored; null: measured where the precision is, else the data
            module's eval_batch_size.
        racing: Whether a candidate is dropped once it is clear on a part of the search split that it is worse than the
            best one so far, see `gnnrl_lightning.evaluation.racing`. Candidates of several budgets are not rivals:
            with `macs_range` all are scored on the whole split.
        racing_error: Probability with which a candidate as good as the best one may be dropped, at most 0.5.
    """

    evaluations: int = 100
    max_steps: int = 1
    max_ratio_per_step: float = 0.3
    penalty: float | None = None
    macs_range: tuple[float, float] | None = None
    importance: str = "l2"
    repair: str = AUTO
    final_repair: str = "refit"
    calibration_images: int = 256
    final_calibration_images: int | None = None
    formats: list[str] = field(default_factory=lambda: [*DEFAULT_FORMATS])
    reward: str = "top1"
    finetune_steps: int = 0
    table: str | None = "outputs"
    proposal: str | None = "dynamic_programming"
    precision: str = "32"
    batch_size: int | None = None
    racing: bool = True
    racing_error: float = 0.2

    def __post_init__(self) -> None:
        """Refuse unknown names; the other values are checked where they are used."""
        find_reward(self.reward)
        if self.finetune_steps < 0:
            raise UserError(f"search.finetune_steps is {self.finetune_steps}: expected at least 0")
        for name in ("batch_size", "final_calibration_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"search.{name} is {value}: expected at least 1, or null")
        IMPORTANCES.find(self.importance, "search.importance")
        if self.repair != AUTO:
            REPAIRS.find(self.repair, "search.repair")
        REPAIRS.find(self.final_repair, "search.final_repair")
        find_formats(self.formats, "search.formats")
        if self.precision not in (*PRECISIONS, AUTO):
            choices = ", ".join((*PRECISIONS, AUTO))
            raise UserError(f"search.precision is {self.precision!r}: expected one of {choices}")
        if not 0 < self.racing_error <= 0.5:
            raise UserError(f"search.racing_error is {self.racing_error}: expected a probability up to 0.5, and not 0")
        if self.table is not None:
            SENSITIVITIES.find(self.table, "search.table")
        if self.proposal is not None and self.proposal not in FROM_SENSITIVITY:
            raise UserError(
                f"search.proposal is {self.proposal!r}: expected one of {', '.join(FROM_SENSITIVITY)}, or null"
            )

    @property
    def drop_error(self) -> float | None:
        """The error with which candidates race; None: they do not, as those of several budgets are no rivals."""
        return self.racing_error if self.racing and self.macs_range is None else None

    @property
    def setting(self) -> dict[str, str]:
        """What the states and actions of a policy depend on, by key: for `gnnrl_lightning.rl.policies.save_policy`."""
        return {
            "search.table": str(self.table),
            "search.proposal": str(self.table and self.proposal),
            "search.max_steps": str(self.max_steps),
            "search.max_ratio_per_step": str(1.0 if self.max_steps == 1 else float(self.max_ratio_per_step)),
        }

    @property
    def starting(self) -> int:
        """Number of starting candidates."""
        return len(STARTING) + (0 if self.table is None else len(FROM_SENSITIVITY))

    def evaluation_images(self, search_images: int, batch_size: int) -> int:
        """Forward passes of one image that an evaluation takes: the search split, repair and fine-tuning.

        Args:
            search_images: Images of the search split.
            batch_size: Training images of a step.
        """
        repaired = self.calibration_images if REPAIRS.find(self.repair).reads_images else 0
        return search_images + repaired + self.finetune_steps * batch_size

    def iterations(self, graph: ComputationGraph, evaluation_images: int, episodes: int) -> int:
        """Iterations in the real environment: what sensitivity and starting candidates leave.

        Args:
            graph: The traced network.
            evaluation_images: Forward passes of one image that an evaluation takes.
            episodes: Episodes of an iteration, each of which is an evaluation.

        Raises:
            UserError: Not one iteration is left.
        """
        passes, images = pruner_passes(self.importance, self.repair), 0
        if self.table is not None:
            measure = SENSITIVITIES.find(self.table)
            passes |= {*measure.passes}
            images = measure.images(graph.widths, self.calibration_images)
        images += len(passes) * self.calibration_images
        spent = self.starting + math.ceil(images / evaluation_images)
        count = (self.evaluations - spent) // episodes
        if count < 1:
            raise UserError(
                f"search.evaluations is {self.evaluations}: at least {spent + episodes} are needed, {spent} for the "
                f"{self.starting} starting candidates, calibration and sensitivity, and one iteration of {episodes} "
                "episodes"
            )
        return count


def environment(
    graph: ComputationGraph,
    limits: BoundBudget,
    search: SearchOptions,
    score: Score | None,
    sensitivity: Sensitivity | None = None,
    proposals: Allocations | None = None,
) -> VectorPruningEnv:
    """The agent's environment.

    Args:
        graph: The traced network.
        limits: What a candidate may cost.
        search: What its episodes are.
        score: Their rewards; None: 0, where a policy acts and nobody learns.
        sensitivity: What narrowing each group costs; where there should be one, and is none yet, zeros stand in the
            place of its statistics, so that a policy can be made.
        proposals: From what the policy starts, see `allocations`.
    """
    statistics = None
    if search.table is not None:
        statistics = torch.zeros(len(graph.groups), len(RATIOS)) if sensitivity is None else sensitivity.statistics
    env = VectorPruningEnv(
        graph,
        score,
        limits.budget,
        search.max_steps,
        search.max_ratio_per_step,
        search.macs_range,
        statistics,
        search.penalty,
        proposals,
    )
    env.setting = search.setting
    return env


def allocations(
    graph: ComputationGraph, limits: BoundBudget, search: SearchOptions, sensitivity: Sensitivity | None
) -> Allocations | None:
    """From what the policy starts, for every limit that an episode may have; None: from one ratio for all groups."""
    if sensitivity is None or search.proposal is None:
        return None
    return Allocations(graph, limits, sensitivity, FROM_SENSITIVITY[search.proposal], search.macs_range)


def connect(agent: GraphLearner, problem: SearchProblem, search: SearchOptions) -> None:
    """Give the agent its environment and, where there is a sensitivity, its proxy.

    Args:
        agent: The module that learns.
        problem: Counts the evaluations.
        search: What its episodes are.

    Raises:
        NotApplicable: Too few evaluations are left to pay for the sensitivity.
    """
    reward = find_reward(search.reward)
    sensitivity = None if search.table is None else problem.sensitivity
    if search.macs_range is not None:
        problem.allow(max(search.macs_range))
    score = Evaluated(problem.ask, reward, AGENT)
    start = allocations(problem.graph, problem.limits, search, sensitivity)
    agent.env = environment(problem.graph, problem.limits, search, score, sensitivity, start)
    agent.exchange = problem.exchange
    agent.proxy = None
    if sensitivity is not None:
        proxy = Proxy(sensitivity.of_groups, lambda: evaluated(problem.history, reward))
        agent.proxy = environment(problem.graph, problem.limits, search, proxy, sensitivity, start)


def evaluated(history: Sequence[Any], reward: Callable[[Any], float]) -> tuple[Tensor, Tensor]:
    """Widths `(n, G)` and rewards `(n,)` of evaluations, for a proxy to learn from."""
    widths = torch.tensor([item.widths for item in history], dtype=torch.int64)
    return widths, torch.tensor([float(reward(item)) for item in history], dtype=torch.float64)
