"""Learn what structure tells of candidates: train the prior network on a population, by marginal likelihood.

python experiments/population/learn.py population.jsonl --out prior.safetensors
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from networks import RandomNetwork, Recipe
from torch import Tensor, nn

from gnnrl_lightning.graph import trace
from gnnrl_lightning.rl.prior_network import PriorNetwork, Read, read
from gnnrl_lightning.surrogate.model import Prior
from gnnrl_lightning.surrogate.sensitivity import RATIOS, Sensitivity
from gnnrl_lightning.surrogate.terms import Terms


@dataclass(frozen=True)
class Example:
    """A network of the population with its candidates.

    Attributes:
        families: Kinds of its blocks.
        network: What the prior network reads.
        phi: Terms `(n, F)`.
        x: Logarithms of keep ratios `(n, G)`.
        values: Log divergences `(n,)`.
        budgets: Share of MACs of each candidate `(n,)`.
    """

    families: frozenset[str]
    network: Read
    phi: Tensor
    x: Tensor
    values: Tensor
    budgets: Tensor


def example(record: dict[str, Any]) -> Example:
    """The example of a record of `collect.py`."""
    recipe = Recipe.from_record(record["recipe"])
    network = RandomNetwork(recipe).eval()
    graph = trace(network, (torch.zeros(1, recipe.channels, recipe.size, recipe.size),), self_test=False)
    assert graph.widths.tolist() == record["dense"], f"network {record['number']} has changed"
    measured = torch.tensor(record["measured"], dtype=torch.float64)
    sensitivity = Sensitivity.interpolate(graph.widths, RATIOS, measured)
    terms = Terms(graph, sensitivity.of_groups)
    widths = torch.tensor([row["widths"] for row in record["rows"]])
    values = torch.tensor([row["scores"]["divergence"] for row in record["rows"]]).double().clamp(min=1e-6).log()
    budgets = torch.tensor([row["share"] for row in record["rows"]])
    return Example(
        frozenset(recipe.families), read(graph, sensitivity), terms(widths), terms.logs(widths), values, budgets
    )


def moments(example: Example, prior: Prior) -> tuple[Tensor, Tensor]:
    """Mean `(n,)` and covariance `(n, n)` of an example's candidates, without noise."""
    squared = torch.cdist(example.x, example.x).square() / example.x.shape[1]
    smooth = prior.amplitude**2 * torch.exp(-squared / (2 * prior.length**2))
    return example.phi @ prior.mean, (example.phi * prior.scale.square()) @ example.phi.T + smooth


def negative_evidence(example: Example, prior: Prior) -> Tensor:
    """Negative log marginal likelihood of an example, for each candidate."""
    mean, covariance = moments(example, prior)
    factor = torch.linalg.cholesky(covariance + (prior.noise**2 + 1e-6) * torch.eye(len(mean), dtype=torch.float64))
    whitened = torch.linalg.solve_triangular(factor, (example.values - mean)[:, None], upper=False)
    return (0.5 * whitened.square().sum() + factor.diagonal().log().sum()) / len(mean)


def learn(
    network: PriorNetwork,
    examples: Sequence[Example],
    steps: int,
    learning_rate: float = 3e-3,
    batch: int = 16,
    seed: int = 0,
) -> float:
    """Train a prior network in place; returns the mean loss of the last tenth."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    losses = []
    for _ in range(steps):
        chosen = [examples[i] for i in torch.randperm(len(examples), generator=generator)[:batch].tolist()]
        priors = network([item.network for item in chosen])
        loss = torch.stack([negative_evidence(*pair) for pair in zip(chosen, priors, strict=True)]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss))
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)
