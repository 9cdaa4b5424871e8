"""Products of two tensors: matrix products and scaled dot-product attention; see `tracing.product`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

import torch

from gnnrl_lightning.tracing.labels import Value, support
from gnnrl_lightning.tracing.product import UNLIKE, Product, may_meet
from gnnrl_lightning.tracing.records import Contraction
from gnnrl_lightning.tracing.rules.elementwise import merge
from gnnrl_lightning.tracing.walk import Walk, rule


def _letters(ndim: int, last: str) -> str:
    """Return letters of the dimensions of a tensor: batch dimensions, counted from the right, and the last ones."""
    return "".join(chr(ord("A") + i) for i in reversed(range(ndim - len(last)))) + last


@rule("matmul", "mm", "bmm", kind="linear")
def matmul(walk: Walk, a: Value, b: Value) -> Value:
    """Matrix product: the last dimension of `a` with the second-to-last of `b`; heads are batch dimensions.

    A vector has the contracted dimension alone.
    """
    rows, columns = "m" * (len(a.shape) > 1), "n" * (len(b.shape) > 1)
    letters = _letters(len(a.shape), f"{rows}k"), _letters(len(b.shape), f"k{columns}")
    return _product(walk, arguments(walk)[-2:], a, b, letters, _letters(len(walk.shape), rows + columns))


@rule("tensordot", kind="linear")
def tensordot(walk: Walk, a: Value, b: Value, dims: Sequence[int], others: Sequence[int]) -> Value:
    """Product over the given dimensions of both tensors; all others stay, in order."""
    both = ascii_lowercase[: len(a.shape) + len(b.shape)]
    first, second = [*both[: len(a.shape)]], [*both[len(a.shape) :]]
    for one, other in zip(dims, others, strict=True):
        second[other] = first[one]
    result = "".join(name for name in (*first, *second) if name not in first or name not in second)
    return _product(walk, arguments(walk)[:2], a, b, ("".join(first), "".join(second)), result)


def _product(walk: Walk, sources: Sequence[Any], a: Value, b: Value, letters: tuple[str, str], result: str) -> Value:
    """Product of two tensors, whose dimensions letters name."""
    number = walk.call_number()
    values = without_positions(walk, sources, (a, b), letters, result)
    product = Product(walk, sources, values, letters, result, number)
    labels = product.labels()
    product.keep_made()
    produce(walk, sources, values, letters, result)
    note_scores(walk, sources, product)
    reads = product.reads if product.reads is None else product.reads.flatten()
    walk.contract(tuple(product.sizes), reads=reads)
    return Value(walk.shape, labels)


def arguments(walk: Walk) -> tuple[Any, ...]:
    """The arguments of the current operator in the graph."""
    assert walk.node is not None
    return walk.node.args


def without_positions(
    walk: Walk, sources: Sequence[Any], values: Sequence[Value], letters: Sequence[str], result: str
) -> list[Value]:
    """Parameters without labels along batch dimensions that are no channels of the other operand: of frequencies."""
    batch = [letter for letter in result if all(letter in mine for mine in letters)]
    fixed = {x for x in batch if not all(may_meet(value, mine, x) for value, mine in zip(values, letters, strict=True))}
    found = []
    for source, value, mine in zip(sources, values, letters, strict=True):
        gone = [labels for labels in value.labels if fixed & {mine[dim] for dim in support(labels)}]
        if gone and source in walk.derived and walk.node not in walk.derived:
            for labels in gone:
                walk.freeze(labels, UNLIKE)
            value = Value(value.shape, tuple(item for item in value.labels if not any(item is each for each in gone)))
        found.append(value)
    return found


def note_scores(walk: Walk, sources: Sequence[Any], product: Product) -> None:
    """Record the channels by which a product compares two feature maps: the code may scale it by their number."""
    if product.reads is not None and not any(source in walk.derived for source in sources):
        assert walk.node is not None
        walk.scores[walk.node] = product.reads


def produce(walk: Walk, sources: Sequence[Any], values: Sequence[Value], letters: Sequence[str], result: str) -> None:
    """Record the channels that operands which are parameters, or are computed from them, make of the other operand.

    A product of parameters alone makes none: it is a weight, which some other operator reads.
    """
    if walk.node in walk.derived:
        return
    for source, value, mine in zip(sources, values, letters, strict=True):
        for along in value.labels if walk.parameter_name(value) or source in walk.derived else ():
            each = len(along.unique()) == along.numel()  # not those of one of several dimensions that a view has joined
            if each and len(dims := support(along)) == 1 and mine[dims[0]] in result:
                walk.produce(along.flatten())


@rule("addmm", kind="linear")
def addmm(walk: Walk, bias: Value, a: Value, b: Value, *, beta=1, alpha=1) -> Value:
    """`bias + a @ b`."""
    product = matmul(walk, a, b)
    outputs = product.along(-1)
    along = bias.along(-1)
    if outputs is not None and along is not None:
        walk.join(outputs, along)
        walk.produce(outputs)
    else:
        walk.freeze(outputs, "has a bias that cannot be pruned")
        walk.freeze(along, "belongs to outputs that cannot be pruned")
    return product


@rule("baddbmm", kind="linear")
def baddbmm(walk: Walk, bias: Value, a: Value, b: Value, *, beta=1, alpha=1) -> Value:
    """`bias + a @ b`, such as masked scores of attention."""
    product = matmul(walk, a, b)
    return Value(walk.shape, merge(walk, [product, bias]))


@rule("scaled_dot_product_attention", kind="attention")
def attention(
    walk: Walk,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    enable_gqa: bool = False,
    **_: Any,
) -> Value:
    """`softmax(q k^T / sqrt(width)) v`: whole heads go, or channels of every head, of q and k and of v together."""
    number, ndim = walk.call_number(), len(query.shape)
    if enable_gqa:
        key, value = (_repeated(item, query.shape[-3] // item.shape[-3]) for item in (key, value))
    batch = _letters(ndim - 2, "")
    scores = Product(
        walk, arguments(walk)[:2], (query, key), (f"{batch}md", f"{batch}nd"), f"{batch}mn", number, masked=False
    )
    shape = (*query.shape[:-1], key.shape[-2])
    laid = Value(shape, scores.labels())
    if mask is not None:
        laid = Value(shape, merge(walk, [laid, mask]))
    read = Product(
        walk,
        (None, arguments(walk)[2]),
        (laid, value),
        (f"{batch}mn", f"{batch}nv"),
        f"{batch}mv",
        number,
        masked=False,
        noted=None,
    )
    labels = read.labels()
    if read.reads is not None:  # the softmax is over the keys that are kept
        keys = read.reads.squeeze(-2).transpose(-2, -1)  # as they lie in the keys of all heads
        walk.statistic(number, ndim - 2, keys.flatten() if support(keys) == (ndim - 2,) else keys)
    places = math.prod(query.shape[:-1]) * key.shape[-2]
    both = [(scores, places * query.shape[-1]), (read, places * value.shape[-1])]
    if sum(macs for _, macs in both) != walk.macs():
        raise ValueError(f"{sum(macs for _, macs in both)} MACs where {walk.macs()} are counted")
    assert walk.node is not None
    for product, macs in both:
        factor = macs // math.prod(len(size) for size in product.sizes)
        walk.contractions.append(Contraction(walk.node.name, None, factor, tuple(product.sizes)))
    return Value(walk.shape, labels)


def _repeated(value: Value, times: int) -> Value:
    """Each head of a tensor several times in a row, as grouped-query attention does; a single head is broadcast."""
    dim = len(value.shape) - 3
    if value.shape[dim] == 1:
        return value
    shape = tuple(size * times if d == dim else size for d, size in enumerate(value.shape))
    made = tuple(
        torch.repeat_interleave(labels, times, dim) if labels.shape[dim] > 1 else labels for labels in value.labels
    )
    return Value(shape, made)
