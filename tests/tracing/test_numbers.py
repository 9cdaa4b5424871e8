"""Integers that modules hold, nested in what they hold."""

from collections import namedtuple
from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.tracing.numbers import number_at, numbers_of, set_number
from tests.support.networks_configured import FORMS, TwoOfOneConfig

PAIR = namedtuple("PAIR", ["first", "second"])


@dataclass(frozen=True)
class Frozen:
    width: int


class Slots:
    __slots__ = ("width",)

    def __init__(self, width):
        self.width = width


class ItemsAsAttributes(dict):
    """Its items are its attributes."""

    def __init__(self, **items):
        super().__init__(items)
        self.__dict__ = self


class Kind(IntEnum):
    PLAIN = 8


def text(held):
    return repr(getattr(held, "__dict__", held))


def widths(network):
    return [network.one.width(), network.two.width()]


def holder(**attributes):
    module = nn.Linear(2, 3)
    vars(module).update(attributes)
    return module


@pytest.mark.parametrize(
    ("held", "keys", "read"),
    [
        (8, (), lambda held: held),
        ([3, 8], (1,), lambda held: held[-1]),
        ((3, 8), (1,), lambda held: held[-1]),
        (PAIR(3, 8), (1,), lambda held: held.second),
        ({"sizes": {"width": 8}}, ("sizes", "width"), lambda held: held["sizes"]["width"]),
        (SimpleNamespace(sizes=[Frozen(8)]), ("sizes", 0, "width"), lambda held: held.sizes[0].width),
        (Slots(8), ("width",), lambda held: held.width),
        (ItemsAsAttributes(width=8), ("width",), lambda held: held.width),
    ],
    ids=["integer", "list", "tuple", "named tuple", "dictionaries", "objects", "slots", "items as attributes"],
)
def test_a_number_is_set_for_one_module_alone(held, keys, read):
    mine, other = holder(held=held), holder(held=held)
    assert numbers_of(mine)[("held", *keys)] == number_at(mine, ("held", *keys)) == 8
    set_number(mine, ("held", *keys), 5)
    assert read(mine.held) == number_at(mine, ("held", *keys)) == 5
    assert read(other.held) == read(held) == 8
    assert type(mine.held) is type(held)


def test_what_holds_no_numbers_of_the_module():
    """Its parts, flags, members of an enumeration, which are one for the process, and data."""
    circle = SimpleNamespace(width=4)
    circle.itself = circle
    module = holder(parts=[nn.Linear(5, 5)], flag=True, kind=Kind.PLAIN, data=list(range(2000)), circle=circle)
    assert numbers_of(module) == {("in_features",): 2, ("out_features",): 3, ("circle", "width"): 4}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_configuration_that_modules_share_stays_as_it_is(form):
    network, x = TwoOfOneConfig(form).eval(), torch.zeros(1, 3, 4, 4)
    before = text(network.config)
    graph = gnnrl_lightning.trace(network, x)
    pruned = graph.plan(network, torch.tensor([4, 2])).apply(network)
    assert widths(pruned) == [4, 2]
    assert pruned(x).shape == (1, 10)
    again = gnnrl_lightning.trace(pruned, x)
    assert again.plan(pruned, torch.tensor([3, 1])).apply(pruned)(x).shape == (1, 10)
    assert widths(pruned) == [4, 2]
    assert network.one.config is network.two.config is network.config
    assert text(network.config) == before


class Reader(nn.Module):
    """Reads a number of a part, one of its part by a property, and none of another part."""

    def __init__(self):
        super().__init__()
        self.part, self.other, self.own = Part(), Part(), 2

    def forward(self, x):
        return x.view(self.part.width, self.part.inner_width)


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.width, self.unread = nn.Linear(4, 8), 5, 7

    @property
    def inner_width(self):
        return self.inner.out_features


def test_numbers_of_parts_are_those_that_the_code_names():
    module = Reader()
    own, inner = {("own",): 2, ("part", "width"): 5}, ("part", "inner", "out_features")
    assert numbers_of(module) == {**own, inner: 8}
    set_number(module, inner, 6)
    assert number_at(module, inner) == module.part.inner_width == 6 and module.other.inner_width == 8
