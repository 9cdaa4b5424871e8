"""Rank candidates that were evaluated before by different critics, which know a few of them.

    python experiments/benchmarks/critics.py FILE ... --json experiments/results/critics.json

A file has one network: its first line has the `dense` widths of the groups and, so that the surrogate knows which
groups are alike, their `names` and the `network`, a name of `gnnrl_lightning.networks` (else `--network`); the others
have a candidate each, with its `widths`, the losses of its groups by the sensitivity, `errors`, and its divergences on
some chunks of images, `kl`. If they also name their `search`, in whose order they are (`recorded.py`), the known
candidates are the first ones of one search, and the others those of all other searches; else they are chosen at random.
Or a file has many networks, one a line, with `dense` and such candidates as `rows`; their figures are averaged.

Figures are Kendall's rank correlations with the log divergence over the candidates that the critic does not know and
over the best third of them, and by how much the best of its three favourites is worse than the best of all (nats of log
divergence), with the standard errors of their means over networks, searches or random choices of the known candidates.

The critics: the summed losses of the sensitivity; a ridge regression on the log keep ratios, their squares and the log
of the summed losses; the Gaussian process of the search method of this name; the agent's surrogate, without slopes, as
groups on their own alone, and as a mixture of its forms.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.search.gaussian_process import inputs_of, posterior
from gnnrl_lightning.surrogate.diagnostics import kendall
from gnnrl_lightning.surrogate.likeness import likeness
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import flat_prior, prior_forms
from gnnrl_lightning.surrogate.terms import Terms
from gnnrl_lightning.tracer import trace

KNOWN = (0, 10, 20, 40, 80)
"""Candidates that a critic knows."""

REPEATS = 10
"""Random choices of these."""

PICKS = 3
"""Favourites of a critic."""

RIDGE = 0.1
"""Penalty on standardised coefficients, relative to the noise."""


@dataclass(frozen=True)
class Pool:
    """Evaluated candidates of one network.

    Attributes:
        dense: Widths of the dense network `(G,)`.
        widths: Those of the candidates `(n, G)`.
        losses: Losses of the groups by the sensitivity `(n, G)`.
        values: Log divergences `(n,)`.
        searches: Places of the candidates of each search, in their order; none if they are random.
        likeness: How alike the groups are `(G, G)`; None: not known.
    """

    dense: Tensor
    widths: Tensor
    losses: Tensor
    values: Tensor
    searches: tuple[Tensor, ...] = ()
    likeness: Tensor | None = None

    @classmethod
    def of(cls, dense: Sequence[int], rows: Sequence[Mapping[str, Any]], alike: Tensor | None = None) -> Pool:
        """The pool of records of candidates; one that is there twice counts once."""
        places, searches = dict[tuple[int, ...], int](), dict[str, list[int]]()
        for row in rows:
            place = places.setdefault(tuple(row["widths"]), len(places))
            if "search" in row:
                searches.setdefault(row["search"], []).append(place)
        rows = list({tuple(row["widths"]): row for row in rows}.values())
        divergences = [row["kl"] if isinstance(row["kl"], list) else [row["kl"]] for row in rows]
        return cls(
            torch.tensor(dense),
            torch.tensor([row["widths"] for row in rows]),
            torch.tensor([row["errors"] for row in rows], dtype=torch.float64),
            torch.tensor([fmean(each) for each in divergences], dtype=torch.float64).log(),
            tuple(torch.tensor(each) for each in searches.values()),
            alike,
        )

    @cached_property
    def inputs(self) -> Tensor:
        """Inputs of the Gaussian process `(n, G + 1)`."""
        return inputs_of(self.dense, lambda _: self.losses.sum(1), self.widths)

    @cached_property
    def terms(self) -> Terms:
        """Terms of the candidates, for the surrogate."""
        places = {tuple(row): place for place, row in enumerate(self.widths.tolist())}
        return Terms(
            self.dense, lambda widths: self.losses[[places[tuple(row)] for row in widths.tolist()]], self.likeness
        )

    def chosen(self, count: int, repeat: int) -> tuple[Tensor, Tensor]:
        """Places of so many known candidates, and of those that are to be ranked."""
        if not self.searches:
            order = torch.randperm(len(self.values), generator=torch.Generator().manual_seed(repeat))
            return order[:count], order[count:]
        known = self.searches[repeat][:count]
        rest = torch.ones(len(self.values), dtype=torch.bool)
        rest[known] = False
        return known, rest.nonzero()[:, 0]


def read(path: Path, network: str | None = None) -> list[Pool]:
    """The networks of a file.

    Args:
        path: The file.
        network: Name of the network, if the file does not have it.
    """
    first, *others = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    if "rows" in first:
        return [Pool.of(each["dense"], each["rows"]) for each in (first, *others)]
    name = first.get("network", network)
    return [Pool.of(first["dense"], others, None if name is None else alike_in(name, first["names"]))]


def alike_in(name: str, groups: Sequence[str]) -> Tensor:
    """How alike the groups of a network for small images are, in the order of their names or of prefixes of them."""
    graph = trace(NetworkSpec(name, {"num_classes": 10}).build().eval(), torch.zeros(1, 3, 32, 32), self_test=False)
    names = [group.name for group in graph.groups]
    order = torch.tensor([next(place for place, full in enumerate(names) if full.startswith(own)) for own in groups])
    return likeness(graph)[order][:, order]


Critic = Callable[[Pool, Tensor, Tensor], Tensor]
"""Predicts the log divergences of the second places of a pool, knowing those of the first ones."""


def sensitivity(pool: Pool, known: Tensor, rest: Tensor) -> Tensor:
    """The summed losses."""
    return pool.losses[rest].sum(1)


def regression(pool: Pool, known: Tensor, rest: Tensor) -> Tensor:
    """A ridge regression."""
    if not len(known):
        return sensitivity(pool, known, rest)
    inputs = torch.cat([pool.inputs, pool.inputs[:, :-1].square()], 1)
    inputs = (inputs - inputs[known].mean(0)) / (inputs[known].std(0) + 1e-9)
    x, y = inputs[known], pool.values[known] - pool.values[known].mean()
    dual = torch.linalg.solve(x @ x.T / x.shape[1] + RIDGE * torch.eye(len(x), dtype=torch.float64), y)
    return inputs[rest] @ (x.T @ dual)


def gaussian_process(pool: Pool, known: Tensor, rest: Tensor) -> Tensor:
    """The Gaussian process of the search method."""
    if not len(known):
        return sensitivity(pool, known, rest)
    return posterior(pool.inputs[known], pool.values[known], pool.inputs[rest])[0]


def own(pool: Pool, known: Tensor, rest: Tensor) -> Tensor:
    """The agent's surrogate, groups on their own."""
    priors = [flat_prior(pool.terms)]
    return Surrogate(pool.terms, priors, pool.widths[known], pool.values[known]).mean(pool.widths[rest])


def surrogate(pool: Pool, known: Tensor, rest: Tensor) -> Tensor:
    """The agent's surrogate."""
    priors = prior_forms(pool.terms)
    return Surrogate(pool.terms, priors, pool.widths[known], pool.values[known]).mean(pool.widths[rest])


CRITICS: dict[str, Critic] = {
    "sensitivity": sensitivity,
    "regression": regression,
    "gaussian_process": gaussian_process,
    "own": own,
    "surrogate": surrogate,
}


def judged(pool: Pool, critic: Critic, count: int, repeat: int) -> tuple[float, float, float]:
    """Rank correlation over all unknown candidates and over the best third, and the regret of the favourites."""
    known, rest = pool.chosen(count, repeat)
    expected, values = critic(pool, known, rest), pool.values[rest]
    third = values.argsort()[: len(rest) // 3]
    regret = values[expected.argsort()[:PICKS]].min() - values.min()
    ranks = [kendall(expected[each].tolist(), values[each].tolist()) or 0.0 for each in (slice(None), third)]
    return ranks[0], ranks[1], float(regret)


def summary(rows: Sequence[tuple[float, ...]]) -> dict[str, float]:
    """Means and their standard errors."""
    found = {}
    for name, values in zip(("tau", "best_third", "regret"), zip(*rows, strict=True), strict=True):
        found[name] = round(fmean(values), 3)
        found[f"{name}_error"] = round(stdev(values) / math.sqrt(len(values)), 3) if len(values) > 1 else 0.0
    return found


def main() -> None:
    """Judge all critics on the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="evaluated candidates")
    parser.add_argument("--network", help="the network of files that do not name theirs")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for path in args.files:
        pools = read(path, args.network)
        sizes = [len(each) * 3 / 2 for pool in pools for each in pool.searches] or [len(pool.values) for pool in pools]
        counts = [count for count in KNOWN if count <= min(sizes) * 2 / 3]
        repeats = len(pools[0].searches) or (REPEATS if len(pools) == 1 else 1)
        found[path.stem] = {
            name: {
                count: summary([judged(pool, critic, count, each) for pool in pools for each in range(repeats)])
                for count in counts
            }
            for name, critic in CRITICS.items()
        }
        for name, each in found[path.stem].items():
            print(path.stem, name, *(f"{count}: {row['tau']} ({row['best_third']})" for count, row in each.items()))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
