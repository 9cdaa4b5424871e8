"""Norms as repositories write them, each network with its channel groups derived by hand."""

import torch
from torch import nn

from tests.support.networks_written_attention import ENDS, TOKENS, NormsAsWideAsTheInput
from tests.support.networks_zoo import WRITTEN, case


class LayerNorm(nn.Module):
    """Layer norm of the last dimension, with the deviation of a sample, as "The Annotated Transformer" writes it."""

    def __init__(self, features, eps=1e-6):
        super().__init__()
        self.a_2, self.b_2, self.eps = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features)), eps

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        return self.a_2 * (x - mean) / (self.std(x) + self.eps) + self.b_2

    def std(self, x):
        return x.std(-1, keepdim=True)


class FewerDegrees(LayerNorm):
    """Two degrees of freedom are lost; the arguments have NumPy's names."""

    def std(self, x):
        return torch.std(x, axis=-1, keepdims=True, correction=2)


@case({"embed": (4, 7)}, ENDS | {"q_proj": 3}, TOKENS, zoo=WRITTEN)
class DeviationsWithinHeads(NormsAsWideAsTheInput):
    """Two channels of each head remain, of which alone there is a deviation."""

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = LayerNorm(self.head_dim), LayerNorm(self.head_dim)


@case({"embed": (12, 1), "inner": (8, 1)}, ENDS, TOKENS, zoo=WRITTEN)
class Deviations(nn.Module):
    """Two channels of a norm remain: the deviation of a single one is not a number."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(9, 12), LayerNorm(12)
        self.inner, self.head = nn.Linear(12, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.inner(self.norm(self.embed(x))).relu().mean(1))


@case({"embed": (12, 1), "inner": (8, 1)}, ENDS, TOKENS, zoo=WRITTEN)
class DeviationsOfFewerDegrees(Deviations):
    """Three channels remain where two degrees of freedom are lost."""

    def __init__(self):
        super().__init__()
        self.norm = FewerDegrees(12)


@case({"embed": (4, 7)}, ENDS | {"q_proj": 3}, TOKENS, zoo=WRITTEN)
class FewerDegreesWithinHeads(DeviationsWithinHeads):
    """Three channels of each head remain."""

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = FewerDegrees(self.head_dim), FewerDegrees(self.head_dim)


class Rows(nn.Module):
    """Channels are scaled and normalised in rows of four, with parameters that all rows share."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(9, 12), nn.Linear(12, 10)
        self.scale, self.norm = nn.Parameter(torch.linspace(0.5, 2.0, 4)), nn.LayerNorm(4)

    def forward(self, x):
        x = self.embed(x).tanh()
        return self.head(self.norm(self.rows(x) * self.scale).flatten(2).mean(1))


@case({"embed": (3, 1)}, ENDS, TOKENS, zoo=WRITTEN)
class RowsOfAGivenWidth(Rows):
    """Their number follows from the input: whole rows go, and the parameters stay."""

    def rows(self, x):
        return x.view(*x.shape[:2], -1, 4)


@case({"embed": (4, 1)}, ENDS, TOKENS, zoo=WRITTEN)
class RowsOfAGivenNumber(Rows):
    """Their width follows from the input: the same channels of every row go, with those of the parameters."""

    def rows(self, x):
        return x.view(*x.shape[:2], 3, -1)
