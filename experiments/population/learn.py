"""What structure tells: train the prior network on a part of the population, and rank candidates of the rest.

    python experiments/population/learn.py --json experiments/results/population_prior.json

For every network that was left out, at each of its budgets, the surrogate ranks the candidates that it does not know.
The table shows Kendall's rank correlation after a few evaluations: with the prior that depends on the number of groups
alone, which ranks as the sensitivity does as long as nothing is known, and with the prior network's. Networks are left
out at random, or all networks that have a kind of blocks.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from networks import BLOCKS, RandomNetwork, Recipe
from prior import PriorNetwork, Read, read
from torch import Tensor, nn

from gnnrl_lightning.rl.policies.ablations import ABLATIONS
from gnnrl_lightning.surrogate.diagnostics import kendall
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import Prior, flat_prior
from gnnrl_lightning.surrogate.sensitivity import RATIOS, Sensitivity
from gnnrl_lightning.surrogate.terms import Standard, Terms
from gnnrl_lightning.tracer import trace

POPULATION = Path(__file__).parent / "population.jsonl"
KNOWN = (0, 4, 8)
"""Evaluations that the surrogate knows."""


@dataclass(frozen=True)
class Example:
    """A network of the population with its candidates.

    Attributes:
        kinds: Kinds of its blocks.
        network: What the prior network reads.
        terms: Terms of its candidates.
        widths: Candidates `(n, G)`.
        values: Their log divergences `(n,)`.
        budgets: Share of MACs of each candidate `(n,)`.
        phi: Terms `(n, F)`, standardised by all candidates, see `Standard`.
        x: Standardised terms `(n, d)`.
    """

    kinds: frozenset[str]
    network: Read
    terms: Terms
    widths: Tensor
    values: Tensor
    budgets: Tensor
    phi: Tensor
    x: Tensor


def example(record: dict[str, Any]) -> Example:
    """The example of a record of `collect.py`; the network is traced again.

    Raises:
        ValueError: The recipe makes another network now.
    """
    recipe = Recipe.from_record(record["recipe"])
    inputs = torch.zeros(1, recipe.channels, recipe.size, recipe.size)
    graph = trace(RandomNetwork(recipe).eval(), (inputs,), self_test=False)
    if graph.widths.tolist() != record["dense"]:
        raise ValueError(f"network {record['number']} has widths {graph.widths.tolist()}, expected {record['dense']}")
    measured = torch.tensor(record["measured"], dtype=torch.float64)
    sensitivity = Sensitivity.interpolate(graph.widths, RATIOS[-measured.shape[1] :], measured)
    terms = Terms(graph.widths, sensitivity.of_groups)
    widths = torch.tensor([row["widths"] for row in record["rows"]])
    made = terms(widths)
    divergence = torch.tensor([row["scores"]["divergence"] for row in record["rows"]], dtype=torch.float64)
    return Example(
        frozenset(recipe.families),
        read(graph, sensitivity, flat_prior(terms)),
        terms,
        widths,
        divergence.clamp(min=1e-6).log(),
        torch.tensor([row["share"] for row in record["rows"]]),
        *Standard.of(made, len(graph.widths))(made),
    )


def negative_evidence(example: Example, prior: Prior) -> Tensor:
    """Negative log marginal likelihood of an example's values, for each candidate."""
    squared = torch.cdist(example.x, example.x).square() / example.x.shape[1]
    smooth = prior.amplitude**2 * torch.exp(-squared / (2 * prior.length**2))
    covariance = (example.phi * prior.scale.square()) @ example.phi.T + smooth
    count = len(example.values)
    factor = torch.linalg.cholesky(covariance + prior.noise**2 * torch.eye(count, dtype=torch.float64))
    residual = (example.values - example.phi @ prior.mean)[:, None]
    whitened = torch.linalg.solve_triangular(factor, residual, upper=False)
    return (0.5 * whitened.square().sum() + factor.diagonal().log().sum()) / count


def learn(
    examples: Sequence[Example], steps: int = 300, batch: int = 16, seed: int = 0, ablation: str | None = None
) -> PriorNetwork:
    """Train a prior network by the marginal likelihood of the examples."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = PriorNetwork(examples[0].network.state.x.shape[1], ablation=ablation)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for _ in range(steps):
        chosen = [examples[place] for place in torch.randperm(len(examples), generator=generator)[:batch].tolist()]
        priors = network([item.network for item in chosen])
        loss = torch.stack([negative_evidence(*pair) for pair in zip(chosen, priors, strict=True)]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network


def taus(example: Example, prior: Prior) -> list[float]:
    """Mean rank correlation with the candidates that are not known, for each number of known ones, over the budgets."""
    found = []
    for known in KNOWN:
        values = []
        for budget in example.budgets.unique():
            places = (example.budgets == budget).nonzero()[:, 0]
            order = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))]
            seen, rest = order[:known], order[known:]
            surrogate = Surrogate(example.terms, [prior], example.widths[seen], example.values[seen])
            tau = kendall(surrogate.mean(example.widths[rest]).tolist(), example.values[rest].tolist())
            values += [] if tau is None else [tau]
        found.append(fmean(values))
    return found


@torch.no_grad()
def compared(network: PriorNetwork, examples: Sequence[Example]) -> list[dict[str, list[float]]]:
    """Rank correlations of each example with both priors."""
    return [
        {"flat": taus(item, item.network.flat), "learned": taus(item, network([item.network])[0])} for item in examples
    ]


def summary(
    rows: Sequence[dict[str, list[float]]], better: str = "learned", worse: str = "flat"
) -> list[dict[str, float]]:
    """For each number of known candidates: means over networks, their difference, and its 95 % interval."""
    found = []
    for place, known in enumerate(KNOWN):
        differences = [row[better][place] - row[worse][place] for row in rows]
        half = 1.96 * stdev(differences) / math.sqrt(len(rows))
        found.append(
            {
                "known": known,
                worse: round(fmean(row[worse][place] for row in rows), 3),
                better: round(fmean(row[better][place] for row in rows), 3),
                "difference": round(fmean(differences), 3),
                "low": round(fmean(differences) - half, 3),
                "high": round(fmean(differences) + half, 3),
            }
        )
    return found


def left_out(
    examples: Sequence[Example], out: Callable[[int, Example], bool], ablation: str | None = None
) -> list[dict[str, list[float]]]:
    """Train on the networks that are not left out, and compare on the others."""
    kept = [item for number, item in enumerate(examples) if not out(number, item)]
    rest = [item for number, item in enumerate(examples) if out(number, item)]
    return compared(learn(kept, ablation=ablation), rest)


def at_random(examples: Sequence[Example], ablation: str | None = None) -> list[dict[str, list[float]]]:
    """Leave out a fifth of the networks five times."""
    fold = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0)) % 5
    rows: list[dict[str, list[float]]] = []
    for part in range(5):
        rows += left_out(examples, lambda number, _, part=part: int(fold[number]) == part, ablation)
    return rows


def main() -> None:
    """Leave out networks at random, with and without parts of the graph, and then each kind of blocks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--population", type=Path, default=POPULATION, help="records of collect.py")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    examples = [example(json.loads(line)) for line in args.population.read_text().splitlines()]
    rows = at_random(examples)
    found: dict[str, Any] = {"networks": len(examples), "left_out_at_random": summary(rows)}
    print(found, flush=True)
    found |= {"ablations": {}, "left_out_by_kind": {}}
    for name in ABLATIONS:
        ablated = at_random(examples, name)
        paired = [{"learned": row["learned"], name: less["learned"]} for row, less in zip(rows, ablated, strict=True)]
        found["ablations"][name] = summary(paired, worse=name)
        print(name, found["ablations"][name], flush=True)
    for kind in BLOCKS:
        found["left_out_by_kind"][kind] = summary(left_out(examples, lambda _, item, kind=kind: kind in item.kinds))
        print(kind, found["left_out_by_kind"][kind], flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
