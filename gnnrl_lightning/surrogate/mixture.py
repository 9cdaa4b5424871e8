"""The surrogate: a mixture of processes of different forms, weighted by how probable the evaluations make each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.surrogate.model import Draws, Process
from gnnrl_lightning.surrogate.prior import Prior
from gnnrl_lightning.surrogate.terms import Terms

EXPLORATION = 0.25
"""Share of their deviations from the posterior mean that the functions keep by which candidates are chosen."""


class Surrogate:
    """Posterior of the function from candidates to log losses, over several priors.

    Which form a network's losses have is not known beforehand: with 30 groups and half of the MACs, products of pairs
    or coefficients that groups have in common say much, with 12 groups they say little.

    Args:
        terms: Terms of candidates.
        priors: The priors, equally probable before anything is known, see `prior_forms`.
        widths: Evaluated candidates `(n, G)`; none at first.
        values: Their log losses `(n,)`, the lower the better.

    Attributes:
        processes: A process for each prior.
        weights: Their posterior probabilities `(P,)` float64.
    """

    def __init__(self, terms: Terms, priors: Sequence[Prior], widths: Tensor, values: Tensor) -> None:
        self.terms = terms
        self.processes = tuple(Process(terms, prior, widths, values) for prior in priors)
        evidence = torch.tensor([process.evidence for process in self.processes], dtype=torch.float64)
        self.weights = evidence.softmax(0)

    def mean(self, widths: Tensor) -> Tensor:
        """Posterior means `(m,)` of candidates `(m, G)`."""
        return self.weights @ torch.stack([process.mean(widths) for process in self.processes])

    def draw(self, count: int, generator: torch.Generator, exploration: float = 1.0) -> MixedDraws:
        """Functions drawn from the posterior.

        Args:
            count: Number of functions.
            generator: Of the draws.
            exploration: Share of their deviations from their process's mean that they keep; 0: each is the mean of a
                process, drawn by the weights.
        """
        chosen = self.weights.multinomial(count, replacement=True, generator=generator)
        places = [(chosen == number).nonzero()[:, 0] for number in range(len(self.processes))]
        draws = [
            process.draw(len(own), generator, exploration) for process, own in zip(self.processes, places, strict=True)
        ]
        return MixedDraws(tuple(draws), tuple(places))


@dataclass(frozen=True)
class MixedDraws:
    """Functions drawn from the posterior of a surrogate, S of them.

    Attributes:
        draws: Those of each process.
        places: Their places among all functions, a permutation of `range(S)` in parts.
    """

    draws: tuple[Draws, ...]
    places: tuple[Tensor, ...]

    def __len__(self) -> int:
        return sum(map(len, self.draws))

    def __call__(self, widths: Tensor) -> Tensor:
        """Values `(S, m)` of candidates by each function.

        Args:
            widths: `(m, G)`, the same for all functions, or `(S, m, G)`, its own for each.
        """
        values = torch.zeros(len(self), widths.shape[-2], dtype=torch.float64)
        for draws, own in zip(self.draws, self.places, strict=True):
            if len(own):
                values[own] = draws(widths if widths.dim() == 2 else widths[own])
        return values
