"""Products of two tensors: matrix products, Einstein sums, scaled dot-product attention.

Both operands name their dimensions by letters, as in `einsum`: letters left out of the result are contracted, letters
of both operands that stay are batch dimensions, such as the heads of attention. Channels that lie along batch
dimensions and another one, `(head, channel)`, are those of heads: the result of a contraction has labels of the heads
themselves, see `Walk.heads_of`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.tracing.labels import Value, support
from gnnrl_lightning.tracing.records import Contraction
from gnnrl_lightning.tracing.rules.elementwise import merge
from gnnrl_lightning.tracing.walk import Walk, rule

UNLIKE = "is combined with values that cannot be pruned"


@dataclass
class _Product:
    """One product: its operands, the letters of their dimensions and of the result.

    Attributes:
        walk: The walk.
        values: The operands.
        letters: A letter for each dimension of each operand.
        result: The letters of the result.
        number: Number of the call, for the masked reference.
        masked: Whether labels of parameters that are contracted are those of a weight, which a mask sets to zero.
        sizes: Labels of all dimensions that cost, for a `Contraction`.
        heads: Labels of the batch dimensions that have any.
    """

    walk: Walk
    values: Sequence[Value]
    letters: Sequence[str]
    result: str
    number: int
    masked: bool = True
    sizes: list[Tensor] = field(default_factory=list)
    heads: list[Tensor] = field(default_factory=list)
    reads: Tensor | None = None

    def __post_init__(self) -> None:
        known = dict.fromkeys("".join(self.letters))
        contracted = [letter for letter in known if letter not in self.result]
        self.order = self.result + "".join(contracted)
        both = [letter for letter in self.result if all(letter in mine for mine in self.letters)]
        self.batch = {self.order.index(letter) for letter in both}
        self.contracted = {self.order.index(letter) for letter in contracted}
        self.tables = [
            [_spread(labels, mine, self.order) for labels in value.labels if support(labels)]
            for value, mine in zip(self.values, self.letters, strict=True)
        ]

    def labels(self) -> tuple[Tensor, ...]:
        """Return the labels of the result."""
        passing: list[Tensor] = []
        for place in sorted(self.contracted):
            self._contract(place)
        for tables in self.tables:
            for table in tables:
                free = set(support(table)) - self.batch
                if not free & self.contracted and free:
                    passing.append(table)
        self._match_batch()
        along = [dim for table in passing for dim in set(support(table)) - self.batch]
        if len({*along}) < len(along):  # a view has made one dimension of two with channels
            for table in passing:
                self.walk.freeze(table, "shares a dimension of a matrix product with other channels")
            self.walk.freeze(self.reads, "is contracted with channels that share a dimension")
            self.sizes.clear()
            return ()
        self.sizes += [heads.flatten() for heads in self.heads]
        covered = {dim for table in passing for dim in support(table)}
        pure = [heads for heads in self.heads if not covered & set(support(heads))]
        for table in passing:
            self.sizes.append(self._width(table))
        made = [*passing, *pure]
        return tuple(table.reshape(table.shape[: len(self.result)]) for table in made)

    def _contract(self, place: int) -> None:
        """Join the labels along a contracted dimension."""
        walk = self.walk
        if sum(self.order[place] in mine for mine in self.letters) < 2:
            for table in (table for tables in self.tables for table in tables if place in support(table)):
                walk.freeze(table, "is summed over")
            return
        first, second = (self._along(tables, place) for tables in self.tables)
        if first is None or second is None:
            for table in (first, second):
                if table is not None and len(support(table)) > 1:
                    walk.together(table, (place,))
                else:
                    walk.freeze(table, "is contracted with values that cannot be pruned")
            return
        joined = walk.join(first, second)
        for one, other in ((first, second), (second, first)):
            outer = set(support(one)) & self.batch
            if outer and not set(support(other)) & self.batch:
                walk.freeze(walk.heads_of(one, set(support(one)) - outer)[0], "shares keys or values with all others")
        self.reads = joined
        self.sizes.append(self._width(max(first, second, key=lambda table: len(support(table)))))
        self._note_reading(place, joined, (first, second))

    def _along(self, tables: list[Tensor], place: int) -> Tensor | None:
        """Return the labels along a contracted dimension and batch dimensions; along free ones, they are joined."""
        found = None
        for table in tables:
            if place not in support(table):
                continue
            if found is not None or len(set(support(table)) & self.contracted) > 1:
                self.walk.freeze(table, "is contracted together with other dimensions")
                continue
            free = [dim for dim in support(table) if dim != place and dim not in self.batch]
            found = self.walk.together(table, free) if free else table
        return found

    def _width(self, table: Tensor) -> Tensor:
        """Return the labels that count the channels of each head, or all of them if there are no heads."""
        dims = [dim for dim in support(table) if dim not in self.batch]
        return self.walk.heads_of(table, dims)[1].row if len(dims) < len(support(table)) else table.flatten()

    def _note_reading(self, place: int, joined: Tensor, sides: tuple[Tensor, Tensor]) -> None:
        """Record how a masked network ignores the removed channels: zeros in a weight, or in the first operand."""
        walk = self.walk
        assert walk.node is not None
        if self.masked:
            made = [side for node, side in zip(walk.node.args[-2:], sides, strict=True) if node in walk.derived]
            walk.consumed += made
            if made:
                return
        walk.computed += [side for value, side in zip(self.values, sides, strict=True) if walk.parameter_name(value)]
        mine = self.letters[0]
        for dim in set(support(joined)) - {self.order.index(letter) for letter in mine}:
            joined = joined.narrow(dim, 0, 1)
        laid = _gather(joined, mine, self.order)
        dim = mine.index(self.order[place])
        walk.statistic(self.number, dim, laid.flatten() if support(laid) == (dim,) else laid)

    def _match_batch(self) -> None:
        """Join the labels of both operands along batch dimensions, those of heads included."""
        walk = self.walk
        found: list[tuple[int, Tensor]] = []
        for i, tables in enumerate(self.tables):
            for table in tables:
                outer = set(support(table)) & self.batch
                if outer:
                    inner = set(support(table)) - outer
                    found.append((i, walk.heads_of(table, inner)[0] if inner else table))
        for i, (value, mine) in enumerate(zip(self.values, self.letters, strict=True)):
            have = {dim for j, heads in found if i == j for dim in support(heads)}
            long = {self.order.index(letter) for letter, size in zip(mine, value.shape, strict=True) if size > 1}
            for _, heads in found:
                if set(support(heads)) & (long - have):
                    walk.freeze(heads, UNLIKE)
        for _, heads in sorted(found, key=lambda item: -len(support(item[1]))):
            near = [other for other in self.heads if set(support(other)) & set(support(heads))]
            self.heads = [other for other in self.heads if all(other is not each for each in near)]
            for other in near:
                heads = walk.join(heads, other)
            self.heads.append(heads)


def _spread(labels: Tensor, letters: str, order: str) -> Tensor:
    """Lay the dimensions of a label tensor, named by letters, in another order of more letters."""
    dims = sorted(range(len(letters)), key=lambda dim: order.index(letters[dim]))
    laid = labels.permute(dims)
    for place, letter in enumerate(order):
        if letter not in letters:
            laid = laid.unsqueeze(place)
    return laid


def _gather(table: Tensor, letters: str, order: str) -> Tensor:
    """Lay a label tensor in an operand's own dimensions, the inverse of `_spread`."""
    gone = tuple(place for place, letter in enumerate(order) if letter not in letters)
    left = [letter for letter in order if letter in letters]
    return (table.squeeze(gone) if gone else table).permute([left.index(letter) for letter in letters])


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
    product = _Product(walk, (a, b), letters, _letters(len(walk.shape), "mn"), number)
    labels = product.labels()
    reads = product.reads if product.reads is None else product.reads.flatten()
    walk.contract(tuple(product.sizes), reads=reads)
    return Value(walk.shape, labels)


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
    """Einstein summation of one or two tensors, by its subscripts: those left out on the right are contracted."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    subscripts, number = left.split(","), walk.call_number()
    if not arrow:
        right = "".join(sorted(letter for letter in {*left} - {","} if left.count(letter) == 1))
    if len(operands) > 2 or "." in left or any(len({*letters}) < len(letters) for letters in subscripts):
        for operand in operands:
            walk.freeze(operand, "is part of an einsum of three tensors, with an ellipsis or with a diagonal")
        walk.contract(())
        return Value(walk.shape)
    if len(operands) == 1:
        return _one_operand(walk, operands[0], left, right)
    operands = [_halves(walk, value, letters, left, right) for value, letters in zip(operands, subscripts, strict=True)]
    product = _Product(walk, operands, subscripts, right, number, masked=False)
    labels = product.labels()
    for value, mine in zip(operands, subscripts, strict=True):
        for along in value.labels if walk.parameter_name(value) else ():
            if len(dims := support(along)) == 1 and mine[dims[0]] in right:
                walk.produce(along.flatten())
    walk.contract(tuple(product.sizes) if walk.macs() else ())
    return Value(walk.shape, labels)


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
    scores = _Product(walk, (query, key), (f"{batch}md", f"{batch}nd"), f"{batch}mn", number, masked=False)
    shape = (*query.shape[:-1], key.shape[-2])
    laid = Value(shape, scores.labels())
    if mask is not None:
        laid = Value(shape, merge(walk, [laid, mask]))
    read = _Product(walk, (laid, value), (f"{batch}mn", f"{batch}nv"), f"{batch}mv", number, masked=False)
    labels = read.labels()
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
