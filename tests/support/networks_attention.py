"""Test networks with attention, in the styles in which it is written: what of its heads can be pruned."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.networks_zoo import case

ENDS = {"x": 5, "head": 10}
HEADS, WIDTH = 3, 4


class Model(nn.Module):
    """Tokens are embedded, attend to each other beside a residual connection, and are averaged."""

    def __init__(self, attention):
        super().__init__()
        self.embed, self.attention, self.head = nn.Linear(9, 12), attention, nn.Linear(12, 10)

    def forward(self, x):
        x = self.embed(x)
        return self.head((x + self.attention(x)).mean(1))


def attention(groups, frozen=None, reason=None):
    """Register a module as the attention of a model, see `case`."""

    def register(module):
        build = type(module.__name__, (Model,), {"__init__": lambda self: Model.__init__(self, module())})
        case(groups, ENDS | (frozen or {}), ((2, 5, 9),), reason)(build)
        return module

    return register


class Fused(nn.Module):
    """Queries, keys and values are made by one layer; the module holds the number of heads and their width."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim, self.scale = HEADS, WIDTH, WIDTH**-0.5
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def split(self, x):
        """Queries, keys and values `(B, heads, N, width)`."""
        B, N, _ = x.shape
        return self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x):
        return self.proj(self.mix(*self.split(x)).transpose(1, 2).flatten(2))


def heads(width=HEADS, name="qkv", **more):
    """Groups of the channels of the tokens and of whole heads."""
    return {"embed": (12, 1), f"attention.{name}": (width, 1)} | more


@attention(heads())
class Scaled(Fused):
    """As in timm, with the width of all heads as an attribute as well."""

    def __init__(self):
        super().__init__()
        self.attn_dim = HEADS * WIDTH

    def forward(self, x):
        B, N, _ = x.shape
        x = F.scaled_dot_product_attention(*self.split(x))
        return self.proj(x.transpose(1, 2).reshape(B, N, self.attn_dim))


@attention(heads())
class ByHand(Fused):
    """Matrix products, a scale that the module holds, and a mask."""

    def mix(self, q, k, v):
        scores = q * self.scale @ k.transpose(-2, -1)
        places = torch.arange(5)
        scores = scores.masked_fill(places[:, None] < places, -torch.inf)
        return scores.softmax(dim=-1) @ v


@attention(heads())
class ByEinsum(Fused):
    """Einstein sums, with tokens before heads."""

    def forward(self, x):
        q, k, v = (item.transpose(1, 2) for item in self.split(x))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).mul(self.scale).softmax(-1)
        return self.proj(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))


@attention(heads(name="q"))
class ThreeLayers(nn.Module):
    """A layer each, and sizes that follow from the tensors."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (-1, WIDTH)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


@attention(heads())
class Chunked(Fused):
    """The fused layer is cut first; examples and heads are one dimension."""

    def forward(self, x):
        B, N, _ = x.shape
        q, k, v = (
            part.view(B, N, self.num_heads, self.head_dim).transpose(1, 2).reshape(B * self.num_heads, N, self.head_dim)
            for part in self.qkv(x).chunk(3, -1)
        )
        mixed = torch.bmm(torch.baddbmm(q.new_zeros(1), q, k.transpose(1, 2), beta=0).softmax(-1), v)
        return self.proj(mixed.view(B, self.num_heads, N, self.head_dim).transpose(1, 2).reshape(B, N, -1))


@attention(heads())
class HeadsFirst(Fused):
    """Each head has its queries, keys and values side by side."""

    def split(self, x):
        B, N, _ = x.shape
        return self.qkv(x).view(B, N, self.num_heads, 3, self.head_dim).permute(3, 0, 2, 1, 4)

    mix = staticmethod(F.scaled_dot_product_attention)


@attention(heads())
class PositionBias(Fused):
    """A table of biases by relative position has a column for each head."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, HEADS))
        self.register_buffer("places", torch.arange(5)[:, None] - torch.arange(5) + 4)

    def mix(self, q, k, v):
        bias = self.table[self.places.view(-1)].view(5, 5, -1).permute(2, 0, 1)
        return ((q @ k.transpose(-2, -1)) * self.scale + bias).softmax(-1) @ v


@attention(heads())
class MaskedByBias(PositionBias):
    """The same bias as a mask of `scaled_dot_product_attention`."""

    def mix(self, q, k, v):
        bias = self.table[self.places.view(-1)].view(5, 5, -1).permute(2, 0, 1).unsqueeze(0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


@attention(heads())
class NormedHeads(Fused):
    """Queries and keys are normalised within each head, whose width must therefore stay."""

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH)

    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)


@attention(heads())
class CosineAttention(Fused):
    """Cosines, with a temperature for each head."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1))

    def mix(self, q, k, v):
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return (cosines * self.temperature.clamp(max=4).exp()).softmax(-1) @ v


@attention(heads())
class Rotary(Fused):
    """Rotary positions: pairs of channels of a head turn by constant angles."""

    def mix(self, q, k, v):
        angles = torch.arange(5)[:, None] * 10.0 ** -torch.arange(WIDTH)
        q, k = (item * angles.cos() + item.roll(1, -1) * angles.sin() for item in (q, k))
        return F.scaled_dot_product_attention(q, k, v)


@attention(heads())
class RotaryOfABuffer(Fused):
    """As in Llama: the angles of half of the channels are a buffer, and both halves turn together."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", 10.0 ** -torch.arange(WIDTH // 2))

    def mix(self, q, k, v):
        angles = torch.arange(5)[:, None] * self.frequencies
        angles = torch.cat([angles, angles], -1)
        q, k = (item * angles.cos() + self.turned(item) * angles.sin() for item in (q, k))
        return F.scaled_dot_product_attention(q, k, v)

    def turned(self, x):
        return torch.cat([-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]], -1)


@attention(heads())
class RotaryOfAllChannels(RotaryOfABuffer):
    """Of all channels turn the first ones and are left the others, of which there are none."""

    def turned(self, x):
        return super().turned(torch.cat([x[..., :WIDTH], x[..., WIDTH:]], -1))


class Matrix(nn.Module):
    """A linear layer by hand, as in GPT-2: its weight is transposed, and tokens are examples."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.outputs, self.bias = outputs, nn.Parameter(torch.zeros(outputs))
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)

    def forward(self, x):
        shape = (*x.size()[:-1], self.outputs)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(shape)


@attention(heads())
class OfMatrices(Fused):
    """The output projection gets all heads in one dimension, of which its code reads the size."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = Matrix(12, 36), Matrix(12, 12)

    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


@attention(heads())
class BiasOfALayer(Fused):
    """A module makes the bias of each head, which is a mask of `scaled_dot_product_attention`."""

    def __init__(self):
        super().__init__()
        self.bias, self.all_width = nn.Linear(2, HEADS), HEADS * WIDTH

    def mix(self, q, k, v):
        steps = torch.arange(5, device=q.device)
        far = torch.stack(torch.broadcast_tensors(steps, steps[:, None]), -1).to(q)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias(far).permute(2, 0, 1).unsqueeze(0))

    def forward(self, x):
        x = self.mix(*self.split(x)).transpose(1, 2)
        return self.proj(x.reshape(*x.shape[:2], self.all_width))


@attention(heads())
class BiasWhereValid(Fused):
    """Scores are a number where a mask is false, and factors have the names that are not used in PyTorch."""

    def mix(self, q, k, v):
        scores = torch.multiply(q @ k.transpose(-2, -1), self.scale)
        valid = torch.ones(5, 5, dtype=torch.bool, device=q.device).tril()
        return torch.where(valid, scores, -1e9).softmax(-1) @ v


@attention(heads())
class LinearAttention(Fused):
    """Keys and values are multiplied first: their widths are both in the product."""

    def mix(self, q, k, v):
        return q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)


@attention(heads())
class PaddedValues(Fused):
    """Linear attention that is divided by its sums: a column of ones, which each head has, makes them."""

    def mix(self, q, k, v):
        mixed = q.relu() @ (k.relu().transpose(-2, -1) @ F.pad(v, (0, 1), value=1.0))
        return mixed[..., :-1] / (mixed[..., -1:] + 1e-3)


@attention(heads())
class SeveralScales(PaddedValues):
    """As in EfficientViT: a grouped convolution makes further heads, each from one of the others."""

    def __init__(self):
        super().__init__()
        self.near = nn.Conv1d(36, 36, 3, padding=1, groups=36)
        self.mixed, self.proj = nn.Conv1d(36, 36, 1, groups=3 * HEADS), nn.Linear(24, 12)

    def split(self, x):
        x = self.qkv(x).transpose(1, 2)
        x = torch.cat([x, self.mixed(self.near(x))], 1)
        return x.reshape(len(x), -1, 3 * self.head_dim, x.shape[-1]).transpose(-2, -1).chunk(3, -1)


@attention(heads())
class CrossCovariance(Fused):
    """Channels of a head attend to each other."""

    def mix(self, q, k, v):
        q, k, v = (item.transpose(-2, -1) for item in (q, k, v))
        return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(-2, -1)


@attention(heads())
class Convolutional(Fused):
    """A convolution makes the heads, and positions come last."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Conv1d(12, 36, 1)

    def forward(self, x):
        B, N, _ = x.shape
        q, k, v = self.qkv(x.transpose(1, 2)).view(B, 3, self.num_heads, self.head_dim, N).unbind(1)
        mixed = v @ (q.transpose(-2, -1) @ k * self.scale).softmax(-1).transpose(-2, -1)
        return self.proj(mixed.flatten(1, 2).transpose(1, 2))


class Grouped(nn.Module):
    """Grouped-query attention: two queries share a head of keys and values."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = 6, 3, WIDTH
        self.q, self.k, self.v, self.out = nn.Linear(12, 24), nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(24, 12)

    def forward(self, x):
        B, N, _ = x.shape
        q = self.q(x).view(B, N, self.num_heads, self.head_dim).transpose(1, 2)
        k, v = (layer(x).view(B, N, self.num_kv_heads, self.head_dim).transpose(1, 2) for layer in (self.k, self.v))
        return self.out(self.mix(q, k, v).transpose(1, 2).reshape(B, N, -1))


@attention(heads(name="q"))
class GroupedByOption(Grouped):
    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@attention(heads(name="q"))
class GroupedByRepetition(Grouped):
    def mix(self, q, k, v):
        k, v = (item.repeat_interleave(2, 1) for item in (k, v))
        return (q @ k.transpose(-2, -1) / WIDTH**0.5).softmax(-1) @ v


@attention(heads(name="q"))
class GroupedByExpansion(Grouped):
    """The way of many language models."""

    def repeat(self, x):
        batch, number, length, width = x.shape
        x = x[:, :, None].expand(batch, number, 2, length, width)
        return x.reshape(batch, number * 2, length, width)

    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(q, self.repeat(k), self.repeat(v))


@attention(heads(2, "q"))
class PairsOfQueries(Grouped):
    """As many queries share a head of keys as there are such heads; the attribute of the one number stays."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.shared, self.head_dim = 4, 2, 3
        self.k, self.v, self.q, self.out = *(nn.Linear(12, 6) for _ in range(2)), nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, self.repeat(k), self.repeat(v)).transpose(1, 2).flatten(2))

    def repeat(self, x):
        batch, number, length, width = x.shape
        x = x[:, :, None].expand(batch, number, self.shared, length, width)
        return x.reshape(batch, number * self.shared, length, width)


@attention(heads(name="q"))
class GroupedByBroadcast(Grouped):
    """Heads of queries are split into groups."""

    def mix(self, q, k, v):
        q = q.unflatten(1, (self.num_kv_heads, 2))
        return ((q @ k[:, :, None].transpose(-2, -1)).softmax(-1) @ v[:, :, None]).flatten(1, 2)


SHARED = {"attention.k": WIDTH, "attention.v": WIDTH}


@attention(heads(6, "q"), SHARED, dict.fromkeys(SHARED, "is shared by all heads"))
class OneKey(Grouped):
    """All queries share keys and values, which stay: whole heads of queries go."""

    def __init__(self):
        super().__init__()
        self.num_kv_heads = 1
        self.k, self.v = nn.Linear(12, WIDTH), nn.Linear(12, WIDTH)

    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@attention(heads(6, "q"), SHARED, dict.fromkeys(SHARED, "is shared by all heads"))
class OneKeyByExpansion(OneKey):
    """The way of many language models: keys and values are repeated as often as there are queries."""

    def __init__(self):
        super().__init__()
        self.groups = self.num_heads

    def repeat(self, x):
        batch, number, length, width = x.shape
        x = x[:, :, None].expand(batch, number, self.groups, length, width)
        return x.reshape(batch, number * self.groups, length, width)

    def mix(self, q, k, v):
        return (q @ self.repeat(k).transpose(2, 3) * WIDTH**-0.5).softmax(-1) @ self.repeat(v)


@attention(heads(4, "q", **{"attention.v": (4, 1)}), {"attention.q": 6}, {"attention.q": "view(1, 5, 6, -1)"})
class WidthOfOneKey(OneKey):
    """The number of heads is a constant: channels of all heads go together with those of the shared keys."""

    def forward(self, x):
        q = self.q(x).view(*x.shape[:2], 6, -1).transpose(1, 2)
        k, v = (layer(x)[:, None] for layer in (self.k, self.v))
        return self.out(self.mix(q, k, v).transpose(1, 2).flatten(2))


@attention(heads(name="attention"))
class Builtin(nn.Module):
    """PyTorch's own layer."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, HEADS, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@attention(heads(name="attention", **{"attention.keys": (7, 1)}))
class BuiltinWithWeights(nn.Module):
    """PyTorch's own layer, which computes its weights explicitly; keys and values have sizes of their own."""

    def __init__(self):
        super().__init__()
        self.keys, self.attention = nn.Linear(12, 7), nn.MultiheadAttention(12, HEADS, kdim=7, vdim=12, bias=False)

    def forward(self, x):
        x = x.transpose(0, 1)
        return self.attention(x, self.keys(x), x)[0].transpose(0, 1)


@attention(heads(name="attention"))
class BuiltinAcross(nn.Module):
    """Queries are others than keys and values: PyTorch's layer cuts its weight into parts."""

    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(12), nn.MultiheadAttention(12, HEADS, batch_first=True)

    def forward(self, x):
        memory = self.norm(x)
        return self.attention(x, memory, memory)[0]


@attention(
    {"embed": (12, 1)}
    | {
        f"attention.layers.layers.{i}.{name}": (width, 1)
        for i in (0, 1)
        for name, width in (("self_attn", 3), ("linear1", 7))
    }
)
class Encoder(nn.Module):
    """Layers of PyTorch's transformer."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, HEADS, 7, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.layers(x)


@attention(
    {"embed": (12, 1), "attention.qkv": (4, 6)}, {"attention.qkv": 3}, {"attention.qkv": "reshape(1, 5, 3, 3, -1)"}
)
class ConstantHeads(Fused):
    """The number of heads is a constant in the code: their width is pruned, and the scale follows it."""

    def split(self, x):
        B, N, _ = x.shape
        return self.qkv(x).reshape(B, N, 3, 3, -1).permute(2, 0, 3, 1, 4)

    mix = staticmethod(F.scaled_dot_product_attention)


@attention({"embed": (12, 1), "attention.q": (5, 3), "attention.v": (4, 3)}, {"attention.q": 3})
class ScaledByWidth(Fused):
    """The same by hand; queries and keys have another width than values."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, size) for size in (15, 15, 12))
        del self.qkv

    def split(self, x):
        return (layer(x).unflatten(-1, (3, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))

    def mix(self, q, k, v):
        return (q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))).softmax(-1) @ v


class HeadsByName(nn.Module):
    """Takes tokens apart into heads, without a layer of its own; it holds their number as layers of einops do."""

    def __init__(self):
        super().__init__()
        self.lengths = (("heads", HEADS),)

    def number(self):
        return dict(self.lengths)["heads"]

    def forward(self, x):
        number = self.number()
        if x.shape[-1] % (3 * number):
            raise ValueError("heads do not divide the channels")
        return x.reshape(*x.shape[:2], 3, number, x.shape[-1] // (3 * number)).permute(2, 0, 3, 1, 4)


class HeadsByText(HeadsByName):
    """It holds their number in a text, which stays as it is."""

    def number(self):
        return int(f"heads={HEADS}".partition("=")[2])


@attention(heads())
class TakenApartByAModule(Fused):
    """The layer that makes the heads is not in the module that takes them apart, which holds their number."""

    apart_by = HeadsByName

    def __init__(self):
        super().__init__()
        self.apart = self.apart_by()

    def split(self, x):
        return self.apart(self.qkv(x)).unbind(0)

    mix = staticmethod(F.scaled_dot_product_attention)


@attention({"embed": (12, 1), "attention.qkv": (4, 6)}, {"attention.qkv": 3})
class TakenApartByAText(TakenApartByAModule):
    """The number of heads stays, and their channels go."""

    apart_by = HeadsByText


@attention({"embed": (4, 9)}, {"attention.qkv": 3})
class WidthOfTheInput(Fused):
    """The width of a head is computed from the input's, which is pruned together with it."""

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        mixed = ((q * (C // self.num_heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(B, N, C))


@attention({"embed": (4, 9)}, {"attention.qkv": 3})
class SplitByTheInput(Fused):
    """Queries, keys and values are parts as wide as the input."""

    def width(self, channels):
        return channels

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.qkv(x).split(self.width(C), dim=2)
        k = k.view(B, T, self.num_heads, C // self.num_heads).transpose(1, 2)
        q = q.view(B, T, self.num_heads, C // self.num_heads).transpose(1, 2)
        v = v.view(B, T, self.num_heads, C // self.num_heads).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).contiguous().view(B, T, C))


@attention({"embed": (4, 9)}, {"attention.qkv": 3})
class SplitByTheModule(SplitByTheInput):
    """The module holds their width; nanoGPT."""

    def __init__(self):
        super().__init__()
        self.n_embd = 12

    def width(self, channels):
        return self.n_embd


@attention({"embed": (4, 7)}, {"attention.qkv": 3})
class NormsWithinHeadsOfTheInput(WidthOfTheInput):
    """Queries and keys are normalised within each head: all heads keep the channels that the norms keep."""

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH, elementwise_affine=False)

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.split(x)
        mixed = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(mixed.transpose(1, 2).reshape(B, N, C))


@attention({"embed": (4, 9)}, {"attention.qkv": 3})
class ChannelsOfTheInput(WidthOfTheInput):
    """Channels of a head attend to each other: a softmax over those that are kept."""

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 4, 1)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ v).permute(0, 3, 1, 2).reshape(B, N, C))


@attention({"embed": (4, 9), "attention.positions.0": (7, 1)}, {"attention.positions.2": 3})
class CosinesOfTheInput(WidthOfTheInput):
    """Keys have no bias, heads have a temperature each, and a small network makes the biases of positions."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, HEADS, bias=False))
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1))
        self.register_buffer("places", torch.rand(5, 5, 2))

    def forward(self, x):
        B, N, C = x.shape
        bias = self.qkv.bias.clone()
        length = bias.numel() // 3
        bias[length : 2 * length].zero_()
        qkv = F.linear(x, self.qkv.weight, bias).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature.exp()
        weights = (cosines + self.positions(self.places).permute(2, 0, 1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, N, C))


@attention({"embed": (4, 9)}, {"attention.qkv": 3, "attention.talk": 3})
class TalkingHeadsOfTheInput(WidthOfTheInput):
    """A linear layer mixes the weights: queries and keys have other heads than values, in one call of `reshape`."""

    def __init__(self):
        super().__init__()
        self.talk = nn.Linear(HEADS, HEADS)

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        weights = self.talk((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, N, C))


@attention({"embed": (4, 6)}, {"attention.look": 3})
class Outlook(nn.Module):
    """Tokens make the weights of their neighbours, without keys; neighbours are unfolded, and folded again."""

    def __init__(self):
        super().__init__()
        self.num_heads = HEADS
        self.values, self.look, self.proj = nn.Linear(12, 12), nn.Linear(12, 9 * HEADS), nn.Linear(12, 12)

    def forward(self, x):
        B, N, C = x.shape
        near = F.unfold(self.values(x).transpose(1, 2).unsqueeze(2), (1, 3), padding=(0, 1))
        near = near.reshape(B, self.num_heads, C // self.num_heads, 3, N).permute(0, 1, 4, 3, 2)
        weights = self.look(x).reshape(B, N, self.num_heads, 3, 3).permute(0, 2, 1, 3, 4).softmax(-1)
        mixed = (weights @ near).permute(0, 1, 4, 3, 2).reshape(B, C * 3, N)
        return self.proj(F.fold(mixed, (1, N), (1, 3), padding=(0, 1)).squeeze(2).transpose(1, 2))


@attention({"embed": (4, 9)}, {"attention.inner.qkv": 3})
class ClassToken(nn.Module):
    """Positions are added before a token is prepended; a table of distances is written column by column."""

    def __init__(self):
        super().__init__()
        self.places, self.token = nn.Parameter(torch.randn(1, 5, 12)), nn.Parameter(torch.randn(1, 1, 12))
        self.inner = WidthOfTheInput()

    def forward(self, x):
        x = torch.cat((self.token.expand(len(x), -1, -1), x + self.places), 1)
        table = torch.zeros(1, x.shape[1], 2)
        table[:, :, 0], table[:, :, 1] = torch.arange(x.shape[1]), 1.0
        return self.inner(x)[:, 1:] + table.sum()


class Windows(nn.Module):
    """A depthwise convolution of the values for some of the heads, and another one for the others."""

    def __init__(self, splits):
        super().__init__()
        self.splits = [WIDTH * number for number in splits]
        self.taps = nn.ModuleList(nn.Conv1d(n, n, 3, padding=1, groups=n) for n in self.splits)

    def forward(self, q, v):
        B, heads, N, C = q.shape
        parts = v.transpose(-2, -1).reshape(B, heads * C, N).split(self.splits, 1)
        mixed = torch.cat([layer(part) for layer, part in zip(self.taps, parts, strict=True)], 1)
        return q * mixed.reshape(B, heads, C, N).transpose(-2, -1)


@attention({"embed": (4, 6)}, {"attention.qkv": 3})
class InAPartOfTheModule(WidthOfTheInput):
    """The sizes of another module's calls follow from those of its inputs, which are split into heads already."""

    def __init__(self):
        super().__init__()
        self.windows = Windows([1, 2])

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        mixed = self.windows(q, q @ (k.softmax(2).transpose(-2, -1) @ v))
        return self.proj(mixed.transpose(1, 2).reshape(B, N, C))


@attention({"embed": (12, 1)}, {"attention.qkv": 24}, {"attention.qkv": "reshape(1, 5, 3, 3, 4)"})
class ConstantSizes(Fused):
    """Both sizes are constants in the code."""

    def split(self, x):
        return self.qkv(x).reshape(*x.shape[:2], 3, 3, 4).permute(2, 0, 3, 1, 4)

    mix = staticmethod(F.scaled_dot_product_attention)


@attention({"embed": (12, 1), "attention.qkv": (3, 2)})
class TalkingHeads(Fused):
    """A linear layer over the heads mixes their weights."""

    def __init__(self):
        super().__init__()
        self.talk = nn.Linear(HEADS, HEADS)

    def mix(self, q, k, v):
        scores = (q @ k.transpose(-2, -1)) * self.scale
        return self.talk(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1) @ v
