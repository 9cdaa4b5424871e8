"""Proximal policy optimisation as pure functions: advantages, losses, diagnostics, learning rate.

Source: Schulman et al., Proximal Policy Optimization Algorithms, 2017; names as in torchrl, metrics as in
    CleanRL.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KL_SLACK = 1.5
"""Largest move of the policy in an iteration, as a multiple of the target divergence."""

SLOWER, FASTER = 2.0, 1.5
"""Factors by which the learning rate is lowered after too large a move of the policy, and raised after a small one."""

ROUNDING = 1e-5
"""Standard deviation of advantages, relative to their mean, up to which they differ by rounding errors alone."""


def gae(rewards: Tensor, values: Tensor, done: Tensor, gamma: float = 1.0, gae_lambda: float = 0.95) -> Tensor:
    """Generalised advantage estimation for episodes that end within the rollout.

        A_t = r_t + gamma v_{t+1} - v_t + gamma lambda A_{t+1}, with v_{t+1} = A_{t+1} = 0 after the last step.

    Args:
        rewards: (T, B) reward of each step.
        values: (T, B) value of the state in which the step was taken.
        done: (T, B) bool, True from the last step of an episode on.
        gamma: Discount factor; 1 if the reward comes only at the end.
        gae_lambda: Trade-off between bias (0) and variance (1).

    Returns:
        (T, B) advantages; values after the end of an episode are meaningless.

    Source: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, 2016.
    """
    advantages = torch.zeros_like(rewards)
    ahead_value, ahead = torch.zeros_like(rewards[0]), torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        unfinished = (~done[t]).to(rewards)
        ahead = rewards[t] + unfinished * gamma * (ahead_value + gae_lambda * ahead) - values[t]
        advantages[t], ahead_value = ahead, values[t]
    return advantages


def normalise(advantages: Tensor, reduce: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Standardise advantages to mean 0 and standard deviation 1 over the whole rollout.

    Args:
        advantages: (N,) advantages of this process.
        reduce: Sums a tensor over processes; the default is for a single process.

    Returns:
        (N,); zeros if all advantages are equal up to `ROUNDING`.
    """
    total, count = reduce(torch.stack([advantages.sum(), advantages.new_tensor(float(advantages.numel()))]))
    mean = total / count
    centred = advantages - mean
    spread = (reduce(centred.square().sum()) / count).sqrt()
    return torch.zeros_like(centred) if spread <= ROUNDING * mean.abs() else centred / (spread + 1e-6)


def policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip_epsilon: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    """Clipped surrogate loss.

        L = -mean(min(r A, clip(r, 1 - eps, 1 + eps) A)),    r = exp(log_prob - old_log_prob)

    Args:
        log_prob: (N,) log-probabilities under the current policy.
        old_log_prob: (N,) log-probabilities under the policy that played the episodes.
        advantages: (N,).
        clip_epsilon: Half-width of the clipping interval around a ratio of 1.

    Returns:
        The loss, the approximate Kullback-Leibler divergence mean(r - 1 - log r) between the two policies, and the
        fraction of clipped ratios. Only the loss has a gradient.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon)
    loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > clip_epsilon).to(ratio).mean()
    return loss, approx_kl, clip_fraction


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Half the mean squared error between values and returns, both (N,)."""
    return (values - returns).square().mean() / 2


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for one that predicts only the mean.

    Args:
        values: (N,) predicted returns.
        returns: (N,) observed returns.

    Returns:
        Scalar; 0 if the returns do not vary.
    """
    variance = returns.var(correction=0)
    if variance <= 0:
        return torch.zeros_like(variance)
    return 1 - (returns - values).var(correction=0) / variance


def next_rate(rate: float, moved: float, target: float, largest: float) -> float:
    """Learning rate after an iteration, by how far it has moved the policy.

        min(1.5 rate, largest)     if moved < target / 2
        rate                       if target / 2 <= moved <= 1.5 target
        rate / 2                   otherwise

    Args:
        rate: Learning rate of the iteration.
        moved: Divergence (nats) of the policy that played the episodes from the current one.
        target: Target divergence (nats).
        largest: Largest learning rate.

    Source: the adaptive learning rate of RSL-RL (Rudin et al., Learning to Walk in Minutes Using Massively Parallel
        Deep Reinforcement Learning, 2022, appendix), there with a factor of 1.5 both ways and after each minibatch.
    """
    if moved < target / 2:
        return min(FASTER * rate, largest)
    return rate if moved <= KL_SLACK * target else rate / SLOWER
