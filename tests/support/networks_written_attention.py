"""Attention as repositories write it, each network with its channel groups derived by hand."""

import math

import torch
from torch import nn

from tests.support.networks_zoo import IO, Case, case, conv

WRITTEN: dict[str, Case] = {}
"""Name of a network -> the network, its input and the expected result of its trace."""

TOKENS = ((2, 5, 9),)
ENDS = {"x": 5, "head": 10}


@case({"stem": (4, 1), "q": (12, 2), "out": (6, 1)}, IO, ((2, 3, 4, 4),), zoo=WRITTEN)
class AutoencoderAttention(nn.Module):
    """The autoencoder of latent diffusion: all sizes are those of the queries, and so is the scale.

    Queries and keys share their channels. Values have channels of their own, as many as queries.
    """

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.out, self.head = conv(3, 12), nn.GroupNorm(4, 12), conv(12, 6), nn.Linear(6, 10)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(12, 12, 1) for _ in range(4))

    def attend(self, x):
        h_ = self.norm(x)
        q = self.q(h_)
        k = self.k(h_)
        v = self.v(h_)

        b, c, h, w = q.shape
        q = q.reshape(b, c, h * w)
        q = q.permute(0, 2, 1)
        k = k.reshape(b, c, h * w)
        w_ = torch.bmm(q, k)
        w_ = w_ * (int(c) ** (-0.5))
        w_ = nn.functional.softmax(w_, dim=2)

        v = v.reshape(b, c, h * w)
        w_ = w_.permute(0, 2, 1)
        h_ = torch.bmm(v, w_)
        h_ = h_.reshape(b, c, h, w)
        return x + self.proj_out(h_)

    def forward(self, x):
        return self.head(self.out(self.attend(self.stem(x))).mean((2, 3)))


class SingleHead(nn.Module):
    """One head; queries and keys share their channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(9, 12), nn.Linear(7, 10)
        self.q, self.k, self.v = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(12, 7)

    def forward(self, x):
        x = self.embed(x)
        return self.head((self.scores(self.q(x), self.k(x)).softmax(-1) @ self.v(x)).mean(1))


SINGLE = {"embed": (12, 1), "q": (8, 1), "v": (7, 1)}


@case(SINGLE, ENDS, TOKENS, zoo=WRITTEN)
class ScaledScores(SingleHead):
    """The scores are divided by the root of the width of the keys."""

    def scores(self, q, k):
        return torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(k.size(-1))


@case(SINGLE, ENDS, TOKENS, zoo=WRITTEN)
class ScaledQueriesAndKeys(SingleHead):
    """Both factors are scaled, which is more stable in half precision."""

    def scores(self, q, k):
        scale = 1 / math.sqrt(math.sqrt(q.shape[-1]))
        return (q * scale) @ (k * scale).transpose(-2, -1)
