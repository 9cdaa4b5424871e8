import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.rl.env.proposals import POINTS, Proposals
from gnnrl_lightning.search.greedy import greedy
from gnnrl_lightning.search.knapsack import dynamic_programming
from tests.support.fakes import random_sensitivity, small_graph

GRAPH = small_graph()
TABLE = random_sensitivity(GRAPH)


def test_without_a_range_it_is_the_allocation_for_the_budget():
    limits = Budget(macs=0.5).on(GRAPH)
    found = Proposals(GRAPH, limits, TABLE, greedy)(torch.tensor([0.5, 0.1]))
    assert torch.equal(found, greedy(GRAPH, limits, TABLE).float().repeat(2, 1))


def test_in_a_range_it_is_the_allocation_for_each_limit_and_between_them_a_mean():
    at = torch.linspace(0.3, 0.7, POINTS)
    proposals = Proposals(GRAPH, Budget(macs=0.5).on(GRAPH), TABLE, dynamic_programming, (0.3, 0.7))
    exact = [dynamic_programming(GRAPH, Budget(macs=float(share)).on(GRAPH), TABLE) for share in at.double()]
    torch.testing.assert_close(proposals(at), torch.stack(exact).float(), atol=1e-3, rtol=0)
    quarter = at[:-1] + (at[1:] - at[:-1]) / 4
    mean = 0.75 * torch.stack(exact[:-1]) + 0.25 * torch.stack(exact[1:])
    torch.testing.assert_close(proposals(quarter), mean, atol=1e-3, rtol=0)
    # Limits beyond the range take what its ends take.
    torch.testing.assert_close(proposals(torch.tensor([0.1, 1.0])), proposals(at[[0, -1]]))


def test_other_limits_of_the_budget_hold_in_a_range_too():
    limits = Budget(params=0.4).on(GRAPH)
    proposals = Proposals(GRAPH, limits, TABLE, greedy, (0.3, 0.9))
    widths = proposals(torch.tensor([0.3, 0.9])).long()
    assert bool(limits.met(widths).all())
