"""Attention as repositories write it, each network with its channel groups derived by hand."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.networks_zoo import IO, WRITTEN, case, conv

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


class OneHead(nn.Module):
    """The attribute is the width of the only head, and the root of it scales the scores."""

    def __init__(self):
        super().__init__()
        self.width = 3
        self.q, self.k, self.v, self.proj = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, x):
        n, tokens, channels = x.shape
        q, k, v = (layer(x).view(n, tokens, 1, self.width).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(-1, -2) / self.width**0.5).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, channels))


@case({"embed": (3, 3)}, {"x": 5, "head": 10}, TOKENS, zoo=WRITTEN)
class NarrowHead(nn.Module):
    """Behind a layer norm, two channels say as little as one; PVT v2's first stage."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention, self.head = nn.Linear(9, 3), OneHead(), nn.Linear(3, 10)
        self.before, self.after = nn.LayerNorm(3), nn.LayerNorm(3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attention(self.before(x))
        return self.head(self.after(x).mean(1))


class SingleHead(nn.Module):
    """One head; queries and keys share their channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(9, 12), nn.Linear(7, 10)
        self.q, self.k, self.v = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(12, 7)

    def scores(self, q, k):
        raise NotImplementedError

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


@case(
    {"stem": (4, 9), "pool": (7, 1)}, IO | {"pool": 3}, ((2, 3, 4, 4),), {"pool": "part of an attention head"}, WRITTEN
)
class PooledByAttention(nn.Module):
    """CLIP's residual networks: the function that attends computes the width of a head from that of the input.

    Channels of every head of queries, of values and of the input are as many.
    """

    class AttentionPool2d(nn.Module):
        """The mean is the query."""

        def __init__(self, spacial_dim, embed_dim, num_heads, output_dim):
            super().__init__()
            self.positional_embedding = nn.Parameter(torch.randn(spacial_dim**2 + 1, embed_dim) / embed_dim**0.5)
            self.k_proj = nn.Linear(embed_dim, embed_dim)
            self.q_proj = nn.Linear(embed_dim, embed_dim)
            self.v_proj = nn.Linear(embed_dim, embed_dim)
            self.c_proj = nn.Linear(embed_dim, output_dim)
            self.num_heads = num_heads

        def forward(self, x):
            x = x.flatten(start_dim=2).permute(2, 0, 1)  # NCHW -> (HW)NC
            x = torch.cat([x.mean(dim=0, keepdim=True), x], dim=0)  # (HW+1)NC
            x = x + self.positional_embedding[:, None, :].to(x.dtype)  # (HW+1)NC
            x, _ = F.multi_head_attention_forward(
                query=x[:1],
                key=x,
                value=x,
                embed_dim_to_check=x.shape[-1],
                num_heads=self.num_heads,
                q_proj_weight=self.q_proj.weight,
                k_proj_weight=self.k_proj.weight,
                v_proj_weight=self.v_proj.weight,
                in_proj_weight=None,
                in_proj_bias=torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]),
                bias_k=None,
                bias_v=None,
                add_zero_attn=False,
                dropout_p=0,
                out_proj_weight=self.c_proj.weight,
                out_proj_bias=self.c_proj.bias,
                use_separate_proj_weight=True,
                training=self.training,
                need_weights=False,
            )
            return x.squeeze(0)

    def __init__(self):
        super().__init__()
        self.stem, self.pool, self.head = conv(3, 12), self.AttentionPool2d(4, 12, 3, 7), nn.Linear(7, 10)

    def forward(self, x):
        return self.head(self.pool(self.stem(x)))


@case({"embed": (4, 9)}, ENDS | {"qkv": 3}, TOKENS, {"qkv": "part of an attention head"}, WRITTEN)
class WidthOfALayer(nn.Module):
    """The width of a head is computed from that of what another layer of the same module makes."""

    def __init__(self):
        super().__init__()
        self.num_heads = 3
        self.embed, self.qkv, self.proj, self.head = (
            nn.Linear(*size) for size in ((9, 12), (12, 36), (12, 12), (12, 10))
        )

    def forward(self, x):
        x = self.embed(x)
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.head((x + self.proj(mixed.transpose(1, 2).reshape(B, N, C))).mean(1))


class RMSNorm(nn.Module):
    """Root mean square norm of the last dimension, as language models write it."""

    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(dim)), eps

    def forward(self, hidden_states):
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
        return self.weight * hidden_states


class NormedQueries(nn.Module):
    """Queries and keys are normalised within each head."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim = 3, 4
        self.embed, self.head = nn.Linear(9, 12), nn.Linear(12, 10)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(12, 12) for _ in range(4))
        self.q_norm, self.k_norm = RMSNorm(self.head_dim), RMSNorm(self.head_dim)

    def split(self, x, like):
        raise NotImplementedError

    def forward(self, x):
        x = self.embed(x)
        q = self.q_norm(self.split(self.q_proj(x), x)).transpose(1, 2)
        k = self.k_norm(self.split(self.k_proj(x), x)).transpose(1, 2)
        v = self.split(self.v_proj(x), x).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(*x.shape[:-1], -1)
        return self.head((x + self.o_proj(mixed)).mean(1))


@case({"embed": (12, 1), "q_proj": (3, 1)}, ENDS, TOKENS, zoo=WRITTEN)
class NormsOfQwen(NormedQueries):
    """The module holds the width of a head: whole heads go, and the weights of the norms stay."""

    def split(self, x, like):
        return x.view((*like.shape[:-1], -1, self.head_dim))


@case({"embed": (4, 7)}, ENDS | {"q_proj": 3}, TOKENS, zoo=WRITTEN)
class NormsAsWideAsTheInput(NormedQueries):
    """All heads of queries and keys keep the channels that the norms keep; values and tokens have their own."""

    def split(self, x, like):
        return x.view(*like.shape[:-1], self.num_heads, like.shape[-1] // self.num_heads)


@case({"embed": (12, 1), "q_proj": (4, 1), "v_proj": (4, 3)}, ENDS | {"q_proj": 3}, TOKENS, zoo=WRITTEN)
class NormsOfThreeHeads(NormedQueries):
    """The number of heads is a constant: their width goes."""

    def split(self, x, like):
        return x.view(*like.shape[:-1], 3, -1)


@case({"embed": (4, 9)}, ENDS | {"q": 3}, TOKENS, zoo=WRITTEN)
class UnitHeads(nn.Module):
    """Values of each head are divided by their mean square, without a weight: every head keeps its own channels."""

    def __init__(self):
        super().__init__()
        self.num_heads = 3
        self.embed, self.head = nn.Linear(9, 12), nn.Linear(12, 10)
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        x = self.embed(x)
        shape = *x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = mixed / (1 + mixed.square().sum(-1, keepdim=True) + mixed.abs().mean(-1, keepdim=True))
        return self.head((x + self.o(mixed.transpose(1, 2).reshape(x.shape))).mean(1))


@case({"embed": (12, 1), "wq": (3, 1)}, ENDS, TOKENS, zoo=WRITTEN)
class ComplexRotary(nn.Module):
    """Llama's own code: pairs of channels are complex numbers, which turn."""

    def __init__(self):
        super().__init__()
        self.n_heads, self.head_dim = 3, 4
        self.embed, self.head = nn.Linear(9, 12), nn.Linear(12, 10)
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(12, 12, bias=False) for _ in range(4))

    def apply_rotary_emb(self, xq, xk, freqs_cis):
        xq_ = torch.view_as_complex(xq.reshape(*xq.shape[:-1], -1, 2))
        xk_ = torch.view_as_complex(xk.reshape(*xk.shape[:-1], -1, 2))
        freqs_cis = freqs_cis.view(1, xq_.shape[1], 1, xq_.shape[-1])
        xq_out = torch.view_as_real(xq_ * freqs_cis).flatten(3)
        xk_out = torch.view_as_real(xk_ * freqs_cis).flatten(3)
        return xq_out.type_as(xq), xk_out.type_as(xk)

    def forward(self, x):
        x = self.embed(x)
        bsz, seqlen, _ = x.shape
        xq, xk, xv = (each(x).view(bsz, seqlen, self.n_heads, self.head_dim) for each in (self.wq, self.wk, self.wv))
        freqs = torch.outer(torch.arange(seqlen), 1.0 / 10000.0 ** (torch.arange(0, self.head_dim, 2) / self.head_dim))
        xq, xk = self.apply_rotary_emb(xq, xk, torch.polar(torch.ones_like(freqs), freqs))
        xq, keys, values = (each.transpose(1, 2) for each in (xq, xk, xv))
        scores = torch.matmul(xq, keys.transpose(2, 3)) / math.sqrt(self.head_dim)
        output = torch.matmul(F.softmax(scores, dim=-1), values)
        return self.head((x + self.wo(output.transpose(1, 2).contiguous().view(bsz, seqlen, -1))).mean(1))


@case({"embed": (12, 1), "q": (3, 1), "einsum": (3, 1)}, {"x": 5, "head": 10}, TOKENS, zoo=WRITTEN)
class ProjectedKeys(nn.Module):
    """Linformer: a parameter makes three keys of all positions; the softmax is over those that are kept."""

    def __init__(self):
        super().__init__()
        self.n_heads, self.head_dim = 3, 4
        self.embed, self.head = nn.Linear(9, 12), nn.Linear(12, 10)
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))
        self.E = nn.Parameter(torch.randn(5, 3))

    def forward(self, x):
        x = self.embed(x)
        q, k, v = (layer(x).unflatten(-1, (self.n_heads, self.head_dim)) for layer in (self.q, self.k, self.v))
        k, v = (torch.einsum("bnhd,nk->bkhd", item, self.E) for item in (k, v))
        q, k, v = (item.transpose(1, 2) for item in (q, k, v))
        mixed = F.scaled_dot_product_attention(query=q, key=k, value=v)
        return self.head((x + self.o(mixed.transpose(1, 2).flatten(2))).mean(1))


class PositionSensitive(nn.Module):
    """Attention in which queries and keys of a head have half as many channels as its values; one layer makes all."""

    def __init__(self):
        super().__init__()
        self.heads, self.key_dim, self.head_dim = 3, 2, 4
        self.qkv, self.norm, self.proj = nn.Conv2d(12, 24, 1), nn.BatchNorm2d(24), nn.Conv2d(12, 12, 1)
        self.pe = nn.Conv2d(12, 12, 3, padding=1, groups=12)

    def parts(self, qkv, channels):
        sizes = [self.key_dim, self.key_dim, self.head_dim]
        return qkv.view(len(qkv), self.heads, self.key_dim * 2 + self.head_dim, -1).split(sizes, 2)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.parts(self.norm(self.qkv(x)), c)
        scores = (q.transpose(-2, -1) @ k) * q.shape[2] ** -0.5
        x = (v @ scores.softmax(-1).transpose(-2, -1)).view(b, c, h, w)
        return self.proj(x + self.pe(v.reshape(b, c, h, w)))


class PositionSensitiveByInput(PositionSensitive):
    """The code computes the widths from that of the input."""

    def parts(self, qkv, channels):
        width = channels // self.heads
        return qkv.view(len(qkv), self.heads, 2 * width, -1).split([width // 2, width // 2, width], 2)


@case({"stem": (2, 21), "out": (6, 1)}, IO | {"attend": 3}, ((2, 3, 4, 4),), zoo=WRITTEN)
class HalfAttended(nn.Module):
    """The module holds the widths, but gives its output the width of the input: all keep their ratio.

    The other half of the channels has as many: sets of two of them, too.
    """

    attention = PositionSensitive

    def __init__(self):
        super().__init__()
        self.stem, self.attend, self.out, self.head = conv(3, 24), self.attention(), conv(24, 6), nn.Linear(6, 10)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        return self.head(self.out(torch.cat([a, b + self.attend(b)], 1)).mean((2, 3)))


@case({"stem": (2, 21), "out": (6, 1)}, IO | {"attend": 3}, ((2, 3, 4, 4),), zoo=WRITTEN)
class HalfAttendedByInput(HalfAttended):
    """The code computes the widths of heads from that of the input."""

    attention = PositionSensitiveByInput


@case({"stem": (12, 1), "qkv": (3, 1), "out": (6, 1)}, IO, ((2, 3, 4, 4),), zoo=WRITTEN)
class PositionsOfRowsAndColumns(nn.Module):
    """Queries meet an embedding of positions, which is the sum of one of rows and one of columns."""

    def __init__(self):
        super().__init__()
        self.stem, self.qkv, self.out, self.head = conv(3, 12), conv(12, 36, 1), conv(12, 6), nn.Linear(6, 10)
        self.heads, self.height, self.width = 3, nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        x = self.stem(x)
        q, k, v = (t.unflatten(1, (self.heads, -1)).flatten(3) for t in self.qkv(x).chunk(3, 1))
        positions = (self.height[:, None] + self.width[None]).flatten(0, 1)
        scores = torch.einsum("bhdi,bhdj->bhij", q, k) + torch.einsum("bhdi,jd->bhij", q, positions)
        mixed = torch.einsum("bhij,bhdj->bhdi", scores.softmax(-1), v)
        return self.head(self.out(mixed.flatten(1, 2).unflatten(2, x.shape[2:])).mean((2, 3)))


@case({"stem": (12, 1), "value": (3, 1), "out": (6, 1)}, IO, ((2, 3, 4, 4),), zoo=WRITTEN)
class SampledHeads(nn.Module):
    """Deformable attention: every head samples its channels at positions of its own, and goes with the layers of them.

    Each position has two samples.
    """

    def __init__(self):
        super().__init__()
        self.heads, self.width = 3, 4
        self.stem, self.value, self.out, self.head = conv(3, 12), conv(12, 12, 1), conv(12, 6), nn.Linear(6, 10)
        self.offsets, self.weights = conv(12, 3 * 2 * 2, 1), conv(12, 3 * 2, 1)

    def forward(self, x):
        x = self.stem(x)
        b, _, h, w = x.shape
        values = self.value(x).view(b * self.heads, self.width, h, w)
        grid = self.offsets(x).view(b * self.heads, 2, 2, h * w).permute(0, 3, 1, 2).tanh()
        samples = F.grid_sample(values, grid, align_corners=False)
        weights = self.weights(x).view(b * self.heads, 1, 2, h * w).softmax(2).transpose(2, 3)
        mixed = (samples * weights).sum(-1).view(b, self.heads * self.width, h, w)
        return self.head(self.out(mixed).mean((2, 3)))
