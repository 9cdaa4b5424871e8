"""Options of the agent's episodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from gnnrl_lightning.checks import ascending, one_of, real, whole
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.result import DIVERGENCE
from gnnrl_lightning.options import check_fields
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY
from gnnrl_lightning.surrogate.mixture import EXPLORATION

SHARES = 7
"""Budgets for which a search over a range of them names a candidate each."""

MOST_STEPS = 10_000
"""No episode needs more: each step removes a channel at least, or nothing more is left to remove."""


@dataclass(frozen=True)
class EpisodeOptions:
    """Options of the agent's episodes: steps, limits, reward and state features.

    Args:
        max_steps: Maximum number of steps of a pruning episode; 1 makes it a one-step problem.
        max_ratio_per_step: Largest share of a group's channels that one step removes, if there are several steps.
        penalty: Reward of a candidate that exceeds the budget at the end of its episode, instead of projecting it onto
            the budget; the paper uses -100. null: project.
        macs_range: Smallest and largest MACs limit as shares of the dense MACs; each episode draws its own limit, so
            that one policy serves all budgets, and the search names the best candidate for seven budgets of the range.
            null: all episodes use the budget's limit.
        reward: Reward of a candidate: a figure of the objective (the negative error or loss), including `divergence`
            from the dense network, or the import path of your own function or class, see
            `gnnrl_lightning.rl.env.reward.find_reward`; null: the objective's primary figure. The divergence tells
            candidates apart where accuracy does not, and needs no labels.
        sensitivity: Whether the agent uses the sensitivity, if the search measures one: for starting candidates,
            statistics in the states, and the proxy.
        proposal: Sensitivity-based allocation that initialises the policy: dynamic_programming or greedy; null: the
            same ratio for all groups.
        surrogate: Whether the policy learns in imagined episodes, whose rewards are functions drawn from the surrogate,
            and only the most promising of their candidates are evaluated; otherwise each real episode is. null: if the
            agent uses a sensitivity and proposals, and episodes have one step and no penalty.
        exploration: Share of their deviations from the posterior mean that the functions drawn from the surrogate keep.
            1: Thompson sampling; 0: each is the mean of one of the surrogate's processes. With many groups, functions
            drawn from the posterior differ so much that what maximises one of them is rarely good.

    Raises:
        UserError: The proposal is unknown, or a number is out of range. The reward is checked together with the
            objective.
    """

    max_steps: int = 1
    max_ratio_per_step: float = 0.3
    penalty: float | None = None
    macs_range: tuple[float, float] | None = None
    reward: str | None = DIVERGENCE
    sensitivity: bool = True
    proposal: str | None = "dynamic_programming"
    surrogate: bool | None = None
    exploration: float = EXPLORATION

    def __post_init__(self) -> None:
        check_fields(self, "episode")
        whole("episode.max_steps", self.max_steps, 1, MOST_STEPS)
        real("episode.max_ratio_per_step", self.max_ratio_per_step, 0, 1, "(]")
        if self.macs_range is not None:
            expected = "two shares below 1, the smaller one first, or null"
            ascending("episode.macs_range", self.macs_range, expected, 1, "()")
        real("episode.exploration", self.exploration, 0, 1)
        if self.proposal is not None:
            one_of("episode.proposal", self.proposal, FROM_SENSITIVITY, ", or null")
        if self.surrogate and (self.proposal is None or not self.sensitivity):
            raise UserError("episode.surrogate needs the sensitivity, and an allocation in episode.proposal")
        if self.surrogate and self.penalty is not None:
            raise UserError("episode.surrogate evaluates only what meets the budget: leave out episode.penalty")

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the dense MACs, evenly spaced in `macs_range`, for which a search names a candidate each."""
        if self.macs_range is None:
            return ()
        low, high = self.macs_range
        inner = torch.linspace(low, high, SHARES, dtype=torch.float64)[1:-1]
        return low, *(min(max(round(share, 4), low), high) for share in inner.tolist()), high

    def imagines(self, measure: str | None) -> bool:
        """Whether the policy learns in imagined episodes.

        Args:
            measure: Measure of the sensitivity that the agent reads; None: it reads none.
        """
        if self.surrogate is not None:
            return self.surrogate
        simple = self.max_steps == 1 and self.penalty is None
        return simple and measure is not None and self.proposal is not None and self.sensitivity

    def reserved(self, measure: str | None) -> int:
        """Evaluations that are kept for the end of a search over a range: those of the budget and of the shares.

        Args:
            measure: As for `imagines`.
        """
        return 1 + len(self.shares) if self.shares and self.imagines(measure) else 0

    def iterations(self, left: int, episodes: int, measure: str | None) -> int:
        """Iterations in the real environment for which the evaluations suffice; 0 if they do not suffice for one.

        Where the policy learns in imagined episodes, the last iteration scores as many candidates as are left.

        Args:
            left: Evaluations left for iterations.
            episodes: Episodes of an iteration, one evaluation each.
            measure: As for `imagines`.
        """
        whole, rest = divmod(left, episodes)
        return whole + (whole > 0 and rest > 0 and self.imagines(measure))

    def for_one_budget(self, measure: str | None) -> EpisodeOptions:
        """Options of episodes of the same states and actions, all with the budget's limit.

        Args:
            measure: As for `imagines`, which stays what it is.
        """
        return replace(self, macs_range=None, surrogate=self.imagines(measure))
