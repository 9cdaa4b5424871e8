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
    """What the critic should say of an action: y = r + gamma Q'(s', mu'(s')), and y = r at an episode's end.

    Args:
        rewards: (N,) reward of the step.
        next_values: (N,) the target critic's value of the target actor's action in the next state.
        done: (N,) bool, whether the episode ended with this step.
        gamma: Discount.

    Returns:
        (N,) targets.
    """
    return rewards + gamma * torch.where(done, torch.zeros_like(next_values), next_values)


def critic_loss(values: Tensor, targets: Tensor) -> Tensor:
    """Half the mean squared error of the critic's values, both (N,)."""
    return (values - targets).square().mean() / 2


def actor_loss(values: Tensor) -> Tensor:
    """Minus the mean of the critic's values (N,) of the actor's own actions."""
    return -values.mean()


def saturation_loss(actions: Tensor, margin: float = 2.0) -> Tensor:
    """Mean of max(0, |logit(a)| - margin)^2: holds actions where the logistic function still has a slope.

    An early critic, wrong far from what was tried, drives the actor to 0 or 1, where no gradient leads back.
    Between 0.12 and 0.88 (margin 2) actions are free, and beyond they can be had where the critic insists.

    Args:
        actions: (...) in (0, 1).
        margin: Largest free logit.
    """
    # Closer to the bounds than this the logit in single precision would be infinite.
    logits = torch.special.logit(actions.clamp(1e-6, 1 - 1e-6))
    return (logits.abs() - margin).relu().square().mean()


@torch.no_grad()
def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move a target network towards its source: theta' = tau theta + (1 - tau) theta'; buffers are copied.

    Args:
        target: Is changed in place.
        source: Of the same architecture.
        tau: Step in (0, 1].
    """
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.lerp_(fast, tau)
    for slow, fast in zip(target.buffers(), source.buffers(), strict=True):
        slow.copy_(fast)


def decayed_spread(initial: float, decay: float, smallest: float, iteration: int) -> float:
    """Spread of the exploration in an iteration: max(smallest, initial * decay^iteration)."""
    return max(smallest, initial * decay**iteration)


def explore(actions: Tensor, spread: float) -> Tensor:
    """Actions around these: normal with this spread, truncated to [0, 1].

        a ~ N(mu, spread^2) given 0 <= a <= 1, by the inverse of its distribution function.

    Args:
        actions: (...) in [0, 1].
        spread: Standard deviation before truncation.

    Returns:
        (...) in [0, 1], drawn from torch's global generator.

    Source: AMC, section 3.3 (truncated normal noise that decays).
    """

    def normal_cdf(z: Tensor) -> Tensor:
        return (1 + torch.erf(z / math.sqrt(2))) / 2

    mean = actions.double()
    low, high = normal_cdf(-mean / spread), normal_cdf((1 - mean) / spread)
    share = low + (high - low) * torch.rand_like(mean)
    return (mean + spread * math.sqrt(2) * torch.erfinv(2 * share - 1)).clamp(0, 1).to(actions)


def credit_as_given(rewards: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Each step keeps its own reward, and the last one bears the baseline; see `CREDITS`."""
    ahead = torch.cat([alive[1:], torch.zeros_like(alive[:1])])
    return rewards * alive, (alive & ~ahead).to(rewards)


def credit_evenly(rewards: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Each of an episode's T steps has 1 / T of its whole reward and of the baseline; see `CREDITS`.

    Source: Zhong et al., Practical Block-wise Neural Network Architecture Generation, 2018 (shaped reward);
        AMC gives the whole reward to each step, which is the same up to the factor T.
    """
    shares = alive.to(rewards) / alive.sum(0)
    return (rewards * alive).sum(0) * shares, shares


CREDITS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "end": credit_as_given,
    "even": credit_evenly,
}
"""From rewards (T, B) of steps and whether they belong to the episode, (T, B) bool, to the rewards credited to
each step and the part of an episode's baseline that it bears, both (T, B), the latter summing to 1."""


def standardise(rewards: Tensor, shares: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Rewards of steps (N,) such that those of whole episodes have mean 0 and standard deviation 1.

        r' = (r - share * mean) / spread

    The best policy stays the best where gamma is 1: every episode is shifted and scaled alike.

    Args:
        rewards: (N,) credited to steps.
        shares: (N,) part of the baseline that a step bears.
        mean: () mean reward of an episode.
        spread: () its standard deviation.
    """
    return (rewards - shares * mean) / (spread + 1e-6)
