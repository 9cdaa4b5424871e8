"""Comparisons of sizes in a network's code, and the widths at which they turn out otherwise.

Code that compares two sizes (`if x.shape != y.shape: x = self.project(x)`), or a size with a number
(`x.shape[1] % 2`), may compute something else at some widths alone, which a test at random widths misses. In a recorded
pass, sizes are `TrackedSize`s, which write down what they are compared with. From passes with one group narrower by a
channel follows how each comparison depends on the widths, and from this at which widths it turns: there, the network is
tested once more, see `gnnrl_lightning.surgery.selftest`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gnnrl_lightning.surgery.constants import lines
from gnnrl_lightning.tracing.program.export import Inputs, run

EQUALITY = ("__eq__", "__ne__")
ORDER = ("__lt__", "__le__", "__gt__", "__ge__")
REMAINDER = "__mod__"

REMAINDERS = 3
"""Number of other remainders that are tested at most."""

STEPS = 5
"""Number of widths that are tried at most for another outcome."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of two sizes, or a remainder.

    Attributes:
        line: Line of the user's code.
        operator: Its name: one of `EQUALITY`, `ORDER` and `REMAINDER`.
        left: The size.
        right: What it is compared with, or divided by.
    """

    line: str
    operator: str
    left: int
    right: int

    @property
    def equal(self) -> bool:
        """Whether the two are equal."""
        return self.left == self.right

    @property
    def difference(self) -> int:
        """By how much the size is larger."""
        return self.left - self.right


class Record(list[Comparison]):
    """The comparisons of a pass.

    Attributes:
        ended: Whether the pass has ended, so that no more are recorded: the code may keep sizes for longer.
    """

    ended = False


class TrackedSize(int):
    """A size whose comparisons are recorded; its sums, products and whole quotients are tracked, too."""

    seen: Record

    @classmethod
    def of(cls, size: int, seen: Record) -> TrackedSize:
        """Make one that records its comparisons in `seen`."""
        made = cls(size)
        made.seen = seen
        return made

    __hash__ = int.__hash__

    def __divmod__(self, other: Any) -> Any:
        if isinstance(other, int) and other and not self.seen.ended:
            self.seen.append(Comparison(lines()[0], REMAINDER, int(self), int(other)))
        return self // other, int(self) % other

    def __and__(self, mask: Any) -> Any:
        """`size & 1` is a remainder, too."""
        if not isinstance(mask, int):
            return NotImplemented
        if mask > 0 and mask & (mask + 1) == 0 and not self.seen.ended:
            self.seen.append(Comparison(lines()[0], REMAINDER, int(self), mask + 1))
        return int(self) & mask


def _recorded(operator: str) -> Callable[[TrackedSize, Any], Any]:
    plain = getattr(int, operator)

    def method(self: TrackedSize, other: Any) -> Any:
        number = isinstance(other, (int, float)) and math.isfinite(other)
        if number and not self.seen.ended and (operator != REMAINDER or int(other)):
            self.seen.append(Comparison(lines()[0], operator, int(self), int(other)))
        return plain(self, other) if isinstance(other, int) else getattr(float(self), operator)(other)

    return method


def _tracked(operator: str) -> Callable[..., Any]:
    plain = getattr(int, operator)

    def method(self: TrackedSize, *others: Any) -> Any:
        result = plain(self, *others)
        return TrackedSize.of(result, self.seen) if type(result) is int else result

    return method


for _operator in (*EQUALITY, *ORDER, REMAINDER):
    setattr(TrackedSize, _operator, _recorded(_operator))
for _operator in ("add", "radd", "sub", "rsub", "mul", "rmul", "floordiv", "rfloordiv", "rshift", "neg", "abs"):
    setattr(TrackedSize, f"__{_operator}__", _tracked(f"__{_operator}__"))


class _Sizes(TorchFunctionMode):
    """Give the user's code tracked sizes of tensors."""

    def __init__(self, seen: Record) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Size):
            return torch.Size([TrackedSize.of(size, self.seen) for size in result])
        return TrackedSize.of(result, self.seen) if type(result) is int else result


Attributes = Sequence[tuple[str, str]]
"""Modules and their attributes that are sizes."""


def changed_attributes(dense: nn.Module, pruned: nn.Module) -> Attributes:
    """Return the numbers that modules hold as attributes and that pruning has changed."""
    modules = dict(pruned.named_modules())
    return [
        (name, attribute)
        for name, module in dense.named_modules()
        for attribute, value in vars(module).items()
        if type(value) is int and vars(modules[name]).get(attribute) != value
    ]


def compared(network: nn.Module, inputs: Inputs, attributes: Attributes = ()) -> Record:
    """Run a network and return the comparisons of sizes in its code, in order.

    Where a pass fails, what was compared before is returned.

    Args:
        network: The network; these attributes of its modules become tracked sizes.
        inputs: Its inputs.
        attributes: Attributes of its modules that are sizes.
    """
    seen = Record()
    with suppress(Exception), _Sizes(seen):  # the user's code may raise anything; other tests say why
        for name, attribute in attributes:
            module = network.get_submodule(name)
            setattr(module, attribute, TrackedSize.of(getattr(module, attribute), seen))
        run(network, inputs)
    seen.ended = True
    return seen


@dataclass(frozen=True)
class Turn:
    """Widths at which a comparison turns out otherwise than in the dense network.

    Attributes:
        line: Line of the comparison.
        widths: Width of each group that is narrower than in the dense network.
    """

    line: str
    widths: Mapping[int, int]


def equal_by_chance(dense: Sequence[Comparison], drawn: Sequence[Comparison]) -> bool:
    """Whether sizes that differ in the dense network are equal at other widths, by their comparisons in both."""
    found = _aligned(dense, drawn)
    return any(new.equal > dense[at].equal for at, new in found.items() if new.operator in EQUALITY)


def find_turns(
    compared_at: Callable[[Tensor], Sequence[Comparison]], dense: Tensor, drawn: Tensor, least: Tensor
) -> list[Turn]:
    """Find widths at which comparisons turn out otherwise.

    Args:
        compared_at: Function of widths `(G,)`; it returns the comparisons of the network at these widths.
        dense: Dense widths `(G,)`.
        drawn: Widths `(G,)` at which the network has passed its tests.
        least: Smallest widths `(G,)`.
    """
    before = compared_at(dense)
    watched = [at for at, new in _aligned(before, compared_at(drawn)).items() if _may_turn(before[at], new)]
    if not watched:
        return []
    slopes: dict[int, dict[int, int]] = {at: {} for at in watched}
    found: list[Turn] = []
    for group in (dense > least).nonzero()[:, 0].tolist():
        one_less = dense.clone()
        one_less[group] -= 1
        there = _aligned(before, compared_at(one_less))
        if missed := set(range(len(before))) - there.keys():
            found.append(Turn(before[min(missed)].line, {group: int(one_less[group])}))
        for at in watched:
            if at in there and (slope := _change(before[at], there[at])):
                slopes[at][group] = slope
    for at in watched:
        for missing in _other_outcomes(before[at]):
            widths = _search(compared_at, before, at, missing, slopes[at], (dense, least))
            if widths is not None:
                found.append(
                    Turn(before[at].line, {int(group): int(widths[group]) for group in (widths < dense).nonzero()})
                )
    return list({tuple(sorted(turn.widths.items())): turn for turn in reversed(found)}.values())


def _aligned(before: Sequence[Comparison], after: Sequence[Comparison]) -> dict[int, Comparison]:
    """Return the comparisons of another pass by the number of the same ones in this pass, as far as both make them.

    A branch that is taken in one of them alone may have comparisons of its own.
    """
    mine, theirs = ([(item.line, item.operator) for item in each] for each in (before, after))
    if mine == theirs:
        return dict(enumerate(after))
    blocks = SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks()
    return {block.a + i: after[block.b + i] for block in blocks for i in range(block.size)}


def _may_turn(old: Comparison, new: Comparison) -> bool:
    """Whether a comparison depends on widths, and the random ones do not show all that it may give.

    Sizes that are equal in the dense network are equal everywhere, or differ at random widths.
    """
    changed = (old.left, old.right) != (new.left, new.right)
    return changed and not (old.equal and old.operator in EQUALITY)


def _change(old: Comparison, new: Comparison) -> int:
    """Return how much less the difference is, or the dividend of a remainder, with one channel less."""
    return old.left - new.left if old.operator == REMAINDER else old.difference - new.difference


Missing = Callable[[Comparison], int]
"""A comparison -> by how much its difference, or the dividend of a remainder, must be smaller for another outcome."""


def _other_outcomes(dense: Comparison) -> list[Missing]:
    """Return what is missing from each other outcome of a comparison than that of the dense network."""
    if dense.operator == REMAINDER:
        others = [dense.left % dense.right - change for change in range(1, min(abs(dense.right), REMAINDERS + 1))]
        return [lambda now, other=other: (now.left - other) % now.right for other in others]
    if dense.operator in EQUALITY:
        return [lambda now: now.difference]
    beyond = (-1, 1) if dense.difference == 0 else (-1,) if dense.difference > 0 else (1,)
    return [lambda now, target=target: now.difference - target for target in beyond]


def _search(
    compared_at: Callable[[Tensor], Sequence[Comparison]],
    before: Sequence[Comparison],
    at: int,
    missing: Missing,
    slopes: Mapping[int, int],
    bounds: tuple[Tensor, Tensor],
) -> Tensor | None:
    """Return widths `(G,)` at which a comparison has another outcome, or None if none are found.

    Sizes that are not linear in the widths, such as halves, need several steps.

    Args:
        compared_at: As of `find_turns`.
        before: The comparisons of the dense network.
        at: Which of them.
        missing: What is missing from the other outcome.
        slopes: How much less the difference is with one channel less of each group.
        bounds: Dense and smallest widths, `(G,)` each.
    """
    widths, least = bounds
    for _ in range(STEPS):
        there = _aligned(before, compared_at(widths))
        if at not in there or not missing(there[at]):
            return widths
        narrowed = _narrowed(widths, missing(there[at]), slopes, least)
        if narrowed.equal(widths):
            break
        widths = narrowed
    return None


def _narrowed(widths: Tensor, change: int, slopes: Mapping[int, int], least: Tensor) -> Tensor:
    """Return widths `(G,)` at which a difference is smaller by `change`, or by less if there are no such ones."""
    spare, narrowed = widths - least, widths.clone()
    for group in sorted(slopes, key=lambda group: (-int(spare[group]) * abs(slopes[group]), group)):
        if change * slopes[group] > 0:
            removed = min(change // slopes[group], int(spare[group]))
            change -= removed * slopes[group]
            narrowed[group] -= removed
    return narrowed
