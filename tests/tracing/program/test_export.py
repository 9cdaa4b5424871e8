"""Constructs of users' code that freeze nothing: casts, assertions, regions, caches, and outputs of any type."""

import dataclasses
import functools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from tests.support.networks_code import Code, Normed, macs

EXAMPLE = torch.randn(1, 3, 6, 6)
BOTH = [("a", 8), ("b", 6)]


class Cast(Code):
    """A cast also asserts the type of its operand."""

    def between(self, x):
        return x.double().to(x.dtype).type(torch.float64).type_as(x)


class AutocastOff(Normed):
    def between(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.norm(x).relu()


class Gradients(Normed):
    def between(self, x):
        with torch.enable_grad():
            return self.norm(x).relu()


class Autocast(Code):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x).to(x.dtype)


class Nested(Code):
    """Regions in a region, and a write into a slice in the inner one."""

    def between(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.enable_grad():
                z = torch.zeros_like(x)
                z[:, :, 1:] = x[:, :, 1:]
            return z.to(x.dtype)


class ListCache(Code):
    """A list that forward refills, as anchors of detectors."""

    def __init__(self):
        super().__init__()
        self.grids = [torch.empty(0)]

    def between(self, x):
        if self.grids[0].shape != x.shape[2:]:
            self.grids[0] = torch.ones(x.shape[2:]).to(x)
        return x + self.grids[0]


class DictCache(Code):
    def __init__(self):
        super().__init__()
        self.maps = {}

    def between(self, x):
        key = tuple(x.shape[2:])
        if key not in self.maps:
            self.maps[key] = torch.ones(key).to(x)
        return x + self.maps[key]


class Keeps(Code):
    """A feature map of the last pass stays in the network, with its history."""

    def between(self, x):
        self.last = x
        return x


class DetachedShortcut(Code):
    """`x.data`, as shortcuts that pad with zeros read it."""

    def between(self, x):
        return x + torch.cat([x.data[:, :, 1:], torch.zeros(len(x), x.shape[1], 1, x.shape[3])], 2)


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize(
    "case", [Cast, AutocastOff, Gradients, Autocast, Nested, ListCache, DictCache, Keeps, DetachedShortcut]
)
def test_constructs_freeze_nothing(case, ran):
    network = case().eval()
    if ran:
        network(EXAMPLE)
    graph = gnnrl_lightning.trace(network, EXAMPLE)
    assert [(group.name, group.width) for group in graph.groups] == BOTH
    assert int(graph.cost.macs(graph.widths)) == macs()
    small = graph.plan(network, torch.tensor([3, 2])).apply(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small(EXAMPLE)
    assert counter.get_total_flops() // 2 == macs(3, 2)


class ViewWritten(Normed):
    """A write through a view, for which the program is functionalised, beside a region."""

    def between(self, x):
        with torch.enable_grad():
            z = self.norm(x).clone()
        z.transpose(2, 3)[:, :, 0].fill_(1.0)
        return z


def test_regions_are_entered_in_functionalised_programs():
    graph = gnnrl_lightning.trace(ViewWritten(), EXAMPLE)
    assert [(group.name, group.width) for group in graph.groups] == BOTH
    assert int(graph.cost.macs(graph.widths)) == macs()


@dataclasses.dataclass
class Outputs:
    logits: torch.Tensor
    hidden: object = None


@dataclasses.dataclass(slots=True)
class Slots:
    logits: torch.Tensor
    hidden: object = None


class Attributes:
    def __init__(self, logits, hidden):
        self.logits, self.more = logits, {"hidden": [hidden]}


class Dictionary(dict):
    pass


class List(list):
    pass


class Hiding:
    """An object whose tensors cannot be found."""

    __slots__ = ("hidden", "logits")

    def __init__(self, logits, hidden):
        self.logits, self.hidden = logits, hidden


class Returns(Code):
    """Returns the logits and the channels of the first convolution in a container."""

    def __init__(self, container):
        super().__init__()
        self.container = container

    def forward(self, x):
        x = self.a(x)
        return self.container(self.head(self.b(x).relu().mean((2, 3))), x)


@pytest.mark.parametrize(
    "container",
    [
        lambda logits, x: {"logits": logits, "name": "net", "hidden": (x, None)},
        lambda logits, x: Dictionary(logits=logits, hidden=x),
        lambda logits, x: List([logits, x]),
        Outputs,
        Slots,
        Attributes,
    ],
)
def test_outputs_are_found_in_any_container(container):
    graph = gnnrl_lightning.trace(Returns(container), EXAMPLE)
    assert [(group.name, group.width) for group in graph.groups] == BOTH[1:]
    assert {(group.name, group.reason) for group in graph.frozen if group.operator == "output"} == {
        ("a", "is an output of the network"),
        ("head", "is an output of the network"),
    }


@pytest.mark.parametrize(("container", "name"), [(Hiding, "Hiding"), (lambda logits, x: {logits, x}, "set")])
def test_outputs_that_may_hide_tensors_are_refused(container, name):
    with pytest.raises(UserError, match=f"Returns returns a {name}, whose tensors cannot be found"):
        gnnrl_lightning.trace(Returns(container), EXAMPLE)


@functools.cache
def reversed_order(channels):
    return torch.arange(channels - 1, -1, -1)


class CachedByTheProcess(Code):
    """An index that a function keeps for all networks of the process."""

    def between(self, x):
        return x + self.a.bias[reversed_order(8)][:, None, None]


def test_what_code_keeps_for_the_process_is_of_the_networks_own_device():
    reversed_order.cache_clear()
    gnnrl_lightning.trace(CachedByTheProcess(), EXAMPLE)
    assert torch.equal(reversed_order(8), torch.tensor([7, 6, 5, 4, 3, 2, 1, 0]))


class Cond(Code):
    def between(self, x):
        return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v * 3, (x,))


class Branch(Code):
    def between(self, x):
        return x if x.sum() > 0 else x.relu()


class Selected(Code):
    """The mean of as many pixels as are positive."""

    def between(self, x):
        return x[x > 0].mean() + x


class PickedChannels(Code):
    """Channels picked by the values of a tensor, whose number no graph knows."""

    def between(self, x):
        return x[:, (x.sum((0, 2, 3)) > 0).nonzero().flatten()].mean(1, keepdim=True) + x


class PickedRows(Code):
    def forward(self, x):
        x = self.b(self.a(x)).flatten(2).transpose(1, 2)[0]
        return self.head(x[x.sum(1) > 0])


class PickedLast(Code):
    """As detectors pick boxes: nothing reads what is picked."""

    def forward(self, x):
        x = self.b(self.a(x))
        return torch.masked_select(x, x > 0)


@pytest.mark.parametrize(("case", "line"), [(PickedChannels, "networks_code.py"), (PickedRows, "test_export.py")])
def test_sizes_that_values_decide_are_refused(case, line):
    message = rf"the values of a tensor decide the size of another one \(.*{line}:\d+: return .*torch.where"
    with pytest.raises(UserError, match=message):
        gnnrl_lightning.trace(case(), EXAMPLE)


def test_what_values_pick_at_the_end_is_no_obstacle():
    graph = gnnrl_lightning.trace(PickedLast(), EXAMPLE)
    assert [(group.name, group.width) for group in graph.groups] == BOTH[:1]


def test_what_values_pick_may_be_averaged():
    graph = gnnrl_lightning.trace(Selected(), EXAMPLE)
    assert [(group.name, group.width) for group in graph.groups] == BOTH[1:]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Cond(), r"Cond cannot be traced: it calls cond \(networks_code.py:\d+: return self.head"),
        (
            Branch(),
            r"Branch cannot be traced: its code depends on the values of a tensor \(test_export.py:\d+: return x",
        ),
    ],
)
def test_code_that_cannot_be_exported_is_refused_in_one_line(network, message, capsys):
    """Without the graph, which torch prints."""
    with pytest.raises(UserError, match=message) as caught:
        gnnrl_lightning.trace(network, EXAMPLE)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""
