"""Formulas of operators that summarise channels, over the channels that are kept; see `surgery.reference`.

Each has the arguments of the function of torch, with the kept positions after the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.tracing.records import CONVOLUTIONS

Shape = tuple[int, ...]

NUMPY = {"axis": "dim", "keepdims": "keepdim"}
"""Names of arguments in NumPy, which torch takes as well -> its own."""

Places = Mapping[int | Shape, Tensor]
"""Dimension -> positions along it that are kept; for several dimensions, the shape in which they broadcast."""


def _kept(x: Tensor, places: Places) -> Tensor:
    for dim, stays in places.items():
        assert isinstance(dim, int)
        x = x.index_select(dim, stays)
    return x


def _single(places: Places) -> tuple[int, Tensor]:
    """The only dimension and its positions."""
    ((dim, stays),) = places.items()
    assert isinstance(dim, int)
    return dim, stays


def _only(x: Tensor, places: Places) -> Tensor:
    """Zeros in place of what is not kept."""
    for where, stays in places.items():
        if isinstance(where, int):
            x = torch.zeros_like(x).index_copy(where, stays, x.index_select(where, stays))
        else:
            x = x * _mask(x, where, stays)
    return x


def _mask(x: Tensor, shape: Shape, stays: Tensor) -> Tensor:
    """Ones where a tensor is kept; heads in the same dimension as the examples are repeated for each example."""
    mask = x.new_zeros(math.prod(shape)).index_fill(0, stays, 1).reshape(shape)
    return mask.repeat([long // short if short > 1 else 1 for long, short in zip(x.shape, shape, strict=True)])


def _standardised(x: Tensor, places: Places, dims: tuple[int, ...], eps: float) -> Tensor:
    mean = _kept(x, places).mean(dims, keepdim=True)
    variance = (_kept(x, places) - mean).square().mean(dims, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def layer_norm(x: Tensor, places: Places, normalized_shape: Any, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    """Layer norm with the statistics of the kept positions."""
    y = _standardised(x, places, tuple(range(-len(normalized_shape), 0)), eps)
    return _scaled(y, weight, bias, tuple(normalized_shape))


def group_norm(x: Tensor, places: Places, num_groups: int, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
    """Group norm of a single group with the statistics of the kept positions."""
    y = _standardised(x, places, tuple(range(1, x.dim())), eps)
    return _scaled(y, weight, bias, (-1, *(1,) * (x.dim() - 2)))


def rms_norm(x: Tensor, places: Places, normalized_shape: Any, weight=None, eps: float | None = None) -> Tensor:
    """RMS norm with the mean square of the kept positions."""
    square = _kept(x, places).square().mean(tuple(range(-len(normalized_shape), 0)), keepdim=True)
    y = x / (square + (torch.finfo(x.dtype).eps if eps is None else eps)).sqrt()
    return _scaled(y, weight, None, tuple(normalized_shape))


def batch_norm(x: Tensor, places: Places, _, __, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5):
    """Standardised weights `(1, C_out, n)`: the statistics of the kept positions of each filter."""
    y = _standardised(x, places, (0, *range(2, x.dim())), eps)
    return _scaled(y, weight, bias, (-1, *(1,) * (x.dim() - 2)))


def weight_norm(direction: Tensor, places: Places, magnitude: Tensor, dim: int = 0) -> Tensor:
    """`g v / |v|` with the norms of the kept positions."""
    dims = tuple(d for d in range(direction.dim()) if d != dim)
    return direction * (magnitude / _kept(direction, places).square().sum(dims, keepdim=True).sqrt())


def product(a: Tensor, places: Places, b: Tensor, *rest: Any, operator: Callable[..., Tensor]) -> Tensor:
    """Product of a matrix or vector with a vector along the kept positions."""
    dim, stays = _single(places)
    return operator(a.index_select(dim, stays), b.index_select(0, stays), *rest)


def read(x: Tensor, places: Places, *rest: Any, operator: Callable[..., Tensor], **options: Any) -> Tensor:
    """A layer whose weight is computed from others: it reads zeros in place of removed channels."""
    return operator(_only(x, places), *rest, **options)


def attention(
    q: Tensor,
    places: Places,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *rest: Any,
    operator: Callable[..., Tensor],
    **options: Any,
) -> Tensor:
    """Attention: queries have zeros in place of removed channels, and are scaled by the width that is kept.

    Positions along the last dimension but one are those of keys, of which only the kept ones are there; or are not
    masked, where each head keeps others.
    """
    along = q.dim() - 2
    if (stays := places.get(along)) is not None:
        key, value = key.index_select(-2, stays), value.index_select(-2, stays)
        if attn_mask is not None and attn_mask.shape[-1] > 1:
            attn_mask = attn_mask.index_select(-1, stays)
    within = {where for where in places if isinstance(where, tuple) and where[-2] > 1}
    for shape in within:
        kept = _mask(q.new_empty(*q.shape[:-2], key.shape[-2], 1), shape, places[shape]).transpose(-2, -1) > 0
        attn_mask = _with_keys(attn_mask, kept | ~kept.any(-1, keepdim=True), q)  # of a head that is removed, all
    places = {where: stays for where, stays in places.items() if where != along and where not in within}
    if options.get("scale") is None:
        kept = _only(torch.ones_like(q[:1, ..., :1, :]), places).sum(-1).max()
        options["scale"] = max(float(kept), 1.0) ** -0.5  # without any, nothing is scaled
    return operator(_only(q, places), key, value, attn_mask, *rest, **options)


def _with_keys(mask: Tensor | None, kept: Tensor, q: Tensor) -> Tensor:
    """A mask of attention in which keys are left out as well, for the same queries and heads."""
    if mask is None or mask.dtype == torch.bool:
        return kept if mask is None else mask & kept
    return mask.to(q).masked_fill(~kept, -math.inf)


def einsum(equation: str, places: Places, *operands: Any, operator: Callable[..., Tensor]) -> Tensor:
    """Einstein summation: its tensors, whose dimensions are in a row, read zeros in place of removed channels."""
    given, read, first = operands[0] if isinstance(operands[0], (tuple, list)) else operands, [], 0
    for x in given:
        mine: dict[int | Shape, Tensor] = {}
        for where, stays in places.items():
            if isinstance(where, int):
                mine |= {where - first: stays} if first <= where < first + x.dim() else {}
            elif math.prod(shape := where[first : first + x.dim()]) > 1:
                mine[shape] = stays
        read.append(_only(x, mine))
        first += x.dim()
    return operator(equation, *read)


def addmm(bias: Tensor, places: Places, *factors: Tensor, operator: Callable[..., Tensor], **options: Any) -> Tensor:
    """`bias + first @ second`: the first factor reads zeros in place of removed channels."""
    named = (options.pop(name) for name in ("mat1", "batch1", "mat2", "batch2") if name in options)
    first, second = (*factors, *named)
    return operator(bias, _only(first, places), second, **options)


def convolution(x: Tensor, places: Places, *rest: Any, operator: Callable[..., Tensor], **options: Any) -> Tensor:
    """A convolution: it reads zeros in place of removed channels, or slides over those that are kept."""
    slides = all(isinstance(where, int) and where >= x.dim() - int(operator.__name__[-2]) for where in places)
    return (among_kept if slides else read)(x, places, *rest, operator=operator, **options)


def among_kept(x: Tensor, places: Places, *rest: Any, operator: Callable[..., Tensor], **options: Any) -> Tensor:
    """An operator on neighbouring channels: on the kept positions, with zeros at the others."""
    dim, stays = _single(places)
    found = operator(_kept(x, places), *rest, **options)
    shape = (*found.shape[:dim], x.shape[dim], *found.shape[dim + 1 :])
    return found.new_zeros(shape).index_copy(dim, stays, found)


def softmax(x: Tensor, places: Places, *rest: Any, operator: Callable[..., Tensor], **options: Any) -> Tensor:
    """Softmax or its logarithm over the kept positions, with zeros at the others."""
    stays = _only(torch.ones_like(x), places) > 0
    return operator(x.masked_fill(~stays, -math.inf), *rest, **options).where(stays, 0)


def normalize(x: Tensor, places: Places, p: float = 2.0, dim: int = 1, eps: float = 1e-12, **options: Any) -> Tensor:
    """`x / |x|` with the norms of the kept positions."""
    return x / norm(x, places, p, dim, operator=torch.norm, keepdim=True).clamp_min(eps)


def norm(x: Tensor, places: Places, *rest: Any, operator: Callable[..., Tensor], **options: Any) -> Tensor:
    """Norm of the kept positions; of heads, which keep different ones, with zeros at the others."""
    only = _kept if all(isinstance(where, int) for where in places) else _only
    return operator(only(x, places), *rest, **options)


def mean(x: Tensor, places: Places, *rest: Any, operator: Callable[..., Tensor], **options: Any) -> Tensor:
    """Mean or sum of the kept positions; of heads, which keep different ones, of those of each."""
    if all(isinstance(where, int) for where in places):
        return operator(_kept(x, places), *rest, **options)
    found = operator(_only(x, places), *rest, **options)
    if operator.__name__ == "sum":
        return found
    share = operator(_only(torch.ones_like(x), places), *rest, **options)
    return found / share.where(share > 0, 1)  # of a head that is removed, nothing is kept


def spread(x: Tensor, places: Places, *rest: Any, operator: Callable[..., Any], **options: Any) -> Any:
    """Variance or deviation of the kept positions, perhaps with the mean; of heads, of those of each.

    As `sum (x - m)^2 / (n - c)` with the mean m and the number n of what a head keeps.
    """
    if all(isinstance(where, int) for where in places):
        return operator(_kept(x, places), *rest, **options)
    given = {NUMPY.get(name, name): value for name, value in options.items()}
    names = dict(zip(("dim", "unbiased", "keepdim"), rest, strict=False)) | given
    dim, keep = names["dim"], names.get("keepdim", False)
    correction = names.get("correction", names.get("unbiased"))
    kept = _only(torch.ones_like(x), places)
    count = kept.sum(dim, keepdim=True)
    middle = _only(x, places).sum(dim, keepdim=True) / count.clamp(min=1)
    squares = ((x - middle).square() * kept).sum(dim, keepdim=True)
    found = squares / (count - (1.0 if correction is None else float(correction))).where(count > 0, 1)
    found = found.sqrt() if operator.__name__.startswith("std") else found
    both = [item if keep else item.squeeze(dim) for item in (found, middle)]
    return tuple(both) if operator.__name__.endswith("mean") else both[0]


def distance(x: Tensor, places: Places, other: Tensor, *rest: Any, operator: Callable[..., Tensor], **options: Any):
    """Distance, similarity or loss of two tensors along the kept positions."""
    return operator(_kept(x, places), _kept(other, places), *rest, **options)


def summary(x: Tensor, places: Places, *rest: Any, operator: Callable[..., Any], **options: Any) -> Any:
    """Any other operator: it is applied to the kept positions."""
    return operator(_kept(x, places), *rest, **options)


FORMULAS: dict[str, Callable[..., Any]] = {
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "rms_norm": rms_norm,
    "batch_norm": batch_norm,
    "_weight_norm": weight_norm,
    "normalize": normalize,
}
"""Operators that are computed by a formula of their own."""

KINDS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("mv", "dot", "vdot"), product),
    **dict.fromkeys(("linear", "matmul", "mm", "bmm", "tensordot"), read),
    **dict.fromkeys(CONVOLUTIONS, convolution),
    "local_response_norm": among_kept,
    **dict.fromkeys(("cosine_similarity", "pairwise_distance", "cdist"), distance),
    **dict.fromkeys(("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"), distance),
    **dict.fromkeys(("addmm", "baddbmm"), addmm),
    **dict.fromkeys(("norm", "linalg_vector_norm", "linalg_norm"), norm),
    **dict.fromkeys(("mean", "sum"), mean),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), spread),
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
}
"""Operators that are applied to changed operands; all others are summaries."""
