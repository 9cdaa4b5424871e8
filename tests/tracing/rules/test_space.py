"""Operators over space."""

import pytest
import torch

import gnnrl_lightning
from tests.support.exactness import check, random_weights
from tests.support.networks_code import Code


class Differences(Code):
    """Of neighbours along a dimension, whose size stays with as many values before or behind."""

    def __init__(self, dim, ends=False):
        super().__init__()
        self.dim, self.ends = dim, ends

    def between(self, x):
        first, dim = x.narrow(self.dim, 0, 1), self.dim
        return torch.diff(x, dim=dim, prepend=first) if self.ends else torch.cat([first, torch.diff(x, dim=dim)], dim)


CASES = [(-1, False, "ab"), (2, False, "ab"), (1, False, "b"), (-1, True, "b")]


@pytest.mark.parametrize(("dim", "ends", "names"), CASES)
def test_differences_of_neighbours_let_other_channels_pass(dim, ends, names):
    network, example = random_weights(Differences(dim, ends)), (torch.rand(1, 3, 6, 6, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, example)
    assert [group.name for group in graph.groups] == list(names)
    check(graph, network, example, (graph.widths + 1) // 2, torch.Generator().manual_seed(0))
