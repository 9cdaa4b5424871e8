"""How the code of modules follows when a dimension of its tensors has another size.

Sizes that the code gives to its calls may be attributes of the module, which are then set in the pruned network, may
follow from the tensors, or may be constants. See `tracing.sizes.held` for how that is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from gnnrl_lightning.tracing.labels import shrinking
from gnnrl_lightning.tracing.numbers import Keys, holder_of, numbers_of
from gnnrl_lightning.tracing.program.copies import on_meta
from gnnrl_lightning.tracing.records import ModuleSize, SizedCall, SplitCall
from gnnrl_lightning.tracing.sizes.grown import Grown, More, flat_sizes, free, key_of, shrinking_of
from gnnrl_lightning.tracing.sizes.held import Module
from gnnrl_lightning.tracing.sizes.recorder import Call, Sizes
from gnnrl_lightning.tracing.sizes.resize import Resize
from gnnrl_lightning.tracing.sizes.wider import layers_in
from gnnrl_lightning.tracing.walk import Walk


@dataclass(frozen=True)
class Found:
    """How the code of modules follows other sizes.

    Attributes:
        attributes: Module, where it holds a number, and a call and the dimension of which that is the size; there may
            be several.
        culprit: A call that does not follow, or None.
        factors: By module, the numbers by which its calls multiply.
    """

    attributes: tuple[tuple[str, Keys, SizedCall, int], ...]
    culprit: SizedCall | None
    factors: dict[str, dict[Call, float]] = field(default_factory=dict)


class Following:
    """What modules hold: runs them with other values of their attributes.

    Attributes:
        calls: Calls that are given sizes.
        splits: Calls that cut channels into parts of sizes that may be an attribute.
        plain: Those whose size may be an attribute of the module, and that are not of heads.
        channel: Channel of each label.
        rows: By module, and where it holds a number, labels of the channels of which it is the size, and the channel of
            each label if that differs from the walk's.
    """

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.calls, self.splits = _without_loose(walk), [call for call in walk.splits if call.held]
        self._held: dict[str, set[int]] = {}
        self.rows: dict[tuple[str, Keys], list[tuple[Tensor, np.ndarray | None]]] = {}
        likely = [call for call in self.calls if self._integers(call.module) & {*call.sizes} - {1}]
        self.plain: list[SizedCall] = likely
        if likely or walk.heads:
            self.channel = walk.labels.solve()
            self.plain = [call for call in likely if self._is_attribute(call)]

    def _integers(self, path: str) -> set[int]:
        if path not in self._held:
            self._held[path] = {*numbers_of(self.walk.network.get_submodule(path)).values()}
        return self._held[path]

    def _is_attribute(self, call: SizedCall) -> bool:
        """Whether the size of the dimension that shrinks may be an attribute."""
        found = shrinking_of(call, self.channel)
        return found is not None and call.sizes[found[0]] in self._integers(call.module)

    @cached_property
    def _network(self) -> nn.Module:
        return on_meta(self.walk.network).eval()

    def module(self, path: str) -> Module | None:
        """Return a module that gives sizes to its calls; None if the sizes of its own arguments depend on values."""
        given = self.walk.arguments.get(path)
        return None if given is None else Module(self._network.get_submodule(path), *given)

    def follow(self, calls: Sequence[SizedCall], grown: Mapping[str, Grown], resize: Resize, more: More) -> Found:
        """Find the attributes that are sizes of calls, and whether all calls follow if they are set.

        Args:
            calls: The calls.
            grown: Their other sizes, by module.
            resize: Other sizes of the modules' inputs.
            more: Labels that a layer inside a module makes -> how many more of them there are.

        Returns:
            The attributes of all modules, and the numbers by which their calls multiply; or, of a module that follows
            in no way, the first call that does not in the likeliest one.
        """
        attributes: list[tuple[str, Keys, SizedCall, int]] = []
        factors: dict[str, dict[Call, float]] = {}
        for path in dict.fromkeys(call.module for call in calls):
            mine = [call for call in calls if call.module == path]
            sizes = {key_of(call): call.shape for call in self.calls if call.module == path} | grown[path]
            module = self.module(path)
            if module is None:
                fixed = next((call for call in mine if _misses(call, call.sizes, sizes)), None)
                if fixed is not None:
                    return Found((), fixed)
                continue
            outside = {} if module.has_parameters else flat_sizes(mine, sizes)
            ways = module.choices(replace(resize, sizes={**resize.sizes, **outside}, layers=self._layers(path, more)))
            if resize.heads and not self._makes(path, mine):  # its inputs have the heads, perhaps in one dimension
                ways += module.choices(resize.flat())
            parts = self._parts(path, module, more, resize.wider)
            splits = [call for call in self.walk.splits if call.module == path and call.operator == "split"]
            found = _follow(path, module, mine, sizes, ways, parts, splits)
            if found.culprit is not None:
                return found
            attributes += found.attributes
            factors |= found.factors
        return Found(tuple(attributes), None, factors)

    def _layers(self, path: str, more: More) -> dict[str, tuple[int, int]]:
        """Return the layers inside a module that make more channels, see `Resize.layers`."""
        found = ((name, dim, labels, more(labels)) for name, dim, labels in layers_in(self.walk, path))
        return {name: (dim, len(labels) + longer) for name, dim, labels, longer in found if longer}

    def _makes(self, path: str, calls: Sequence[SizedCall]) -> bool:
        """Whether a layer inside a module makes channels of its calls."""
        read = {channel for call in calls for channel in self.channel[free(call.labels)].tolist()}
        made = (self.channel[free(labels)].tolist() for _, _, labels in layers_in(self.walk, path))
        return not all(read.isdisjoint(channels) for channels in made)

    def _parts(self, path: str, module: Module, more: More, wider: bool) -> dict[Keys, int]:
        """Return the numbers of a module that are sizes of parts of channels, with more in each.

        Those of parts of rows, such as heads, are others only where each row is wider.
        """
        tables = {keys: held[0][0] for keys in module.numbers if (held := self.rows.get(self._at(path, keys)))}
        rows = {keys: table[0] for keys, table in tables.items() if wider or len(table) == 1}
        return {keys: len(row) + longer for keys, row in rows.items() if (longer := more(row))}

    def _at(self, path: str, keys: Keys) -> tuple[str, Keys]:
        """Return the path of the part of a module that holds a number itself, and where it does."""
        where, _, inner = holder_of(path, self.walk.network.get_submodule(path), keys)
        return where, inner

    def hold(self, attributes: Sequence[tuple[str, Keys, SizedCall, int]], numbers: np.ndarray) -> None:
        """Note attributes that are sizes of calls, given the channel of each label."""
        for path, keys, call, dim in attributes:
            found = shrinking_of(call, numbers)
            if found is not None and found[0] == dim:
                _, along, rows = found
                self.rows.setdefault(self._at(path, keys), []).append((along.reshape(rows, -1), numbers))

    def record(self) -> None:
        """Record the attributes as sizes that modules hold; channels of which one attribute is the size are tied."""
        channel = self.walk.labels.solve() if self.rows else np.empty(0)
        for (path, keys), found in self.rows.items():
            found = [item for item in found if _shrinks(channel, *item)]
            if not found:
                continue
            tables = [table for table, _ in found]
            self.walk.sizes.append(ModuleSize(path, keys, tables[0].flatten(), len(tables[0])))
            channels = {(channel if own is None else own)[free(table)].tobytes() for table, own in found}
            if len(channels) > 1 and len({table.shape[1] for table in tables}) == 1:
                self.walk.labels.tie(torch.cat(tables), "attribute", "")


def _shrinks(channel: np.ndarray, table: Tensor, own: np.ndarray | None) -> bool:
    """Whether channels of every row go, not rows as a whole."""
    found = shrinking(table, torch.from_numpy(channel if own is None else own)[table])
    return len(table) == 1 or (found is not None and found[0] == 1)


def _follow(
    path: str,
    module: Module,
    calls: Sequence[SizedCall],
    grown: Grown,
    ways: Sequence[Resize],
    parts: Mapping[Keys, int],
    splits: Sequence[SplitCall],
) -> Found:
    """Find the attributes of a module that are sizes of its calls, and whether these follow in one of the ways.

    Those that are known to be sizes of `parts` have other values.
    """
    culprits: list[SizedCall] = []
    for resize in ways:
        found = attributes_of(module, calls, grown, resize, parts)
        values = {**parts, **{keys: grown[key_of(call)][dim] for keys, ((call, dim), *_) in found.items()}}
        given = module.sizes(calls, values, grown, resize)
        unseen = {key_of(call): (-1,) * len(call.sizes) if module.has_parameters else call.sizes for call in calls}
        sizes = unseen | given.sizes
        culprit = next((call for call in calls if _misses(call, sizes[key_of(call)], grown)), None)
        culprit = culprit or next(_unlike(splits, given.parts), None)
        if culprit is None:
            held = tuple((path, keys, call, dim) for keys, where in found.items() for call, dim in where)
            return Found(held, None, {path: given.factors})
        culprits.append(culprit)
    return Found((), culprits[0])


def _unlike(splits: Sequence[SplitCall], made: Mapping[Call, int]) -> Iterator[SizedCall]:
    """Yield splits that make more or fewer parts than of the dense channels, which the code takes apart."""
    for call in splits:
        if made.get((call.operator, call.number), len(call.parts)) != len(call.parts):
            shape = tuple(len(part) for part in call.parts)
            yield SizedCall(
                call.module, call.operator, call.number, call.sizes, shape, torch.cat(call.parts), call.source
            )


def _without_loose(walk: Walk) -> list[SizedCall]:
    """Return the calls that are given sizes, without those of repeats that never meet channels."""
    repeats = [call for call in walk.calls_of_sizes if walk.is_repeat(call.labels)]
    if not repeats:
        return walk.calls_of_sizes
    channel = walk.labels.solve()
    others = np.ones(walk.labels.count, dtype=bool)
    others[list(walk.repeats)] = False
    met = np.unique(channel[others])
    loose = [call for call in repeats if not np.isin(channel[free(call.labels)], met).any()]
    return [call for call in walk.calls_of_sizes if not any(call is item for item in loose)]


def _misses(call: SizedCall, given: Sizes, grown: Grown) -> bool:
    """Whether a call is given another size than it should be."""
    return any(size not in (-1, wanted) for size, wanted in zip(given, grown[key_of(call)], strict=False))


def attributes_of(
    module: Module, calls: Sequence[SizedCall], grown: Grown, resize: Resize, parts: Mapping[Keys, int]
) -> dict[Keys, list[tuple[SizedCall, int]]]:
    """Return the numbers that a module holds that are sizes of calls, with the calls and their dimensions.

    A size that follows from the tensors is none of them, though one may have its value: two keys of two queries each.
    """
    found: dict[Keys, list[tuple[SizedCall, int]]] = {}
    changing = [
        (call, dim)
        for call in calls
        for dim, size in enumerate(call.sizes)
        if size != -1 and grown[key_of(call)][dim] != call.shape[dim]
    ]
    before = module.sizes(calls, parts, grown, resize).sizes if changing else {}
    changing = [(call, dim) for call, dim in changing if before.get(key_of(call), call.sizes)[dim] == call.sizes[dim]]
    for keys, value in module.numbers.items():
        likely = [(call, dim) for call, dim in changing if call.sizes[dim] == value]
        for wanted in dict.fromkeys(grown[key_of(call)][dim] for call, dim in likely):
            given = module.sizes(calls, {**parts, keys: wanted}, grown, resize).sizes
            follows = [(call, dim) for call, dim in likely if given.get(key_of(call), call.sizes)[dim] == wanted]
            if follows:
                found[keys] = follows
                break
    return found
