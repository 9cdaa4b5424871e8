"""Budgets and the projection onto them, against brute force over all widths."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.products import CostModel
from gnnrl_lightning.cost.projection import fits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import resnet20


@dataclass
class Chain:
    """A chain of layers without a network: MACs are products of neighbouring widths, parameters have biases."""

    widths: torch.Tensor
    sets: torch.Tensor

    def __init__(self, widths, sets=None):
        self.widths = torch.tensor(widths)
        self.sets = torch.ones_like(self.widths) if sets is None else torch.tensor(sets)
        sizes = [(3, {}), *((0, {i: n}) for i, n in enumerate(self.sets.tolist())), (10, {})]
        pairs = list(itertools.pairwise(sizes))
        macs = [(i, (i % 3 + 1, pair)) for i, pair in enumerate(pairs)]
        params = [(i, (1, pair)) for i, pair in enumerate(pairs)] + [(i, (1, [a])) for i, a in enumerate(sizes[1:])]
        self.cost = CostModel(macs, params, len(pairs), len(widths))


CHAINS = {
    "two": Chain([7, 5]),
    "three": Chain([6, 9, 4]),
    "four": Chain([4, 3, 5, 4]),
    "sets": Chain([4, 6, 3], [2, 1, 4]),
}
BUDGETS = {
    "half the macs": {"macs": 0.5},
    "few macs": {"macs": 0.2},
    "params": {"params": 0.45},
    "both": {"macs": 0.6, "params": 0.4},
    "both, the other binds": {"macs": 0.35, "params": 0.9},
    "absolute": {"macs": 60},
    "all": {"macs": 1.0},
    "two at least": {"macs": 0.6, "min_width": 2},
    "pairs": {"macs": 0.5, "channel_multiple": 2},
    "threes, two at least": {"macs": 0.75, "channel_multiple": 3, "min_width": 2},
}


def allowed(graph, budget):
    """Allowed widths of each group, by the definition: aligned or dense, not below the minimum."""
    rungs = []
    for dense, sets in zip(graph.widths.tolist(), graph.sets.tolist(), strict=True):
        aligned = [n for n in range(1, dense + 1) if n == dense or n * sets % budget.channel_multiple == 0]
        rungs.append([n for n in aligned if n >= min(budget.min_width, dense)])
    return rungs


def feasible(graph, budget, widths):
    dense = graph.widths
    for name in ("macs", "params"):
        value = getattr(budget, name)
        if value is not None:
            limit = value * int(getattr(graph.cost, name)(dense)) if value <= 1 else value
            if int(getattr(graph.cost, name)(widths)) > limit:
                return False
    return True


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("chain", CHAINS)
def test_projection_is_allowed_feasible_and_maximal(chain, budget):
    graph, budget = CHAINS[chain], Budget(**BUDGETS[budget])
    rungs = allowed(graph, budget)
    generator = torch.Generator().manual_seed(0)
    proposals = torch.cat([graph.widths[None].double(), torch.rand(20, len(rungs), generator=generator) * graph.widths])
    try:
        projected = budget.project(graph, proposals)
    except UserError:
        assert not any(feasible(graph, budget, torch.tensor(widths)) for widths in itertools.product(*rungs))
        return
    assert projected.dtype == torch.int64 and projected.shape == proposals.shape
    assert budget.met(graph, projected).all()
    for row in projected:
        assert all(int(n) in rung for n, rung in zip(row, rungs, strict=True))
        assert feasible(graph, budget, row)
        for group, rung in enumerate(rungs):
            wider = [n for n in rung if n > int(row[group])]
            if wider:
                step = row.clone()
                step[group] = wider[0]
                assert not feasible(graph, budget, step), f"group {group} of {row.tolist()} could be wider"


@pytest.mark.parametrize("chain", CHAINS)
def test_projection_keeps_the_largest_uniform_scaling(chain):
    """Nothing is narrower than at the largest s for which floor(s * proposal) fits, found by trying (also above 1)."""
    graph, budget = CHAINS[chain], Budget(macs=0.4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        proposal = (torch.rand(len(graph.widths), generator=generator) * graph.widths).clamp(min=1)
        factors = torch.linspace(0, float((graph.widths / proposal).max()), 4001, dtype=torch.float64)[:, None]
        scaled = torch.minimum((proposal.double() * factors + 1e-9).floor().long().clamp(min=1), graph.widths)
        best = scaled[graph.cost.macs(scaled) <= 0.4 * graph.cost.macs(graph.widths)][-1]
        assert (budget.project(graph, proposal) >= best).all()


def test_a_proposal_that_is_already_maximal_stays():
    graph, budget = CHAINS["three"], Budget(macs=0.5)
    once = budget.project(graph, graph.widths)
    assert torch.equal(budget.project(graph, once), once)


def test_a_budget_of_everything_gives_everything():
    for graph in CHAINS.values():
        assert torch.equal(Budget(macs=1.0).project(graph, torch.ones_like(graph.widths)), graph.widths)


def test_batch_equals_single():
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)
    proposals = torch.rand(5, 12, generator=torch.Generator().manual_seed(2)) * graph.widths
    batch = graph.project(proposals, macs=0.5, params=0.4, channel_multiple=4)
    for proposal, row in zip(proposals, batch, strict=True):
        assert torch.equal(graph.project(proposal, macs=0.5, params=0.4, channel_multiple=4), row)


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_more_budget_keeps_more_of_a_uniform_proposal(metric):
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)
    shares = [0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0]
    costs = [int(getattr(graph.cost, metric)(graph.project(graph.widths, **{metric: s}))) for s in shares]
    dense = int(getattr(graph.cost, metric)(graph.widths))
    assert costs == sorted(costs)
    assert all(0.98 * s * dense < cost <= s * dense for s, cost in zip(shares[1:], costs[1:], strict=True))


def test_channel_multiple_eight_of_a_real_network():
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)
    widths = graph.project(graph.widths, macs=0.5, channel_multiple=8)
    assert (widths % 8 == 0).all() and int(graph.cost.macs(widths)) <= 0.5 * int(graph.cost.macs(graph.widths))
    assert (graph.project(graph.widths, macs=0.3, min_width=5) >= 5).all()


def test_alignment_counts_all_sets_of_a_dimension():
    """Four blocks of w channels are a dimension of 4 w: a multiple of 8 when w is even; 3 is the dense width."""
    graph = Chain([16, 8, 3], [1, 2, 4])
    ladder = Budget(macs=0.9, channel_multiple=8).ladder(graph)
    assert ladder.step.tolist() == [8, 4, 2]
    assert ladder.lowest.tolist() == [8, 4, 2]
    assert ladder.wider(torch.tensor([8, 4, 2])).tolist() == [16, 8, 3]
    assert ladder.down(torch.tensor([15, 7, 2])).tolist() == [8, 4, 2]


def test_alignment_wider_than_a_group_keeps_it_dense():
    ladder = Budget(macs=0.9, channel_multiple=8).ladder(Chain([5, 12]))
    assert ladder.lowest.tolist() == [5, 8]
    assert ladder.down(torch.tensor([3, 11])).tolist() == [5, 8]


def test_limits_are_absolute():
    graph = CHAINS["two"]
    macs, params = 1 * 3 * 7 + 2 * 35 + 3 * 50, 21 + 35 + 50 + 7 + 5 + 10
    assert Budget(macs=0.5, params=100).limits(graph) == {"macs": macs / 2, "params": 100}
    assert int(graph.cost.params(graph.widths)) == params
    assert fits(graph.cost, torch.tensor([[7, 5], [1, 1]]), {"macs": macs - 1}).tolist() == [False, True]


def test_an_impossible_budget_names_the_smallest_reachable():
    graph = CHAINS["two"]  # at widths 1, 1: 3 + 2 + 30 MACs, of 241
    with pytest.raises(UserError, match=r"macs is 0.1 .*smallest network has 35 macs \(0.1452 of"):
        Budget(macs=0.1).limits(graph)
    with pytest.raises(UserError, match=r"params is 5 .*smallest network has 26 params"):
        Budget(macs=0.9, params=5).project(graph, graph.widths)
    with pytest.raises(UserError, match="cannot be reached"):
        Budget(macs=0.3, min_width=4).limits(graph)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the budget is empty"),
        ({"macs": 0.0}, "macs is 0.0: it must be positive"),
        ({"macs": -1}, "macs is -1: it must be positive"),
        ({"macs": float("nan")}, "macs is nan: it must be positive"),
        ({"params": float("inf")}, "params is inf: it must be positive"),
        ({"latency": 0.5}, "latency is not available yet"),
        ({"macs": 0.5, "channel_multiple": 0}, "channel_multiple is 0: it must be at least 1"),
        ({"macs": 0.5, "min_width": 0}, "min_width is 0: it must be at least 1"),
    ],
)
def test_bad_budgets_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Budget(**arguments)


def test_a_budget_above_the_dense_network_is_refused():
    with pytest.raises(UserError, match="242, more than the dense network has"):
        Budget(macs=242).limits(CHAINS["two"])
    assert Budget(macs=241).limits(CHAINS["two"]) == {"macs": 241.0}


def test_the_module_of_a_real_network_is_not_needed_to_project():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 2, 2))
    del network
    # 4 pixels: (3 w + 4 w) * 4 MACs of 224; half of them are four channels.
    assert graph.project(graph.widths, macs=0.5).tolist() == [4]
    assert graph.project(graph.widths, macs=0.49).tolist() == [3]
    assert graph.project(torch.tensor([2]), macs=0.49).tolist() == [3]
