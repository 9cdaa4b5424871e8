"""Test networks whose attention has masks, in the ways in which code gives them."""

import torch
from torch import nn

from tests.support.networks_attention import HEADS, Fused, attention, heads

LENGTHS = torch.tensor([[False, False, False, True, True]])
"""Three of five tokens are there; of padding, the last two."""


def causal(length):
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def padding(x):
    return LENGTHS.to(x.device).expand(len(x), -1)


@attention(heads(name="attention"))
class BuiltinPadded(nn.Module):
    """PyTorch's own layer repeats masks of padding for each head."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, HEADS, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, key_padding_mask=padding(x), need_weights=False)[0]


@attention(heads(name="attention"))
class BuiltinPaddedWithWeights(BuiltinPadded):
    """Two masks: their sum is added to explicit scores."""

    def forward(self, x):
        return self.attention(x, x, x, key_padding_mask=padding(x), attn_mask=causal(x.shape[1]))[0]


@attention(heads(name="attention"))
class BuiltinMaskOfHeads(BuiltinPadded):
    """A mask for each head, repeated as often as the module that gives it says."""

    def __init__(self):
        super().__init__()
        self.heads = HEADS

    def forward(self, x):
        mask = causal(x.shape[1]).expand(len(x), -1, -1).repeat_interleave(self.heads, 0)
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


@attention({"embed": (12, 1)}, {"attention.attention": 24}, {"attention.attention": "combined with values"})
class BuiltinMasksOfTheirOwn(BuiltinPadded):
    """Heads have masks that differ: the code fixes their number."""

    def forward(self, x):
        masks = torch.stack([causal(5), torch.zeros(5, 5, dtype=torch.bool), causal(5)])
        return self.attention(x, x, x, attn_mask=masks.repeat(len(x), 1, 1), need_weights=False)[0]


PARTS = {"layers.0.self_attn": 4, "layers.0.linear1": 7}


@attention({"embed": (12, 1)} | {f"attention.layers.{name}": (width, 1) for name, width in PARTS.items()})
class EncoderPadded(nn.Module):
    """PyTorch's encoder with both masks."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 4, 7, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x):
        return self.layers(x, mask=causal(x.shape[1]), src_key_padding_mask=padding(x), is_causal=True)


DECODER = {"self_attn": 4, "multihead_attn": 4, "linear1": 7}


@attention(
    {"embed": (12, 1)}
    | {f"attention.whole.encoder.{name}": (width, 1) for name, width in PARTS.items()}
    | {f"attention.whole.decoder.layers.0.{name}": (width, 1) for name, width in DECODER.items()}
)
class WholeTransformer(nn.Module):
    """PyTorch's encoder and decoder, which compare the width of their inputs with one that they hold."""

    def __init__(self):
        super().__init__()
        self.whole = nn.Transformer(12, 4, 1, 1, 7, batch_first=True)

    def forward(self, x):
        return self.whole(x, x, tgt_mask=causal(x.shape[1]), tgt_is_causal=True, memory_key_padding_mask=padding(x))


class Masked(Fused):
    """Masks by hand, repeated in `repeated`."""

    def forward(self, x):
        q, k, v = self.split(x)
        scores = (q @ k.transpose(-2, -1)).masked_fill(self.repeated(padding(x)[:, None, None], q), -1e9)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@attention(heads())
class MaskOfAttribute(Masked):
    def repeated(self, mask, q):
        return mask.expand(-1, self.num_heads, q.shape[2], -1)


@attention(heads())
class MaskOfQueries(Masked):
    def repeated(self, mask, q):
        return mask.repeat(1, q.shape[1], 1, 1)


@attention(
    {"embed": (12, 1), "attention.qkv": (4, 6)},
    {"attention.qkv": 3},
    {"attention.qkv": "expand(-1, 3, -1, -1) has a size that the code fixes"},
)
class MaskOfAConstant(Masked):
    """The number of heads is a constant of the mask: their width is pruned."""

    def repeated(self, mask, q):
        return mask.expand(-1, 3, -1, -1)
