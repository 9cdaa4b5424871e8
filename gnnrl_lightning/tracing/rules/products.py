"""Products of two tensors: matrix products, Einstein sums, scaled dot-product attention; see `tracing.product`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from gnnrl_lightning.tracing.labels import Value, support
from gnnrl_lightning.tracing.product import UNLIKE, Product, may_meet
from gnnrl_lightning.tracing.records import Contraction
from gnnrl_lightning.tracing.rules.elementwise import combined, merge, produce_outer
from gnnrl_lightning.tracing.walk import Walk, rule


def _letters(ndim: int, last: str) -> str:
    """Return letters of the dimensions of a tensor: batch dimensions, counted from the right, and the last ones."""
    return "".join(chr(ord("A") + i) for i in reversed(range(ndim - len(last)))) + last


@rule("matmul", "mm", "bmm", kind="linear")
def matmul(walk: Walk, a: Value, b: Value) -> Value:
    """Matrix product: the last dimension of `a` with the second-to-last of `b`; heads are batch dimensions."""
    number = walk.call_number()
    if len(a.shape) < 2 or len(b.shape) < 2:
        walk.freeze(a, "is part of a product with a vector")
        walk.freeze(b, "is part of a product with a vector")
        walk.contract(())
        return Value(walk.shape)
    letters = _letters(len(a.shape), "mk"), _letters(len(b.shape), "kn")
    result, sources = _letters(len(walk.shape), "mn"), _arguments(walk)[-2:]
    values = _without_positions(walk, sources, (a, b), letters, result)
    product = Product(walk, values, letters, result, number)
    labels = product.labels()
    product.keep_made()
    _produce(walk, sources, values, letters, result)
    _note_scores(walk, sources, product)
    reads = product.reads if product.reads is None else product.reads.flatten()
    walk.contract(tuple(product.sizes), reads=reads)
    return Value(walk.shape, labels)


def _arguments(walk: Walk) -> tuple[Any, ...]:
    """The arguments of the current operator in the graph."""
    assert walk.node is not None
    return walk.node.args


def _without_positions(
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


def _note_scores(walk: Walk, sources: Sequence[Any], product: Product) -> None:
    """Record the channels by which a product compares two feature maps: the code may scale it by their number."""
    if product.reads is not None and not any(source in walk.derived for source in sources):
        assert walk.node is not None
        walk.scores[walk.node] = product.reads


def _produce(walk: Walk, sources: Sequence[Any], values: Sequence[Value], letters: Sequence[str], result: str) -> None:
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


@rule("einsum", kind="linear")
def einsum(walk: Walk, equation: str, operands: list[Value], *_: Any, **__: Any) -> Value:
    """Einstein summation, by its subscripts: those left out on the right are contracted, or summed in a single tensor.

    Of any number of tensors that contract nothing, it is an elementwise product; three tensors that contract something,
    and diagonals, are frozen.
    """
    left, right = _spelled(equation.replace(" ", ""), [len(operand.shape) for operand in operands])
    subscripts, number = left.split(","), walk.call_number()
    plain = all(len({*letters}) == len(letters) for letters in subscripts)
    if plain and len(operands) > 1 and {*left} - {","} == {*right} and not walk.macs():
        return _elementwise(walk, operands, subscripts, right)
    if len(operands) > 2 or not plain:
        for operand in operands:
            walk.freeze(operand, "is part of an einsum of three tensors or with a diagonal")
        walk.contract(())
        return Value(walk.shape)
    if len(operands) == 1:
        return _one_operand(walk, operands[0], left, right)
    operands = [_halves(walk, value, letters, left, right) for value, letters in zip(operands, subscripts, strict=True)]
    operands = _without_positions(walk, _arguments(walk)[1], operands, subscripts, right)
    product = Product(walk, operands, subscripts, right, number, masked=False)
    labels = product.labels()
    product.keep_made()
    _note_scores(walk, _arguments(walk)[1], product)
    _produce(walk, _arguments(walk)[1], operands, subscripts, right)
    walk.contract(tuple(product.sizes) if walk.macs() else ())
    return Value(walk.shape, labels)


def _spelled(equation: str, dims: Sequence[int]) -> tuple[str, str]:
    """The subscripts of operands and result, with letters in place of ellipses and of a result that is not given.

    Args:
        equation: The equation, without spaces.
        dims: Number of dimensions of each operand.
    """
    left, arrow, right = equation.partition("->")
    free = [letter for letter in map(chr, range(ord("A"), ord("Z") + 1)) if letter not in equation]
    named = left.split(",")
    more = [ndim - len(letters.replace("...", "")) for ndim, letters in zip(dims, named, strict=True)]
    rest = "".join(free[: max(more)]) if "." in left else ""
    if not arrow:
        once = sorted(letter for letter in {*left} - {*",."} if left.count(letter) == 1)
        right = ("..." if rest else "") + "".join(once)
    spelled = [letters.replace("...", rest[len(rest) - n :]) for letters, n in zip(named, more, strict=True)]
    return ",".join(spelled), right.replace("...", rest)


def _elementwise(walk: Walk, operands: Sequence[Value], subscripts: Sequence[str], right: str) -> Value:
    """Einstein summation that contracts nothing: an elementwise product of tensors that are broadcast."""
    laid = []
    for value, letters in zip(operands, subscripts, strict=True):
        order = [letters.index(letter) for letter in right if letter in letters]
        gone = [place for place, letter in enumerate(right) if letter not in letters]
        sizes = [value.shape[letters.index(letter)] if letter in letters else 1 for letter in right]
        found = []
        for labels in value.labels:
            labels = labels.permute(order)
            for place in gone:
                labels = labels.unsqueeze(place)
            found.append(labels)
        laid.append(Value(tuple(sizes), tuple(found)))
    walk.contract(())
    produce_outer(walk, laid)
    return combined(walk, laid)


def _halves(walk: Walk, value: Value, letters: str, left: str, right: str) -> Value:
    """A tensor whose channels a view has split, of which one dimension alone passes: they go together along the others.

    The channels of a graph convolution are those of each of its matrices: `nkctv, kvw -> nctw`.
    """
    found = []
    for labels in value.labels:
        dims = support(labels)
        free = [dim for dim in dims if letters[dim] in right and left.count(letters[dim]) == 1]
        gone = [dim for dim in dims if letters[dim] not in right]
        found.append(walk.together(labels, gone) if len(free) == 1 and gone else labels)
    changed = any(labels is not before for labels, before in zip(found, value.labels, strict=True))
    return Value(value.shape, tuple(found)) if changed else value


def _one_operand(walk: Walk, value: Value, left: str, right: str) -> Value:
    """Einstein summation of one tensor: a permutation, and sums."""
    made = []
    for labels in value.labels:
        if any(left[dim] not in right for dim in support(labels)):
            walk.freeze(labels, "is summed over")
        elif support(labels):
            gone = [dim for dim, letter in enumerate(left) if letter not in right]
            kept = [letter for letter in left if letter in right]
            squeezed = labels.squeeze(gone) if gone else labels
            made.append(squeezed.permute([kept.index(letter) for letter in right]))
    walk.contract(())
    return Value(walk.shape, tuple(made))


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
    scores = Product(walk, (query, key), (f"{batch}md", f"{batch}nd"), f"{batch}mn", number, masked=False)
    shape = (*query.shape[:-1], key.shape[-2])
    laid = Value(shape, scores.labels())
    if mask is not None:
        laid = Value(shape, merge(walk, [laid, mask]))
    read = Product(walk, (laid, value), (f"{batch}mn", f"{batch}nv"), f"{batch}mv", number, masked=False, noted=False)
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
