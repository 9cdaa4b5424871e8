"""What the agent's episodes are."""

from __future__ import annotations

from dataclasses import dataclass

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY


@dataclass(frozen=True)
class EpisodeOptions:
    """What the agent's episodes are: their steps, their limits, their reward, and what their states tell.

    Args:
        max_steps: Steps of a pruning episode at most; 1 makes it a one-step problem.
        max_ratio_per_step: Largest share of a group's channels that one step removes, where there are several.
        penalty: Reward of a candidate that is over the budget when its episode ends, in place of the projection onto
            the budget, as in the paper (-100); null: projection.
        macs_range: Two shares of the dense MACs, between which each episode draws a limit of its own: one policy for
            all budgets; null: all episodes have the budget's.
        reward: What the agent learns from: a figure of the objective (minus the error, or minus the loss), `divergence`
            from the dense network included, or the path of a function or class of yours, see
            `gnnrl_lightning.rl.env.reward.find_reward`; null: the objective's primary figure.
        sensitivity: Whether the agent reads the sensitivity, where the search has one: starting candidates, statistics
            in the states, and the proxy.
        proposal: Allocation by the sensitivity from which the policy starts: dynamic_programming, greedy, or null: the
            same ratio for all groups.

    Raises:
        UserError: An unknown proposal; the reward is checked with the objective, the other values by the environment.
    """

    max_steps: int = 1
    max_ratio_per_step: float = 0.3
    penalty: float | None = None
    macs_range: tuple[float, float] | None = None
    reward: str | None = None
    sensitivity: bool = True
    proposal: str | None = "dynamic_programming"

    def __post_init__(self) -> None:
        if self.proposal is not None and self.proposal not in FROM_SENSITIVITY:
            known = ", ".join(FROM_SENSITIVITY)
            raise UserError(f"episode.proposal is {self.proposal!r}: expected one of {known}, or null")
