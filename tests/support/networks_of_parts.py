"""Networks whose modules read numbers that their parts hold, `self.attention.num_heads`."""

import torch
from torch import nn

from tests.support.networks_zoo import IO, WRITTEN, case, conv

TOKENS = {"x": 5, "head": 10}, ((2, 5, 7),)
"""Frozen groups and shapes of networks of tokens."""


class Projections(nn.Module):
    """Layers of an attention that another module computes, three heads of four channels."""

    def __init__(self, width, heads=3, head_dim=4):
        super().__init__()
        self.num_heads, self.head_dim = heads, head_dim
        self.qkv, self.proj = nn.Linear(width, 3 * heads * head_dim), nn.Linear(heads * head_dim, width)

    @property
    def heads(self):
        return self.num_heads

    def scale(self):
        return self.head_dim**-0.5


class Encoder(nn.Module):
    """Computes the attention; `sizes` returns how many heads there are, of how many channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention, self.head = nn.Linear(7, 9), Projections(9), nn.Linear(9, 10)

    def forward(self, x):
        x = self.embed(x)
        n, tokens, _ = x.shape
        q, k, v = self.attention.qkv(x).view(n, tokens, 3, *self.sizes()).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) * self.attention.scale()).softmax(-1) @ v
        return self.head((x + self.attention.proj(mixed.transpose(1, 2).reshape(n, tokens, -1))).mean(1))


@case({"embed": (9, 1), "attention.qkv": (3, 1)}, *TOKENS, zoo=WRITTEN)
class HeadsOfPart(Encoder):
    def sizes(self):
        return self.attention.num_heads, self.attention.head_dim


@case({"embed": (9, 1), "attention.qkv": (3, 1)}, *TOKENS, zoo=WRITTEN)
class HeadsOfPropertyOfPart(Encoder):
    def sizes(self):
        return self.attention.heads, -1


class Queries(nn.Module):
    """Queries in heads, whose number the keys and values of another module have as well."""

    def __init__(self, width, heads=3):
        super().__init__()
        self.num_heads, self.layer = heads, nn.Linear(width, 4 * heads)

    def forward(self, x):
        return self.layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


@case({"embed": (9, 1), "kv": (3, 1)}, *TOKENS, zoo=WRITTEN)
class HeadsOfPartThatReadsThemToo(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.queries, self.head = nn.Linear(7, 9), Queries(9), nn.Linear(9, 10)
        self.kv, self.proj = nn.Linear(9, 24), nn.Linear(12, 9)

    def forward(self, x):
        x = self.embed(x)
        n, tokens, _ = x.shape
        k, v = self.kv(x).view(n, tokens, 2, self.queries.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = (self.queries(x) @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        return self.head((x + self.proj(mixed.transpose(1, 2).reshape(n, tokens, -1))).mean(1))


class Block(nn.Module):
    """Has the width of its layer, which its own code does not read."""

    def __init__(self):
        super().__init__()
        self.layer, self.width = conv(3, 6), 6

    def forward(self, x):
        return self.layer(x).relu()


@case({"stem.block.layer": (6, 1)}, IO, zoo=WRITTEN)
class WidthOfPartOfPart(nn.Module):
    """A number in a part of a part, which is also a divisor."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Module(), nn.Linear(6, 10)
        self.stem.block = Block()

    def forward(self, x):
        x = self.stem.block(x).view(len(x), self.stem.block.width, -1) / self.stem.block.width**0.5
        return self.head(torch.tanh(x).mean(2))
