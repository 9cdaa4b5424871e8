"""Multi-head attention whose heads together may be narrower than the embedding.

`nn.MultiheadAttention` computes the width of a head from that of the embedding, so its heads cannot be removed. In a
pruned network this subclass takes its place: the same parameters under the same names, and the same arguments.

In evaluation mode, `nn.TransformerEncoder` and its layers do not call their parts but give the weights to a fused
kernel, which knows dense layers only; see `unfuse`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiheadAttention(nn.MultiheadAttention):
    """Multi-head attention with any number of heads of any width, see `nn.MultiheadAttention` for the arguments.

    The weights are `in_proj_weight (3 * heads * width, E)`, or `q_proj_weight (heads * width, E)` and those of keys and
    values, and `out_proj.weight (E, heads * width)`; `num_heads` is the number of heads.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from queries `(B, L, E)` to keys and values `(B, S, .)`; without batch, or batch second, as dense."""
        single = query.dim() == 2
        if single:
            query, key, value = (item.unsqueeze(0) for item in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (item.transpose(0, 1) for item in (query, key, value))
        split = self.num_heads, self.head_dim
        q, k, v = (item.unflatten(-1, split).transpose(1, 2) for item in self._projected(query, key, value))
        mask = _additive(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, dropout)
            heads = weights @ v
            if average_attn_weights:
                weights = weights.mean(1) if self.num_heads else weights.sum(1)
        elif self.num_heads:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        else:  # before PyTorch 2.13, attention without heads ends the process
            heads = torch.zeros_like(q)
        out = self.out_proj(heads.transpose(1, 2).flatten(2))
        if single:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of all heads `(B, ., heads * width)`."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if weight is not None and query is key and key is value:
            return F.linear(query, weight, bias).chunk(3, -1)
        named = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = named if weight is None else weight.chunk(3)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return tuple(F.linear(*item) for item in zip((query, key, value), weights, biases, strict=True))


def _additive(mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """Return masks as a sum that broadcasts to `(B, heads, L, S)`, or None."""
    if mask is not None and mask.dim() == 3:
        mask = mask.unflatten(0, (-1, q.shape[1]))
    both = [mask] if mask is not None else []
    both += [padding[:, None, None]] if padding is not None else []
    sums = [
        torch.zeros_like(item, dtype=q.dtype).masked_fill(item, float("-inf")) if item.dtype == torch.bool else item
        for item in both
    ]
    return sum(sums[1:], sums[0]) if sums else None


def is_replaced(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether a module is multi-head attention that a pruned network computes by `MultiheadAttention`."""
    if type(module) not in (nn.MultiheadAttention, MultiheadAttention):
        return False
    assert isinstance(module, nn.MultiheadAttention)
    return module.bias_k is None and not module.add_zero_attn


def fit_attention(module: nn.MultiheadAttention) -> None:
    """Set the sizes of pruned multi-head attention from its weights and its number of heads, in place.

    Its class becomes `MultiheadAttention` if `nn.MultiheadAttention` does not compute these sizes.
    """
    packed, out = module.in_proj_weight, module.out_proj.weight
    weights = [packed] * 3 if packed is not None else [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    sizes = [weight.shape[1] for weight in weights]
    inner = out.shape[1]
    module.embed_dim, module.kdim, module.vdim = sizes
    if module.num_heads:
        module.head_dim = inner // module.num_heads
    if not inner == module.embed_dim == len(out):
        module.__class__ = MultiheadAttention


FUSED: dict[type[nn.Module], tuple[str, int]] = {
    nn.TransformerEncoderLayer: ("activation_relu_or_gelu", 0),
    nn.TransformerEncoder: ("use_nested_tensor", False),
}
"""Module with a fused kernel -> attribute, and the value with which it calls its parts instead."""


def unfuse(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Let the modules of `FUSED` that have parts of the given kinds call these, in place."""
    for module in network.modules():
        for kind, (attribute, value) in FUSED.items():
            if isinstance(module, kind) and any(isinstance(part, kinds) for part in module.modules()):
                setattr(module, attribute, value)


@contextmanager
def unfused() -> Iterator[None]:
    """Let all modules of `FUSED` call their parts, on all devices the same."""
    former = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(former)
