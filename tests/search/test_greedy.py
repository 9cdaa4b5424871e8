"""Greedy allocation, step by step by hand."""

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.search.greedy import greedy
from gnnrl_lightning.search.knapsack import dynamic_programming
from gnnrl_lightning.surrogate.sensitivity import Sensitivity
from tests.support.fakes import Chain, random_sensitivity, small_graph

INF = float("inf")


def two_groups():
    """Two convolutions on an image of one pixel: 27 a + 9 a b + 10 b MACs at the widths a, b."""
    graph = gnnrl_lightning.trace(Chain((4, 4)), torch.zeros(1, 3, 1, 1))
    assert int(graph.cost.macs(torch.tensor([4, 4]))) == 27 * 4 + 9 * 16 + 10 * 4 == 292
    errors = torch.tensor([[INF, 6.0, 3.0, 1.0, 0.0], [INF, 5.0, 2.0, 0.5, 0.0]], dtype=torch.float64)
    return graph, Sensitivity((), torch.zeros(2, 0), errors)


def test_by_hand():
    """(4, 4): 1 / 63 against 0.5 / 46; (4, 3): 1 / 54 against 1.5 / 46; (3, 3): 2 / 54 against 1.5 / 37; then (2, 3).

    It costs 54 + 54 + 30 = 138, and one channel more costs 166 or 192.
    """
    graph, table = two_groups()
    assert greedy(graph, Budget(macs=160.0).on(graph), table).tolist() == [2, 3]


def test_what_is_left_is_filled_up():
    """With 170, (2, 4) fits as well: 54 + 72 + 40 = 166."""
    graph, table = two_groups()
    assert greedy(graph, Budget(macs=170.0).on(graph), table).tolist() == [2, 4]


def test_a_budget_that_is_met_narrows_nothing():
    graph, table = two_groups()
    assert greedy(graph, Budget(macs=292).on(graph), table).tolist() == [4, 4]


def test_steps_are_aligned():
    graph, table = two_groups()
    widths = greedy(graph, Budget(macs=0.5, channel_multiple=2).on(graph), table)
    assert widths.tolist() in ([2, 2], [2, 4], [4, 2]) and int(graph.cost.macs(widths)) <= 146


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_a_peak_that_no_group_lowers_alone_is_lowered_all_the_same(share):
    """Narrowing one of several groups that share the peak saves nothing; the search continues with later groups."""
    graph = small_graph()
    limits = Budget(activations=share).on(graph)
    for propose in (greedy, dynamic_programming):
        widths = propose(graph, limits, random_sensitivity(graph))
        assert limits.met(widths)
        wider = torch.minimum(widths + torch.eye(4, dtype=torch.int64), graph.widths)
        assert not limits.met(wider)[widths < graph.widths].any()


@pytest.mark.parametrize("seed", range(4))
def test_a_cost_that_bumps_ends_within_the_limit(seed):
    graph = small_graph()
    bumps = torch.rand(4, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def bumpy(graph):
        groups = torch.arange(4)
        return lambda widths: (widths + 4 * bumps[groups, widths]).sum(-1)

    limits = Budget({bumpy: "60%"}).on(graph)
    for propose in (greedy, dynamic_programming):
        widths = propose(graph, limits, random_sensitivity(graph, seed))
        assert limits.met(widths)
        wider = torch.minimum(widths + torch.eye(4, dtype=torch.int64), graph.widths)
        assert not limits.met(wider)[widths < graph.widths].any()
