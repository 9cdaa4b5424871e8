"""Deep deterministic policy gradient as pure functions: targets, losses, target networks, exploration, credit.

Source: Lillicrap et al., Continuous Control with Deep Reinforcement Learning, 2016; exploration and rewards of
    He et al., AMC: AutoML for Model Compression, 2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def q_target(rewards: Tensor, next_values: Tensor, done: Tensor, gamma: float = 1.0) -> Tensor:
    """Targets of the critic: y = r + gamma Q'(s', mu'(s')), and y = r for the last step of an episode.

    Args:
        rewards: (N,) reward of the step.
        next_values: (N,) target critic's value of the target actor's action in the next state.
        done: (N,) bool, True for the last step of an episode.
        gamma: Discount.

    Returns:
        (N,) targets.
    """
    return rewards + gamma * torch.where(done, torch.zeros_like(next_values), next_values)


def critic_loss(values: Tensor, targets: Tensor) -> Tensor:
    """Half the mean squared error between values and targets, both (N,)."""
    return (values - targets).square().mean() / 2


def actor_loss(values: Tensor) -> Tensor:
    """Negative mean of the critic's values (N,) of the actor's own actions."""
    return -values.mean()


def saturation_loss(actions: Tensor, margin: float = 2.0) -> Tensor:
    """Mean of max(0, |logit(a)| - margin)^2: keeps actions away from 0 and 1, where the sigmoid saturates.

    An untrained critic extrapolates badly and can drive the actor to 0 or 1, where its gradient vanishes. Actions
    between 0.12 and 0.88 (margin 2) cost nothing; actions outside are penalised, not forbidden.

    Args:
        actions: (...) in (0, 1).
        margin: Largest absolute logit without a penalty.
    """
    # Without the clamp, single-precision logits of 0 and 1 are infinite.
    logits = torch.special.logit(actions.clamp(1e-6, 1 - 1e-6))
    return (logits.abs() - margin).relu().square().mean()


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move a target network towards its source: theta' = tau theta + (1 - tau) theta'; buffers are copied.

    Args:
        target: Target network, modified in place.
        source: Network of the same architecture.
        tau: Step in (0, 1].
    """
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, tau)
    for slow, fast in zip(target.buffers(), source.buffers(), strict=True):
        slow.copy_(fast)


def decayed_spread(initial: float, decay: float, smallest: float, iteration: int) -> float:
    """Standard deviation of the exploration noise in an iteration: max(smallest, initial * decay^iteration)."""
    return max(smallest, initial * decay**iteration)


def explore(actions: Tensor, spread: float) -> Tensor:
    """Add truncated normal noise to actions.

        a ~ N(mu, spread^2) given 0 <= a <= 1, sampled by inverting the distribution function.

    Args:
        actions: (...) in [0, 1].
        spread: Standard deviation before truncation.

    Returns:
        (...) in [0, 1], sampled with torch's global generator.

    Source: AMC, section 3.3 (truncated normal noise that decays).
    """

    def normal_cdf(z: Tensor) -> Tensor:
        return (1 + torch.erf(z / math.sqrt(2))) / 2

    mean = actions.double()
    low, high = normal_cdf(-mean / spread), normal_cdf((1 - mean) / spread)
    share = low + (high - low) * torch.rand_like(mean)
    return (mean + spread * math.sqrt(2) * torch.erfinv(2 * share - 1)).clamp(0, 1).to(actions)


def credit_as_given(rewards: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Each step keeps its own reward, and the last step carries the whole baseline; see `CREDITS`."""
    ahead = torch.cat([alive[1:], torch.zeros_like(alive[:1])])
    return rewards * alive, (alive & ~ahead).to(rewards)


def credit_evenly(rewards: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Each of an episode's T steps gets 1 / T of the episode's reward and of its baseline; see `CREDITS`.

    Source: Zhong et al., Practical Block-wise Neural Network Architecture Generation, 2018 (shaped reward);
        AMC gives the whole reward to each step, which is the same up to the factor T.
    """
    shares = alive.to(rewards) / alive.sum(0)
    return (rewards * alive).sum(0) * shares, shares


CREDITS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "end": credit_as_given,
    "even": credit_evenly,
}
"""Name -> credit assignment `(rewards, alive) -> (credited rewards, shares)`, all `(T, B)`. `alive` marks the steps
that belong to an episode; the shares of the episode's baseline sum to 1 over its steps."""


def standardise(rewards: Tensor, shares: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Standardise the rewards of steps (N,) so that episode rewards have mean 0 and standard deviation 1.

        r' = (r - share * mean) / spread

    With gamma 1 the optimal policy does not change, since all episodes are shifted and scaled by the same amounts.

    Args:
        rewards: (N,) rewards credited to the steps.
        shares: (N,) shares of the baseline that the steps carry.
        mean: () mean of the episode rewards.
        spread: () standard deviation of the episode rewards.
    """
    return (rewards - shares * mean) / (spread + 1e-6)
