"""Sequence models as repositories write them, each network with its channel groups derived by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.networks_written_attention import ENDS, TOKENS
from tests.support.networks_zoo import WRITTEN, case

MIXER = {"in_proj": (8, 1), "x_proj": (2, 1), "x_proj#2": (4, 1)}
"""Inner channels, which go with their gates and states; the rank of the steps; the size of a state."""


@case({"embed": (6, 1)} | MIXER, ENDS, TOKENS, zoo=WRITTEN)
class SelectiveScan(nn.Module):
    """Mamba in plain PyTorch; a product of three tensors contracts nothing."""

    def __init__(self):
        super().__init__()
        self.d_inner, self.dt_rank, d_state = 8, 2, 4
        self.embed, self.norm, self.head = nn.Linear(9, 6), nn.RMSNorm(6), nn.Linear(6, 10)
        self.in_proj = nn.Linear(6, self.d_inner * 2, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, 3, groups=self.d_inner, padding=2)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + d_state * 2, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, d_state + 1).float().repeat(self.d_inner, 1)))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, 6, bias=False)

    def mix(self, x):
        length = x.shape[1]
        x, res = self.in_proj(x).split(split_size=[self.d_inner, self.d_inner], dim=-1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[:, :, :length].transpose(1, 2))
        return self.out_proj(self.ssm(x) * F.silu(res))

    def ssm(self, x):
        n = self.A_log.shape[1]
        A = -torch.exp(self.A_log)
        delta, B, C = self.x_proj(x).split(split_size=[self.dt_rank, n, n], dim=-1)
        delta = F.softplus(self.dt_proj(delta))
        return self.selective_scan(x, delta, A, B, C)

    def selective_scan(self, u, delta, A, B, C):
        b, length, d_in = u.shape
        n = A.shape[1]
        deltaA = torch.exp(torch.einsum("bld,dn->bldn", delta, A))
        deltaB_u = torch.einsum("bld,bln,bld->bldn", delta, B, u)
        x = torch.zeros((b, d_in, n), device=deltaA.device, dtype=u.dtype)
        ys = []
        for i in range(length):
            x = deltaA[:, i] * x + deltaB_u[:, i]
            ys.append((x @ C[:, i, :].unsqueeze(-1)).squeeze(-1))
        return torch.stack(ys, dim=1) + u * self.D

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.mix(self.norm(x))).mean(1))


@case({"embed": (12, 1), "inner": (8, 1)}, ENDS, TOKENS, zoo=WRITTEN)
class PaddedTokens(nn.Module):
    """A token of zeros is appended to those of the input, which stay: channels pass."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Linear(9, 12), nn.Linear(12, 8), nn.Linear(8, 10)

    def forward(self, x):
        x = self.embed(x)
        x = torch.cat([x, x.new_zeros(x.shape[0], 1, x.shape[2])], 1)
        return self.head(self.inner(x).relu().mean(1))


class ContentAndPosition(nn.Module):
    """Scores of queries and keys of two kinds together, scaled by the number of all their channels."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.q_pos, self.k_pos = (nn.Linear(12, n) for n in (8, 8, 4, 4))
        self.v = nn.Linear(12, 12)

    def forward(self, x):
        q, k = torch.cat([self.q(x), self.q_pos(x)], -1), torch.cat([self.k(x), self.k_pos(x)], -1)
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
        return scores.softmax(-1) @ self.v(x)


@case({"embed": (12, 1), "mix.q": (8, 1), "mix.q_pos": (4, 1)}, ENDS, TOKENS, zoo=WRITTEN)
class ScaledByTwoKinds(nn.Module):
    """Each kind has channels of its own: the scale follows from both of their numbers."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(9, 12), ContentAndPosition(), nn.Linear(12, 10)

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.mix(x)).mean(1))


class KeysOfHeads(nn.Module):
    """Layers make the keys and values of each head of all positions; heads share the channels of both."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.mask = 3, None
        self.to_keys, self.to_values = nn.Linear(5, 18), nn.Linear(5, 18)

    def attend(self, q, k, v):
        k, v = self.to_keys(k.transpose(1, 2)), self.to_values(v.transpose(1, 2))
        k, v = (each.unflatten(-1, (self.num_heads, -1)).permute(0, 2, 3, 1) for each in (k, v))
        q = q.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, self.mask).transpose(1, 2).flatten(2)


@case({"embed": (12, 1), "q": (3, 1)}, ENDS | {"k": 4, "v": 4}, TOKENS, zoo=WRITTEN)
class HeadsWithKeysOfTheirOwn(KeysOfHeads):
    """Whole heads go, with their keys."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(9, 12), nn.Linear(12, 10)
        self.q, self.k, self.v, self.o = (nn.Linear(12, n) for n in (12, 4, 4, 12))

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.o(self.attend(self.q(x), self.k(x), self.v(x)))).mean(1))


@case({"to_keys": (6, 3), "o": (7, 1)}, {"x": 5, "head": 10, "to_keys": 3}, ((2, 5, 12),), zoo=WRITTEN)
class InputsWithKeysOfTheirOwn(KeysOfHeads):
    """The heads of the input stay, and each of them keeps keys of its own."""

    def __init__(self):
        super().__init__()
        self.o, self.head, self.mask = nn.Linear(12, 7), nn.Linear(7, 10), nn.Parameter(torch.randn(3, 1, 1))

    def forward(self, x):
        return self.head(self.o(self.attend(x, x[:, :, :4], x[:, :, 4:8])).relu().mean(1))


class MaskedTokens(nn.Module):
    """What is written at positions has the channels of the stream behind them."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(5, 3)
        self.token = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return self.head(self.mix(self.written(x, self.embed(x))).relu().mean(1))


@case({"embed": (8, 1), "mix": (5, 1)}, {"x": 5, "head": 3}, ((2, 5, 6),), zoo=WRITTEN)
class MaskTokens(MaskedTokens):
    """BEiT: a learnt vector in place of tokens."""

    def written(self, x, y):
        y = y.clone()
        y[x[..., 0] > 0] = self.token
        return y


@case({"embed": (8, 1), "mix": (5, 1)}, {"x": 5, "head": 3}, ((2, 5, 6),), zoo=WRITTEN)
class WrittenPositions(MaskedTokens):
    """At some positions of all examples."""

    def written(self, x, y):
        y = y.clone()
        y[:, torch.tensor([0, 3])] = self.token
        return y


@case(
    {"mix": (5, 1)}, {"x": 5, "embed": 8, "head": 3}, ((2, 5, 6),), {"embed": "written into through an index"}, WRITTEN
)
class WrittenChannels(MaskedTokens):
    """Into some channels, whose positions are constants of the code."""

    def written(self, x, y):
        y = y.clone()
        y[:, :, torch.tensor([0, 3])] = self.token[:2]
        return y


@case({"mix": (5, 1)}, {"x": 5, "embed": 8, "head": 3}, ((2, 5, 6),), {"embed": "cannot be pruned"}, WRITTEN)
class WrittenConstants(MaskedTokens):
    """Values that do not follow the channels."""

    def written(self, x, y):
        y = y.clone()
        y[x[..., 0] > 0] = torch.arange(8).to(y)
        return y


@case({"embed": (2, 12), "up": (7, 1)}, {"qkv": 4, "head": 10}, ((2, 5),), {"qkv": "head"}, WRITTEN)
class SingleModule(nn.Module):
    """A transformer without modules of its own: embedding and attention are in one `forward`, with one size."""

    def __init__(self):
        super().__init__()
        self.n_head = 4
        self.embed, self.norm = nn.Embedding(9, 8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 7), nn.Linear(7, 8), nn.Linear(8, 10)

    def forward(self, x):
        x = self.embed((x * 4).long().clamp(0, 8))
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, C)
        x = x + self.proj(y)
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))
