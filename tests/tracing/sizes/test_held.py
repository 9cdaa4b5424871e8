"""Sizes that modules hold as attributes, found by running them with other values."""

import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.tracing.program.copies import on_meta
from gnnrl_lightning.tracing.program.export import export
from gnnrl_lightning.tracing.records import SizedCall
from gnnrl_lightning.tracing.sizes.held import Module
from gnnrl_lightning.tracing.sizes.resize import Resize


class Split(nn.Module):
    """`heads` is a size of both calls of `view`, `taps` has the same value by chance, `width` is derived."""

    def __init__(self):
        super().__init__()
        self.heads, self.taps, self.scale = 3, 3, 4
        self.layer = nn.Linear(5, 12)

    def forward(self, x):
        y = self.layer(x).view(len(x), self.heads, 12 // self.heads)
        return (y * y.shape[-1] ** -0.5).sum(1).view(len(x), -1).unflatten(1, (-1, 2))


def held(network=None, path="0"):
    network = nn.Sequential(Split()) if network is None else network
    _, calls = export(network.eval(), (torch.zeros(2, 5),))
    return Module(on_meta(network.get_submodule(path)), *calls[path])


def calls():
    sizes = {"view": ((2, 3, 4), (2, -1)), "unflatten": ((2, -1, 2),)}
    shapes = {"view": ((2, 3, 4), (2, 4)), "unflatten": ((2, 2, 2),)}
    return [
        SizedCall("0", name, number, given, shapes[name][number], torch.arange(0), "")
        for name, several in sizes.items()
        for number, given in enumerate(several)
    ]


def test_a_module_runs_alone_with_the_arguments_it_has_in_the_network():
    module = held()
    assert module.args[0].shape == (2, 5) and module.args[0].is_meta
    assert module.numbers == {("heads",): 3, ("taps",): 3, ("scale",): 4}
    given = module.sizes(calls(), {}, {("view", 1): (2, 4), ("unflatten", 0): (2, 2, 2)})
    assert given.sizes == {("view", 0): (2, 3, 4), ("view", 1): (2, -1), ("unflatten", 0): (2, -1, 2)}
    assert given.factors == {("mul", 0): 4**-0.5}


def test_another_value_of_an_attribute_shows_which_sizes_it_is():
    module = held()
    answers = {("view", 1): (2, 4), ("unflatten", 0): (2, 2, 2)}
    changed = module.sizes(calls(), {("heads",): 4}, answers)
    assert changed.sizes["view", 0] == (2, 4, 3)
    assert changed.factors == {("mul", 0): 3**-0.5}
    assert module.sizes(calls(), {("taps",): 4}, answers) == module.sizes(calls(), {}, answers)
    assert module.module.heads == 3


def test_inputs_of_another_size():
    """The layer has the dense number of inputs; its outputs are as many as before."""
    given = held().sizes(calls(), {}, {("view", 1): (2, 4), ("unflatten", 0): (2, 2, 2)}, Resize({5: 7}))
    assert given.sizes["view", 0] == (2, 3, 4)


class ReadsValues(nn.Module):
    """Skips what makes no difference, except in an export."""

    def forward(self, x):
        return x if not torch.compiler.is_compiling() and x.sum() > 0 else x * 1


def test_a_module_of_a_network_that_reads_values():
    module = held(nn.Sequential(ReadsValues(), Split()), "1")
    assert module.args[0].shape == (2, 5) and module.args[0].is_meta


class HoldsChannels(nn.Module):
    """A number of channels is an attribute of the network, and another attribute has its value."""

    def __init__(self):
        super().__init__()
        self.hidden, self.side = 6, 6
        self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Linear(6, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x.reshape(len(x), self.hidden, -1).mean(2))


def test_a_number_of_channels_that_the_network_holds_follows():
    network = HoldsChannels()
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 4, 4))
    pruned = graph.plan(network, torch.tensor([4])).apply(network)
    assert (pruned.hidden, pruned.side) == (4, 6)
    assert (network.hidden, network.side) == (6, 6)
    assert pruned(torch.zeros(1, 3, 4, 4)).shape == (1, 2)
