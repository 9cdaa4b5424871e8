"""Networks whose code compares sizes: at no widths that a search may choose, they compute something else."""

import itertools
import operator

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.surgery.comparisons import Comparison, Record, TrackedSize, equal_by_chance, find_turns
from tests.support.exactness import check, random_weights
from tests.support.networks_code import Code

X = torch.randn(1, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Three(Code):
    def between(self, x):
        return x * 2 if x.shape[1] == 3 else x


class Listed(Code):
    def between(self, x):
        return x * 2 if x.size(1) in (2, 5) else x


class Remainder(Code):
    def between(self, x):
        return x * 2 if x.shape[1] % 4 == 2 else x


class Few(Code):
    def between(self, x):
        return x * 2 if x.shape[1] < 3 else x


class Halves(Code):
    """Half of the channels, in whole numbers, is two."""

    def between(self, x):
        return x * 2 if x.shape[1] // 2 == 2 else x


class LastBit(Code):
    def between(self, x):
        return x * 2 if x.shape[1] & 1 else x


class Divided(Code):
    def between(self, x):
        whole, rest = divmod(x.shape[1], 4)
        return x * 2 if whole == 1 and rest == 3 else x


class Negative(Code):
    """A whole number, shifted, divides another one, and the result is compared with a fraction."""

    def between(self, x):
        return x * 2 if -(16 // (x.shape[1] >> 1)) < -7.5 else x


class Asserting(Code):
    def between(self, x):
        assert x.shape[1] > 2
        return x


class OfTheLayer(Code):
    def between(self, x):
        return x * 2 if self.b.in_channels == 3 else x


class Printed(Code):
    """Sizes are compared, but what is computed is the same."""

    def between(self, x):
        few = x.shape[1] < 3 or x.shape[1] % 2
        return x if few else x.view(x.shape)


class Largest(Code):
    def between(self, x):
        return x / max(x.shape[1], 4) * max(x.shape[1], 4)


class Projecting(nn.Module):
    """A residual block that projects its input if there are other channels in its output, and a dense one behind it."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide, self.narrow = (nn.Conv2d(i, o, 1) for i, o in ((3, 4), (4, 6), (6, 5)))
        self.project, self.head = nn.Conv2d(4, 6, 1), nn.Linear(5, 2)

    def differ(self, x, y):
        return x.shape != y.shape

    def forward(self, x):
        x = self.stem(x).relu()
        y = self.wide(x)
        if self.differ(x, y):
            x = self.project(x)
        return self.head(self.narrow((x + y).relu()).mean((2, 3)))


class ProjectingBehindChecks(Projecting):
    """A check of wide outputs makes a comparison of its own, which narrow ones do not."""

    def differ(self, x, y):
        if y.shape[1] >= 6:
            assert y.shape[1] <= 64
        return x.shape != y.shape


class ProjectingBySize(Projecting):
    def differ(self, x, y):
        return y.size(1) > x.size(1)


class ProjectingByAttribute(Projecting):
    def differ(self, x, y):
        return self.wide.out_channels != self.wide.in_channels


@pytest.mark.parametrize(
    ("kind", "groups", "line"),
    [
        (Three, ["b"], "x.shape[1] == 3"),
        (Listed, ["b"], "x.size(1) in (2, 5)"),
        (Remainder, ["b"], "x.shape[1] % 4 == 2"),
        (Few, ["b"], "x.shape[1] < 3"),
        (Halves, ["b"], "x.shape[1] // 2 == 2"),
        (LastBit, ["b"], "x.shape[1] & 1"),
        (Divided, ["b"], "divmod(x.shape[1], 4)"),
        (Negative, ["b"], "-(16 // (x.shape[1] >> 1)) < -7.5"),
        (Asserting, ["b"], "assert x.shape[1] > 2"),
        (OfTheLayer, ["b"], "self.b.in_channels == 3"),
        (Printed, ["a", "b"], ""),
        (Largest, ["a", "b"], ""),
        (Projecting, ["stem", "narrow"], "x.shape != y.shape"),
        (ProjectingBehindChecks, ["stem", "narrow"], "x.shape != y.shape"),
        (ProjectingBySize, ["stem", "narrow"], "y.size(1) > x.size(1)"),
        (ProjectingByAttribute, ["stem", "narrow"], "self.wide.out_channels != self.wide.in_channels"),
    ],
)
def test_pruned_networks_take_the_same_path_at_all_widths(kind, groups, line):
    network = random_weights(kind())
    graph = gnnrl_lightning.trace(network, X)
    assert [group.name for group in graph.groups] == groups
    kept = [group for group in graph.frozen if group.operator == "self-test"]
    assert all(line in group.source for group in kept) and bool(kept) == bool(line)
    generator = torch.Generator().manual_seed(0)
    for widths in itertools.product(*(range(1, group.width + 1) for group in graph.groups)):
        check(graph, network, (X,), torch.tensor(widths), generator)


def test_the_reason_says_how_to_write_it():
    (group,) = (group for group in gnnrl_lightning.trace(Projecting(), X.float()).frozen if group.name == "wide")
    assert group.reason.startswith("the code compares sizes, and at some widths the outcome is another: ")
    assert "MACs where" in group.reason and "self.project is not None" in group.reason


def passes_of(comparison):
    """A pass of a network that makes one comparison, by its function of widths."""

    def compared_at(widths):
        left, right, name = comparison(*widths.tolist())
        return [Comparison("net.py:1", name, left, right)]

    return compared_at


def turns_of(comparison, dense, drawn, least=None):
    dense, drawn = torch.tensor(dense), torch.tensor(drawn)
    least = torch.ones_like(dense) if least is None else torch.tensor(least)
    return [dict(turn.widths) for turn in find_turns(passes_of(comparison), dense, drawn, least)]


def test_widths_at_which_sizes_become_equal():
    assert turns_of(lambda a, b: (a, b, "__ne__"), (8, 16), (3, 7)) == [{1: 8}]
    assert turns_of(lambda a, b: (a, b, "__ne__"), (16, 8), (7, 3)) == [{0: 8}]
    assert turns_of(lambda a, b: (a + b, 20, "__eq__"), (16, 8), (7, 3)) == [{0: 12}]
    assert turns_of(lambda a, b: (a + b, 5, "__eq__"), (16, 8), (7, 3)) == [{0: 1, 1: 4}]
    assert turns_of(lambda a, b: (2 * a, b, "__eq__"), (8, 6), (7, 3)) == [{0: 3}]


def test_sizes_that_do_not_become_equal():
    assert turns_of(lambda a, b: (a, b, "__eq__"), (8, 16), (3, 7), least=(1, 9)) == []
    assert turns_of(lambda a, b: (a + 1, a, "__eq__"), (8, 16), (3, 7)) == []
    assert turns_of(lambda a, b: (a, a, "__eq__"), (8, 16), (3, 7)) == []
    assert turns_of(lambda a, b: (64, 32, "__eq__"), (8, 16), (3, 7)) == []


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge"])
def test_an_order_turns(name):
    for bound in (3, 8):
        for turn in turns_of(lambda a, b: (a, bound, f"__{name}__"), (8, 4), (5, 2)):  # noqa: B023
            if bound == 3:
                assert getattr(operator, name)(turn[0], bound) != getattr(operator, name)(8, bound)
            else:
                assert turn == {0: 7}


def test_every_other_remainder_is_found():
    found = turns_of(lambda a, b: (a, 4, "__mod__"), (8, 4), (5, 2))
    assert sorted(turn[0] % 4 for turn in found) == [1, 2, 3]


def test_a_group_that_changes_the_path_is_a_turn():
    def compared_at(widths):
        a, b = widths.tolist()
        first = Comparison("net.py:1", "__lt__", a, 100)
        return [first, Comparison("net.py:2" if b > 14 else "net.py:3", "__lt__", b, 100)]

    turns = find_turns(compared_at, torch.tensor([8, 16]), torch.tensor([3, 15]), torch.tensor([1, 1]))
    assert {1: 14} in [dict(turn.widths) for turn in turns] or not turns


def test_sizes_that_are_equal_by_chance():
    def one(left, right):
        return [Comparison("net.py:1", "__eq__", left, right)]

    assert equal_by_chance(one(8, 4), one(2, 2))
    assert not equal_by_chance(one(8, 4), one(3, 2))
    assert not equal_by_chance(one(8, 8), one(2, 2))
    assert not equal_by_chance(one(8, 8), one(3, 2))


def test_a_tracked_size_counts_as_a_number_does():
    seen = Record()
    size = TrackedSize.of(7, seen)
    for name in ("add", "sub", "mul", "floordiv", "mod", "truediv", "pow", "eq", "ne", "lt", "le", "gt", "ge"):
        for other in (3, 7, 2.5):
            function = getattr(operator, name)
            assert function(size, other) == function(7, other)
            assert function(other, size) == function(other, 7)
    for other in (1, 3, 5):
        assert (size & other, other & size, divmod(size, other), size >> 1) == (
            7 & other,
            7 & other,
            divmod(7, other),
            3,
        )
    assert (
        size < float("inf")
        and size != float("nan")
        and size != "seven"
        and size is not None
        and -size == -7
        and abs(size) == 7
    )
    assert ("__mod__", 7, 3) in {(item.operator, item.left, item.right) for item in seen}
    assert {size: 1}[7] == 1 and list(range(size)) == list(range(7)) and torch.zeros(size).shape == (7,)


def test_nothing_is_recorded_behind_a_pass_and_of_divisions_by_zero():
    seen = Record()
    size = TrackedSize.of(7, seen)
    for divide in (lambda: size % 0, lambda: divmod(size, 0)):
        with pytest.raises(ZeroDivisionError):
            divide()
    assert size % 0.5 == 0 and not seen
    seen.ended = True
    assert (size == 7, size % 4, size & 1, divmod(size, 4)) == (True, 3, 1, (1, 3)) and not seen


def test_sums_products_and_quotients_are_tracked():
    seen = Record()
    size = TrackedSize.of(6, seen)
    for computed in (size + 1, 1 + size, size - 1, 1 - size, size * 2, 2 * size, size // 4):
        seen.clear()
        assert computed != 100
        assert [(item.operator, item.left, item.right) for item in seen] == [("__ne__", int(computed), 100)]
