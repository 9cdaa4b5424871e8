"""Dynamic programming against all candidates there are."""

from itertools import product

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.projection import AllowedWidths
from gnnrl_lightning.search.greedy import greedy
from gnnrl_lightning.search.knapsack import allowed_levels, dynamic_programming, knapsack
from tests.support.fakes import Chain, random_sensitivity

SIZES = ((3, 9), (8, 7), (2, 8), (5, 6))
"""Inputs and width of each branch."""


class Branches(nn.Module):
    """Branches that only meet in the logits: MACs are a sum over the groups, (inputs + 10) * width each."""

    def __init__(self):
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(inputs, width) for inputs, width in SIZES)
        self.second = nn.ModuleList(nn.Linear(width, 10) for _, width in SIZES)

    def forward(self, x):
        parts = zip(SIZES, self.first, self.second, strict=True)
        return sum(second(first(x[:, :inputs]).relu()) for (inputs, _), first, second in parts)


def everything(graph):
    """All candidates there are `(N, G)`."""
    return torch.tensor(list(product(*(range(1, width + 1) for width in graph.widths.tolist()))))


def least_error(graph, limits, table):
    candidates = everything(graph)
    return float(table(candidates[limits.met(candidates)]).min())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_optimal_where_costs_add_up(share, seed):
    """The limit is below 400 MACs and parts are 1 / 2000 of what may be spent: rounding up cannot cost a channel."""
    torch.manual_seed(0)
    graph = gnnrl_lightning.trace(Branches(), torch.zeros(2, 8))
    assert int(graph.cost.macs(graph.widths)) == sum((inputs + 10) * width for inputs, width in SIZES)
    limits, table = Budget(macs=share).on(graph), random_sensitivity(graph, seed)
    widths = dynamic_programming(graph, limits, table)
    assert limits.met(widths[None]).all()
    assert float(table(widths)) == pytest.approx(least_error(graph, limits, table), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_near_the_optimum_where_costs_are_products(seed):
    """Never worse than greedy, and within a tenth of the least error that any candidate has."""
    torch.manual_seed(0)
    graph = gnnrl_lightning.trace(Chain((8, 7, 8)), torch.zeros(1, 3, 4, 4))
    limits, table = Budget(macs=0.4).on(graph), random_sensitivity(graph, seed)
    found = float(table(dynamic_programming(graph, limits, table)))
    assert found <= float(table(greedy(graph, limits, table)))
    assert found <= 1.1 * least_error(graph, limits, table)


def test_several_limits_hold():
    torch.manual_seed(0)
    graph = gnnrl_lightning.trace(Chain((8, 7, 8)), torch.zeros(1, 3, 4, 4))
    limits = Budget(macs=0.6, params=0.3).on(graph)
    assert limits.met(dynamic_programming(graph, limits, random_sensitivity(graph))[None]).all()


@pytest.mark.parametrize("seed", range(5))
def test_knapsack_against_all_choices(seed):
    """It fits, and nothing is better that fits with one part to spare for each group."""
    generator = torch.Generator().manual_seed(seed)
    costs = [torch.cat([torch.zeros(1), torch.rand(4, generator=generator)]).cumsum(0).double() for _ in range(3)]
    errors = [torch.rand(5, generator=generator).sort(descending=True).values.double() for _ in range(3)]
    capacity, bins = 2.5, 100

    def total(values, choice):
        return sum(float(value[index]) for value, index in zip(values, choice, strict=True))

    choice = knapsack(costs, errors, capacity, bins)
    assert total(costs, choice) <= capacity
    spared = capacity * (1 - 3 / bins)
    best = min(total(errors, other) for other in product(range(5), repeat=3) if total(costs, other) <= spared)
    assert total(errors, choice) <= best + 1e-12


def test_levels_are_the_allowed_widths():
    allowed = AllowedWidths(torch.tensor([10, 300]), torch.tensor([1, 1]), channel_multiple=4)
    ten, many = allowed_levels(allowed, most=8)
    assert ten.tolist() == [4, 8, 10]
    assert len(many) == 8 and many[0] == 4 and many[-1] == 300 and (many % 4 == 0).all()
