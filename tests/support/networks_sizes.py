"""Test networks whose code gives a tensor the size of another one, so that both keep as many channels."""

import torch
from torch import nn
from torch.nn.functional import conv2d

from tests.support.networks_attention import Fused, attention
from tests.support.networks_zoo import IO, case, conv


class Pooled(nn.Module):
    """Positions of six channels are joined to one dimension by `self.middle`, and averaged."""

    def __init__(self, middle):
        super().__init__()
        self.a, self.middle, self.head = conv(3, 6), middle, nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.middle(self.a(x)).tanh().mean(2))


class Sized(nn.Module):
    """Another layer of as many channels as are read."""

    def __init__(self):
        super().__init__()
        self.b = conv(6, 6)


class SizeOfTheInput(Sized):
    def forward(self, x):
        B, C = x.shape[:2]
        return self.b(x.relu()).reshape(B, C, -1)


class SizeOfTheCode(Sized):
    def forward(self, x):
        return self.b(x.relu()).reshape(len(x), 6, -1)


@case({"a": (6, 2)}, IO)
class SizedAsInput(Pooled):
    """Each of the two convolutions keeps channels of its own, as many as the other."""

    def __init__(self):
        super().__init__(SizeOfTheInput())


@case({"a": (6, 1)}, IO | {"middle.b": 6}, reason={"middle.b": "has a size that is a constant of the code"})
class SizedByCode(Pooled):
    """The same number in the code: nothing is tied."""

    def __init__(self):
        super().__init__(SizeOfTheCode())


class Modulation(nn.Module):
    """Queries and contexts are as many as the channels that are read, beside a gate for each of two contexts."""

    def __init__(self):
        super().__init__()
        self.make = conv(6, 14, 1)

    def forward(self, x):
        C = x.shape[1]
        q, context, gates = torch.split(self.make(x), (C, C, 2), 1)
        summed = 0
        for level in range(2):
            context = context.tanh()
            summed = summed + context * gates[:, level : level + 1]
        return (q * summed).flatten(2)


@case({"a": (6, 2)}, IO | {"middle.make": 2}, reason={"middle.make": "is used apart from the other channels"})
class PartsAsInput(Pooled):
    """Each of the tensors keeps channels of its own, as many as are read; focal modulation."""

    def __init__(self):
        super().__init__(Modulation())


class NonLocal(nn.Module):
    """One attribute is the width of the keys and of the values, which are tied."""

    def __init__(self):
        super().__init__()
        self.inner = 4
        self.query, self.key, self.value, self.out = *(conv(6, 4, 1) for _ in range(3)), conv(4, 6, 1)

    def forward(self, x):
        q, k, v = (layer(x).view(len(x), self.inner, -1) for layer in (self.query, self.key, self.value))
        mixed = v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)
        return (x + self.out(mixed.view(len(x), self.inner, *x.shape[2:]))).flatten(2)


@case({"a": (6, 1), "middle.query": (4, 2)}, IO)
class OneAttributeOfTwo(Pooled):
    def __init__(self):
        super().__init__(NonLocal())


class Blur(nn.Module):
    """A fixed filter of each channel, in as many groups as the module holds."""

    def __init__(self):
        super().__init__()
        self.channels = 6
        self.register_buffer("kernel", torch.rand(6, 1, 3, 3))

    def forward(self, x):
        return conv2d(x.relu(), self.kernel, None, 2, 1, 1, self.channels).flatten(2)


class BlurOfTheCode(Blur):
    def forward(self, x):
        return conv2d(x.relu(), self.kernel, groups=6).flatten(2)


@case({"a": (6, 1)}, IO)
class GroupsOfAttribute(Pooled):
    """The attribute follows the channels."""

    def __init__(self):
        super().__init__(Blur())


@case({}, IO | {"a": 6}, reason={"a": "write groups=x.shape[1]"})
class GroupsOfCode(Pooled):
    def __init__(self):
        super().__init__(BlurOfTheCode())


@attention({"embed": (4, 12)}, {"attention.q": 3})
class ReducedTokens(Fused):
    """Keys and values of fewer tokens: a convolution joins pairs of them, in as many channels as there are."""

    def __init__(self):
        super().__init__()
        del self.qkv
        self.q, self.kv = nn.Linear(12, 12), nn.Linear(12, 24)
        self.reduce, self.norm = nn.Conv1d(12, 12, 2, stride=2), nn.LayerNorm(12)

    def forward(self, x):
        B, N, C = x.shape
        q = self.q(x).reshape(B, N, self.num_heads, -1).transpose(1, 2)
        x = self.norm(self.reduce(x.transpose(1, 2)).reshape(B, C, -1).transpose(1, 2))
        k, v = self.kv(x).reshape(B, -1, 2, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        mixed = (q * C**-0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(B, N, C))


@attention({"embed": (4, 12)}, {"attention.q": 3})
class NumberOfReducedTokens(ReducedTokens):
    """Queries and keys are taken apart by the number of their tokens; PVT v2."""

    def __init__(self):
        super().__init__()
        self.k, self.v, self.width = nn.Linear(12, 12), nn.Linear(12, 12), 4
        del self.kv

    def heads(self, x):
        return x.view((*x.size()[:-1], self.num_heads, self.width)).transpose(1, 2)

    def forward(self, x):
        B, N, C = x.shape
        q = self.heads(self.q(x))
        x = self.norm(self.reduce(x.permute(0, 2, 1)).reshape(B, C, -1).permute(0, 2, 1))
        k, v = self.heads(self.k(x)), self.heads(self.v(x))
        mixed = (q @ k.transpose(-1, -2) / self.width**0.5).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(B, N, C))
