"""Inputs of modules in which several dimensions have the size of the channels, or of the heads."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.tracing.sizes.resize import Resize
from tests.support.exactness import check, random_weights
from tests.support.networks_attention import HEADS, WIDTH, InAPartOfTheModule, Model, WidthOfTheInput
from tests.support.networks_sizes import ReducedTokens


class ChannelsFirst(WidthOfTheInput):
    """The module is given maps `(B, C, N)`."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_heads = HEADS
            self.qkv, self.proj = nn.Conv1d(12, 36, 1), nn.Conv1d(12, 12, 1)

        def forward(self, x):
            B, C, N = x.shape
            q, k, v = self.qkv(x).reshape(B, 3, self.num_heads, C // self.num_heads, N).unbind(1)
            return self.proj((v @ (k.transpose(-2, -1) @ q).softmax(-2)).reshape(B, C, N))

    def __init__(self):
        nn.Module.__init__(self)
        self.inner = self.Inner()

    def forward(self, x):
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("build", [WidthOfTheInput, ChannelsFirst, InAPartOfTheModule, ReducedTokens])
@pytest.mark.parametrize("tokens", [HEADS, WIDTH, HEADS * WIDTH])
def test_as_many_tokens_as_channels_change_no_group(build, tokens):
    torch.manual_seed(0)
    network, generator = random_weights(Model(build())), torch.Generator().manual_seed(0)
    other = gnnrl_lightning.trace(network, torch.zeros(1, 7, 9, dtype=torch.float64))
    inputs = (torch.randn(2, tokens, 9, generator=generator, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, inputs)
    assert other.groups and [(group.name, group.width, group.sets) for group in graph.groups] == [
        (group.name, group.width, group.sets) for group in other.groups
    ]
    check(graph, network, inputs, (graph.widths + 1) // 2, generator)


def test_each_dimension_of_the_size_is_tried_and_then_all_of_them():
    x = torch.zeros(1, 6, 4, 6)
    assert [way.of(x).shape for way in Resize({6: 8}).choices([x])] == [(1, 6, 4, 8), (1, 8, 4, 6), (1, 8, 4, 8)]
    assert Resize({4: 5}).choices([x]) == [Resize({4: 5})]


def test_heads_and_their_channels_of_several_dimensions_of_their_sizes():
    x, heads = torch.zeros(3, 3, 5, 4), Resize({}, frozenset([(3, 4)]))
    assert [way.of(x).shape for way in heads.choices([x])] == [(4, 3, 5, 4), (3, 4, 5, 4), (3, 3, 5, 4)]
    assert Resize({}, frozenset([(3, 4)]), wider=True).of(x).shape == (3, 3, 5, 5)


def test_an_input_may_have_the_heads_alone():
    x, heads = torch.zeros(1, 3, 5), Resize({}, frozenset([(3, 4)]))
    assert [way.of(x).shape for way in heads.choices([x])] == [(1, 3, 5), (1, 4, 5)]
