"""One product of two tensors: the channels that it joins, and those of its result.

Both operands name their dimensions by letters, as in `einsum`: letters left out of the result are contracted, letters
of both operands that stay are batch dimensions, such as the heads of attention. Channels that lie along batch
dimensions and another one, `(head, channel)`, are those of heads: the result of a contraction has labels of the heads
themselves, see `rows.heads_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gnnrl_lightning.tracing.labels import Value, support
from gnnrl_lightning.tracing.repeats import end_outside
from gnnrl_lightning.tracing.rows import heads_of, share_rows
from gnnrl_lightning.tracing.walk import Walk

UNLIKE = "is combined with values that cannot be pruned"


@dataclass
class Product:
    """One product: its operands, the letters of their dimensions and of the result.

    Attributes:
        walk: The walk.
        sources: Their nodes; None for a product of others.
        values: The operands.
        letters: A letter for each dimension of each operand.
        result: The letters of the result.
        number: Number of the call, for the masked reference.
        masked: Whether labels of parameters that are contracted are those of a weight, which a mask sets to zero.
        noted: Letters of the tensors of the call: in the first of them that has a contracted dimension, the masked
            reference has zeros in place of removed channels; None: in no tensor.
        sizes: Labels of all dimensions that cost, for a `Contraction`.
        heads: Labels of the batch dimensions that have any.
    """

    walk: Walk
    sources: Sequence[Any]
    values: Sequence[Value]
    letters: Sequence[str]
    result: str
    number: int
    masked: bool = True
    noted: Sequence[str] | None = ()
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
        sides = list(zip(self.values, self.letters, strict=True))
        met = [letter for letter in both if all(may_meet(value, mine, letter) for value, mine in sides)]
        self.values = [end_outside(self.walk, value, [mine.index(letter) for letter in met]) for value, mine in sides]
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
        if self._share_dimensions():
            for table in passing:
                self.walk.freeze(table, "shares a dimension of a matrix product with other channels")
            self.walk.freeze(self.reads, "is contracted with channels that share a dimension")
            self.sizes.clear()
            return ()
        self.sizes += [heads.flatten() for heads in self.heads]
        covered = {dim for table in passing for dim in support(table)}
        pure = [heads for heads in self.heads if not covered & set(support(heads))]
        for table in passing:
            self.sizes.append(self._width(_each_once(table)))
        made = [*passing, *pure]
        return tuple(table.reshape(table.shape[: len(self.result)]) for table in made)

    def _share_dimensions(self) -> bool:
        """Whether a view has made one dimension of two with channels, other than those of a weight: of experts."""
        for tables, source in zip(self.tables, self.sources, strict=True):
            passing = [table for table in tables if not set(support(table)) & self.contracted]
            along = [dim for table in passing for dim in set(support(table)) - self.batch]
            if len({*along}) < len(along) and source not in self.walk.derived:
                return True
        return False

    def keep_made(self) -> None:
        """Record the channels that an operand without labels makes of the other one's: `x @ table`, with a constant.

        What it makes of positions, such as those of a larger image, is no channel.
        """
        for i, value in enumerate(self.values):
            mine, other = self.letters[i], self.letters[1 - i]
            read = {dim for table in self.tables[1 - i] for dim in support(table)} & self.contracted
            if self.tables[i] or not read:
                continue
            for letter, size in zip(mine, value.shape, strict=True):
                if letter in self.result and letter not in other and size > 1:
                    self.walk.keep(size, "is made by a weight that cannot be pruned")

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
        joined = self._joined(first, second)
        self.reads = joined
        self.sizes.append(self._width(max(first, second, key=lambda table: len(support(table)))))
        self._note_reading(place, joined, (first, second))

    def _joined(self, first: Tensor, second: Tensor) -> Tensor:
        """Join the labels of both operands along a contracted dimension; heads may share the channels of one."""
        for one, other in ((first, second), (second, first)):
            outer = set(support(one)) & self.batch
            if outer and not set(support(other)) & self.batch:
                share_rows(self.walk, one, set(support(one)) - outer, other)
                return one
        return self.walk.join(first, second)

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
        return heads_of(self.walk, table, dims)[1].row if len(dims) < len(support(table)) else table.flatten()

    def _note_reading(self, place: int, joined: Tensor, sides: tuple[Tensor, Tensor]) -> None:
        """Record how a masked network ignores the removed channels: zeros in a weight, or in the first operand."""
        walk = self.walk
        if self.masked:
            made = [side for node, side in zip(self.sources, sides, strict=True) if node in walk.derived]
            walk.consumed += made
            if made:
                return
        walk.computed += [side for value, side in zip(self.values, sides, strict=True) if walk.parameter_name(value)]
        if self.noted is None:
            return
        letter, tensors = self.order[place], self.noted or self.letters[:1]
        number = next(i for i, each in enumerate(tensors) if letter in each)
        mine, before = tensors[number], "".join(tensors[:number])
        for dim in set(support(joined)) - {self.order.index(each) for each in mine if each in self.order}:
            joined = joined.narrow(dim, 0, 1)
        laid, dim = _gather(joined, mine, self.order), mine.index(letter)
        if support(laid) == (dim,):
            laid = laid.flatten()
        elif self.noted:  # as if the dimensions of all tensors were in a row
            behind = "".join(tensors[number + 1 :])
            laid = laid.reshape((*(1,) * len(before), *laid.shape, *(1,) * len(behind)))
        walk.statistic(self.number, len(before) + dim, laid)

    def _match_batch(self) -> None:
        """Join the labels of both operands along batch dimensions, those of heads included."""
        walk = self.walk
        found: list[tuple[int, Tensor]] = []
        for i, tables in enumerate(self.tables):
            for table in tables:
                outer = set(support(table)) & self.batch
                if outer:
                    inner = set(support(table)) - outer
                    found.append((i, heads_of(walk, table, inner)[0] if inner else table))
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


def _each_once(table: Tensor) -> Tensor:
    """Labels along one dimension, of which a view may have made several positions each: each of them once."""
    dims = support(table)
    if len(dims) != 1 or bool((table < 0).any()) or len(labels := table.unique()) == table.numel():
        return table  # fixed positions all have the same label
    return labels.reshape([len(labels) if dim == dims[0] else 1 for dim in range(table.dim())])


def may_meet(value: Value, letters: str, letter: str) -> bool:
    """Whether another operand may have channels along a dimension: this one has some there, or is broadcast."""
    dim = letters.index(letter)
    return value.shape[dim] == 1 or any(labels.shape[dim] > 1 for labels in value.labels)


def _spread(labels: Tensor, letters: str, order: str) -> Tensor:
    """Lay the dimensions of a label tensor, named by letters, in another order of more letters."""
    dims = sorted(range(len(letters)), key=lambda dim: order.index(letters[dim]))
    laid = labels.permute(dims)
    for place, letter in enumerate(order):
        if letter not in letters:
            laid = laid.unsqueeze(place)
    return laid


def _gather(table: Tensor, letters: str, order: str) -> Tensor:
    """Lay a label tensor in a tensor's own dimensions, the inverse of `_spread`; it does not change along others."""
    gone = tuple(place for place, letter in enumerate(order) if letter not in letters)
    left = [letter for letter in order if letter in letters]
    laid = (table.squeeze(gone) if gone else table).permute([left.index(x) for x in letters if x in left])
    for place, letter in enumerate(letters):
        laid = laid if letter in left else laid.unsqueeze(place)
    return laid
