"""Multi-head attention of any width, with PyTorch's own as an oracle."""

import copy

import pytest
import torch
from torch import nn

from gnnrl_lightning.networks.attention import MultiheadAttention, fit_attention, is_replaced, unfuse, unfused

B, L, S, E, H = 2, 3, 4, 12, 3


def noise(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


PADDING = torch.tensor([[False, False, True, False], [False, True, False, False]])
CAUSAL = torch.ones(L, S, dtype=torch.bool).triu(1)

CALLS = {
    "plain": ({}, {}),
    "batch_first": ({"batch_first": True}, {}),
    "no weights": ({}, {"need_weights": False}),
    "weights of each head": ({}, {"average_attn_weights": False}),
    "no bias": ({"bias": False}, {}),
    "sizes of keys and values": ({"kdim": 5, "vdim": 7}, {}),
    "mask": ({}, {"attn_mask": CAUSAL}),
    "causal": ({}, {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}),
    "sum as mask": ({}, {"attn_mask": noise(L, S), "need_weights": False}),
    "mask for each head": ({}, {"attn_mask": noise(B * H, L, S)}),
    "padding": ({}, {"key_padding_mask": PADDING}),
    "both masks": ({}, {"key_padding_mask": PADDING, "attn_mask": CAUSAL, "need_weights": False}),
}


@pytest.mark.parametrize("name", CALLS)
def test_computes_what_pytorchs_own_does(name):
    made, given = CALLS[name]
    torch.manual_seed(0)
    dense = nn.MultiheadAttention(E, H, **made).double().eval()
    mine = copy.deepcopy(dense)
    mine.__class__ = MultiheadAttention
    query, key, value = noise(L, B, E), noise(S, B, dense.kdim), noise(S, B, dense.vdim)
    if made.get("batch_first"):
        query, key, value = (item.transpose(0, 1) for item in (query, key, value))
    for mine_, theirs in zip(mine(query, key, value, **given), dense(query, key, value, **given), strict=True):
        assert (mine_ is None) == (theirs is None)
        assert mine_ is None or torch.allclose(mine_, theirs, rtol=0, atol=1e-12)


def test_without_examples():
    dense = nn.MultiheadAttention(E, H).double().eval()
    mine = copy.deepcopy(dense)
    mine.__class__ = MultiheadAttention
    x = noise(L, E)
    for ours, theirs in zip(mine(x, x, x), dense(x, x, x), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def narrowed(heads, channels):
    """A layer with some of its heads, and some channels of its input and output."""
    layer = nn.MultiheadAttention(E, H)
    inner = heads * E // H
    layer.in_proj_weight = nn.Parameter(torch.randn(3 * inner, channels))
    layer.in_proj_bias = nn.Parameter(torch.randn(3 * inner))
    layer.out_proj.weight = nn.Parameter(torch.randn(channels, inner))
    layer.out_proj.bias = nn.Parameter(torch.randn(channels))
    layer.num_heads = heads
    fit_attention(layer)
    return layer


@pytest.mark.parametrize(
    ("heads", "channels", "kind"),
    [
        (2, 12, MultiheadAttention),
        (3, 10, MultiheadAttention),
        (2, 8, nn.MultiheadAttention),
        (3, 12, nn.MultiheadAttention),
    ],
)
def test_sizes_follow_the_weights_and_the_class_changes_only_where_it_must(heads, channels, kind):
    layer = narrowed(heads, channels)
    assert type(layer) is kind
    assert (layer.embed_dim, layer.kdim, layer.vdim, layer.head_dim) == (channels, channels, channels, 4)
    x = torch.randn(L, B, channels)
    assert layer(x, x, x)[0].shape == x.shape


def test_layers_with_more_than_heads_are_not_replaced():
    assert is_replaced(nn.MultiheadAttention(E, H)) and is_replaced(narrowed(2, 12))
    assert not is_replaced(nn.MultiheadAttention(E, H, add_bias_kv=True))
    assert not is_replaced(nn.MultiheadAttention(E, H, add_zero_attn=True))
    assert not is_replaced(nn.Linear(E, H))


@pytest.mark.parametrize("average", [True, False])
def test_without_heads_it_gives_its_bias(average):
    layer = narrowed(0, 12).eval()
    x = torch.randn(L, B, E)
    for options in ({"need_weights": False}, {"average_attn_weights": average}):
        outputs, weights = layer(x, x, x, **options)
        assert torch.equal(outputs, layer.out_proj.bias.expand(L, B, E))
        assert weights is None or (weights.shape == ((B, L, L) if average else (B, 0, L, L)) and not weights.any())


@pytest.mark.parametrize("padded", [False, True])
def test_pytorchs_encoder_calls_it_in_inference_too(padded):
    """Its fused kernel would read the weights as those of a standard layer, and padded examples as nested tensors."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, 4, 5, batch_first=True), 2).eval()
    encoder.layers[1].self_attn = narrowed(2, 12)
    encoder.layers[1].self_attn.batch_first = True
    unfuse(encoder, (MultiheadAttention,))
    assert [bool(layer.activation_relu_or_gelu) for layer in encoder.layers] == [True, False]
    encoder.eval()
    x, padding = torch.randn(B, L, E), torch.tensor([[False] * 3, [False, False, True]]) if padded else None
    kept = slice(None) if padding is None else ~padding
    with torch.no_grad():
        fast = encoder(x, src_key_padding_mask=padding)
    assert torch.allclose(fast[kept], encoder(x, src_key_padding_mask=padding)[kept], atol=1e-6)


def test_fused_kernels_are_off_for_a_while():
    with unfused():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled()
