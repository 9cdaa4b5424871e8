"""Budgets and the projection onto them, against brute force over all widths."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.metrics import METRICS, Metric
from gnnrl_lightning.cost.products import CostModel
from gnnrl_lightning.cost.projection import fits, project
from gnnrl_lightning.cost.ranges import WidthRanges
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import resnet20
from gnnrl_lightning.tracing.groups import ChannelGroup


@dataclass
class Chain:
    """A chain of layers without a network: MACs are products of neighbouring widths, parameters have biases."""

    widths: torch.Tensor
    sets: torch.Tensor
    ranges: WidthRanges

    def __init__(self, widths, sets=None, limits=None):
        self.widths = torch.tensor(widths)
        self.sets = torch.ones_like(self.widths) if sets is None else torch.tensor(sets)
        pairs = zip(self.widths.tolist(), self.sets.tolist(), strict=True)
        groups = [ChannelGroup(f"layer{i}", width, (), rows) for i, (width, rows) in enumerate(pairs)]
        self.ranges = WidthRanges.of(groups, limits)
        sizes = [(3, {}), *((0, {i: n}) for i, n in enumerate(self.sets.tolist())), (10, {})]
        pairs = list(itertools.pairwise(sizes))
        macs = [(i, (i % 3 + 1, pair)) for i, pair in enumerate(pairs)]
        params = [(i, (1, pair)) for i, pair in enumerate(pairs)] + [(i, (1, [a])) for i, a in enumerate(sizes[1:])]
        self.cost = CostModel(macs, params, len(pairs), len(widths))

    def cost_of(self, metric):
        return METRICS.find(metric).bind(self)


CHAINS = {
    "two": Chain([7, 5]),
    "three": Chain([6, 9, 4]),
    "four": Chain([4, 3, 5, 4]),
    "sets": Chain([4, 6, 3], [2, 1, 4]),
    "limited": Chain([6, 9, 4], limits={"layer0": {"max": 4}, "layer1": {"min": "40%", "max": "70%"}}),
    "limited, sets": Chain([8, 6, 5], [2, 1, 1], {"layer*": {"max": 0.8}, "layer2": {"min": 2}}),
}
BUDGETS = {
    "half the macs": {"macs": 0.5},
    "few macs": {"macs": 0.2},
    "params": {"params": 0.45},
    "both": {"macs": 0.6, "params": 0.4},
    "both, the other binds": {"macs": 0.35, "params": 0.9},
    "absolute": {"macs": 60},
    "nearly all": {"macs": 0.999},
    "two at least": {"macs": 0.6, "min_width": 2},
    "pairs": {"macs": 0.5, "channel_multiple": 2},
    "threes, two at least": {"macs": 0.75, "channel_multiple": 3, "min_width": 2},
}


def allowed_by_definition(graph, budget):
    """Allowed widths of each group, by the definition: aligned or dense, not below the minimum, within limits."""
    levels = []
    for dense, sets in zip(graph.widths.tolist(), graph.sets.tolist(), strict=True):
        aligned = [n for n in range(1, dense + 1) if n == dense or n * sets % budget.channel_multiple == 0]
        levels.append([n for n in aligned if n >= min(budget.min_width, dense)])
    limits = zip(levels, graph.ranges.lowest.tolist(), graph.ranges.highest.tolist(), strict=True)
    return [[n for n in level if low <= n <= high] for level, low, high in limits]


def feasible(graph, budget, widths):
    dense = graph.widths
    for name, value in budget.limits.items():
        cost = getattr(graph.cost, name)
        if int(cost(widths)) > (value * int(cost(dense)) if value < 1 else value):
            return False
    return True


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("chain", CHAINS)
def test_projection_is_allowed_feasible_and_maximal(chain, budget):
    graph, budget = CHAINS[chain], Budget(**BUDGETS[budget])
    levels = allowed_by_definition(graph, budget)
    generator = torch.Generator().manual_seed(0)
    proposals = torch.cat(
        [graph.widths[None].double(), torch.rand(20, len(levels), generator=generator) * graph.widths]
    )
    try:
        projected = budget.on(graph).project(proposals)
    except UserError:
        assert not any(feasible(graph, budget, torch.tensor(widths)) for widths in itertools.product(*levels))
        return
    assert projected.dtype == torch.int64 and projected.shape == proposals.shape
    assert budget.on(graph).met(projected).all()
    for row in projected:
        assert all(int(n) in level for n, level in zip(row, levels, strict=True))
        assert feasible(graph, budget, row)
        for group, level in enumerate(levels):
            wider = [n for n in level if n > int(row[group])]
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
        proposal = torch.maximum(proposal, graph.ranges.lowest)
        scaled = (proposal.double() * factors + 1e-9).floor().long()
        scaled = torch.minimum(torch.maximum(scaled, graph.ranges.lowest), graph.ranges.highest)
        best = scaled[graph.cost.macs(scaled) <= 0.4 * graph.cost.macs(graph.widths)][-1]
        assert (budget.on(graph).project(proposal) >= best).all()


def test_a_proposal_that_is_already_maximal_stays():
    graph, budget = CHAINS["three"], Budget(macs=0.5)
    once = budget.on(graph).project(graph.widths)
    assert torch.equal(budget.on(graph).project(once), once)


def everything(graph):
    """A limit on what the dense network has."""
    return Budget(macs=int(graph.cost.macs(graph.widths))).on(graph)


def test_a_budget_of_everything_gives_everything():
    """Except for channels that the user's limits remove."""
    for graph in CHAINS.values():
        limits = everything(graph)
        assert torch.equal(limits.project(torch.ones_like(graph.widths)), graph.ranges.highest)


def test_the_dense_network_is_cut_to_its_limits_although_it_meets_the_budget():
    graph = CHAINS["limited"]
    limits = everything(graph)
    assert not limits.met(graph.widths)
    assert limits.project(graph.widths).tolist() == [4, 6, 4]  # 6 and 9 channels, at most 4 and 70%
    assert limits.met(torch.tensor([[4, 6, 4], [4, 4, 1]])).all()  # 4 of 9 are the first number from 40% on
    assert not limits.met(torch.tensor([[5, 6, 4], [4, 7, 4], [4, 3, 4]])).any()


@pytest.mark.parametrize(
    ("limits", "options", "message"),
    [
        ({"max": 4}, {"min_width": 5}, "leave layer0 no width: at least 5 and at most 4 of its 20 channels"),
        ({"min": 9, "max": 15}, {"channel_multiple": 8}, r"no width in steps of 8: at least 9 and at most 15 of"),
        ({"max": 7}, {"channel_multiple": 8}, r"no width in steps of 8: at least 1 and at most 7 of"),
    ],
)
def test_limits_that_leave_no_width_are_refused(limits, options, message):
    graph = Chain([20, 20], limits={"layer0": limits})
    with pytest.raises(UserError, match=message):
        Budget(macs=0.9, **options).on(graph)


def test_a_minimum_above_the_budget_is_refused():
    graph = Chain([20, 20], limits={"layer*": {"min": "90%"}})
    with pytest.raises(UserError, match="cannot be reached"):
        Budget(macs=0.5).on(graph)


def test_limited_widths_are_aligned_inwards():
    graph = Chain([20, 20, 20], limits={"layer0": {"min": 5, "max": 15}, "layer1": {"max": "100%"}})
    allowed = Budget(macs=0.9, channel_multiple=4).on(graph).allowed
    assert allowed.lowest.tolist() == [8, 4, 4] and allowed.highest.tolist() == [12, 20, 20]
    assert allowed.wider(torch.tensor([8, 16, 20])).tolist() == [12, 20, 20]
    assert allowed.down(torch.tensor([20, 20, 3])).tolist() == [12, 20, 4]


def test_batch_equals_single():
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)
    proposals = torch.rand(5, 12, generator=torch.Generator().manual_seed(2)) * graph.widths
    batch = graph.project(proposals, macs=0.5, params=0.4, channel_multiple=4)
    for proposal, row in zip(proposals, batch, strict=True):
        assert torch.equal(graph.project(proposal, macs=0.5, params=0.4, channel_multiple=4), row)


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_more_budget_keeps_more_of_a_uniform_proposal(metric):
    graph = gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)
    shares = [0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99]
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
    allowed = Budget(macs=0.9, channel_multiple=8).on(graph).allowed
    assert allowed.step.tolist() == [8, 4, 2]
    assert allowed.lowest.tolist() == [8, 4, 2]
    assert allowed.wider(torch.tensor([8, 4, 2])).tolist() == [16, 8, 3]
    assert allowed.down(torch.tensor([15, 7, 2])).tolist() == [8, 4, 2]


def test_alignment_wider_than_a_group_keeps_it_dense():
    allowed = Budget(macs=0.9, channel_multiple=8).on(Chain([5, 12])).allowed
    assert allowed.lowest.tolist() == [5, 8]
    assert allowed.down(torch.tensor([3, 11])).tolist() == [5, 8]


def test_limits_are_absolute():
    graph = CHAINS["two"]
    macs, params = 1 * 3 * 7 + 2 * 35 + 3 * 50, 21 + 35 + 50 + 7 + 5 + 10
    assert Budget(macs=0.5, params=100).on(graph).limits == {"macs": macs / 2, "params": 100}
    assert int(graph.cost.params(graph.widths)) == params
    assert fits({"macs": graph.cost.macs}, torch.tensor([[7, 5], [1, 1]]), {"macs": macs - 1}).tolist() == [False, True]


def test_an_impossible_budget_names_the_smallest_reachable():
    graph = CHAINS["two"]  # at widths 1, 1: 3 + 2 + 30 MACs, of 241
    with pytest.raises(UserError, match=r"macs is 0.1 .*smallest network has 35 macs \(0.1452 of"):
        Budget(macs=0.1).on(graph)
    message = r"^budget.params is 5, which .*smallest network has 26 params .*; give a larger limit, or 5% for a share$"
    with pytest.raises(UserError, match=message):
        Budget(macs=0.9, params=5).on(graph)
    with pytest.raises(UserError, match="cannot be reached"):
        Budget(macs=0.3, min_width=4).on(graph)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the budget is empty"),
        ({"macs": 0.0}, "macs is 0.0: expected a positive number"),
        ({"macs": -1}, "macs is -1: expected a positive number"),
        ({"macs": float("nan")}, "macs is nan: expected a positive number"),
        ({"params": float("inf")}, "params is inf: expected a positive number"),
        (
            {"energy": 0.5},
            "budget is 'energy': expected one of macs, params, nonzero, activations, latency, or",
        ),
        ({"mac": 0.5}, r"did you mean macs\?"),
        ({"macs": 1}, "macs is 1, which is neither a share nor absolute: write a share below 1 .* null for none"),
        ({"macs": 1.0}, "macs is 1.0, which is neither"),
        ({"macs": "100%"}, "macs is 100%, which is neither"),
        ({"macs": "150%"}, "macs is 150%, which is neither"),
        ({"macs": 1.5}, "macs is 1.5, which is neither"),
        ({"macs": "0.5k MAC"}, "macs is '0.5k MAC': expected a share such as 0.5 or 50%"),
        ({"macs": "0.0001k"}, "macs is 0.0001k, which is neither"),
        ({"macs": "half"}, "macs is 'half': expected a share"),
        ({"macs": "1.2.3"}, "macs is '1.2.3': expected a share"),
        ({"macs": True}, "macs is True: expected a share"),
        ({"limits": {"macs": 0.3}, "macs": 0.5}, "budget has macs twice"),
        ({"limits": {"tests.cost.nothing": 0.3}}, "budget 'tests.cost.nothing' cannot be imported"),
        ({"limits": [0.3]}, "budget.limits is \\[0.3\\]: expected limits by metric, such as"),
        ({"limits": 0.3}, "budget.limits is 0.3: expected limits by metric, such as"),
        ({"limits": {"math.pi": 0.3}}, "budget 'math.pi': expected a Metric, or a function"),
        ({"macs": 0.5, "channel_multiple": 0}, "channel_multiple is 0: expected at least 1"),
        ({"macs": 0.5, "channel_multiple": 1.5}, "channel_multiple is 1.5: expected a whole number, at least 1"),
        ({"macs": 0.5, "min_width": -1}, "min_width is -1: expected at least 0"),
        ({"macs": 0.5, "min_width": True}, "min_width is True: expected a whole number, at least 0"),
    ],
)
def test_bad_budgets_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Budget(**arguments)


def test_a_budget_above_the_dense_network_is_refused():
    with pytest.raises(UserError, match="242, more than the dense network has"):
        Budget(macs=242).on(CHAINS["two"])
    assert Budget(macs=241).on(CHAINS["two"]).limits == {"macs": 241.0}


def test_the_module_of_a_real_network_is_not_needed_to_project():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 2, 2))
    del network
    # 4 pixels: (3 w + 4 w) * 4 MACs of 224; half of them are four channels.
    assert graph.project(graph.widths, macs=0.5).tolist() == [4]
    assert graph.project(graph.widths, macs=0.49).tolist() == [3]
    assert graph.project(torch.tensor([2]), macs=0.49).tolist() == [3]


def energy(graph):
    """Two for each channel of the first group, three for all others."""
    return lambda widths: (2.0 * widths[..., 0] + 3.0 * widths[..., 1:].sum(-1)) / 4


def test_a_budget_says_what_it_is_and_is_bound_once():
    graph = CHAINS["two"]
    bound = []

    def counted(graph):
        bound.append(graph)
        return energy(graph)

    budget = Budget({counted: "60%"}, macs=200, channel_multiple=2)
    assert repr(budget) == "Budget(macs=200, counted=60%, channel_multiple=2, min_width=1)"
    assert budget.label == "macs=200,counted=0.6" and Budget(macs="50%").label == 0.5
    limits = budget.on(graph)
    assert list(limits.dense) == ["macs", "params", "counted"] and limits.dense["counted"] == (14 + 15) / 4
    assert limits.limits == {"macs": 200.0, "counted": 0.6 * 29 / 4}
    assert repr(limits) == "BoundBudget(macs <= 200 of 241, counted <= 4.35 of 7.25)"
    assert limits.share("macs") == 200 / 241 and limits.share("params") == 1
    assert limits.smallest.tolist() == [2, 2]
    widths = torch.tensor([2, 4])
    assert limits.costs(widths) == {"macs": 6 + 16 + 3 * 40, "params": 6 + 8 + 40 + 2 + 4 + 10, "counted": 4.0}
    assert limits.ratios({"macs": 100}) == {"macs_ratio": 100 / 241}
    assert limits.met(torch.tensor([[2, 4], [6, 2]])).tolist() == [True, False]
    limits.project(graph.widths)
    assert bound == [graph]


def test_other_limits_in_place_of_the_own():
    graph = CHAINS["three"]
    limits = Budget(macs=0.5, min_width=2).on(graph)
    assert limits.with_limits(macs=None, params=0.4).limits == {"params": 0.4 * limits.dense["params"]}
    both = {"macs": torch.tensor([100.0, 150.0]), "params": torch.tensor([90.0, 80.0])}
    projected = limits.project(graph.widths.repeat(2, 1), both)
    for row, macs, params in zip(projected, (100, 150), (90, 80), strict=True):
        assert torch.equal(row, Budget(macs=macs, params=params, min_width=2).on(graph).project(graph.widths))
    assert limits.met(projected, both).all()


def test_shares_refer_to_the_network_that_a_network_was_pruned_from():
    dense, left = CHAINS["three"], CHAINS["two"]  # any two networks: the second one's limits are the first one's
    limits = Budget(macs=0.4, params="40%").on(left, dense)
    whole = Budget(macs=0.4, params="40%").on(dense)
    assert limits.limits == whole.limits and limits.dense == whole.dense != Budget(macs=0.4).on(left).dense
    assert limits.ratios({"macs": whole.dense["macs"] / 4}) == {"macs_ratio": 0.25}
    for again in (limits.with_limits(macs=0.5), limits.bind(limits.budget.with_limits(macs=0.5)), limits.on(left)):
        assert again.original is dense and again.dense == whole.dense
    assert limits.with_limits(macs=0.5).limits["macs"] == 0.5 * whole.dense["macs"]


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda widths: widths, r"metric own gives the shape \(2, 2\) for two candidates: expected \(2,\)"),
        (lambda widths: widths.sum(-1) * float("nan"), r"metric own gives \[nan, nan\]"),
        (lambda widths: widths.sum(-1) * 0, r"metric own gives \[0, 0\]: .* the dense one above 0"),
        (
            lambda widths: widths.sum(-1).tolist(),
            r"metric own gives a list: expected a tensor \(2,\) for two",
        ),
        (lambda widths: widths.height, "metric own fails: 'Tensor' object has no attribute 'height'"),
    ],
)
def test_metrics_that_fail_are_refused(cost, message):
    def own(graph):
        return cost

    with pytest.raises(UserError, match=message):
        Budget({own: 0.5}).on(CHAINS["two"])
    with pytest.raises(UserError, match=message):
        Budget({Metric(own): 0.5}).on(CHAINS["two"])


def bumpy(graph, levels, seed):
    """A random cost of every candidate, which may rise when a group is narrowed; the lowest widths cost least."""
    shape = [width + 1 for width in graph.widths.tolist()]
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    values[tuple(level[0] for level in levels)] = 0.1
    return lambda widths: values[tuple(widths.unbind(-1))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("others", [{}, {"macs": 0.7, "channel_multiple": 2}, {"params": 0.6, "min_width": 2}])
@pytest.mark.parametrize("chain", CHAINS)
def test_projection_onto_a_cost_that_bumps(chain, others, seed):
    """Every limit is met and no group can be one step wider, by the definition, where the cost is random."""
    graph = CHAINS[chain]
    multiple, smallest = others.get("channel_multiple", 1), others.get("min_width", 1)
    levels = allowed_by_definition(graph, Budget(macs=0.5, channel_multiple=multiple, min_width=smallest))
    cost = bumpy(graph, levels, seed)
    try:
        bound = Budget({Metric(lambda graph: cost, unit="s"): "0.5 s"}, **others).on(graph)
    except UserError as error:
        assert "more than the dense network has" in str(error) or "cannot be reached" in str(error)
        return
    generator = torch.Generator().manual_seed(seed)
    proposals = torch.cat(
        [graph.widths[None].double(), torch.rand(10, len(levels), generator=generator) * graph.widths]
    )
    projected = bound.project(proposals)
    for row in projected:
        assert all(int(n) in level for n, level in zip(row, levels, strict=True))
        assert bound.met(row) and float(cost(row)) <= 0.5
        for group, level in enumerate(levels):
            wider = [n for n in level if n > int(row[group])]
            if wider:
                step = row.clone()
                step[group] = wider[0]
                assert not bound.met(step), f"group {group} of {row.tolist()} could be wider"


def test_groups_are_tried_again_where_a_cost_bumps():
    """From (1, 1) of a 3 x 3 lattice the first group does not fit at (2, 1), but does once the other is at 2."""
    values = torch.full((4, 4), 9.0)
    values[1, 1], values[1, 2], values[2, 2] = 1, 1, 1

    def cost(widths):
        return values[tuple(widths.unbind(-1))]

    graph = Chain([3, 3])
    allowed = Budget(macs=0.9).on(graph).allowed
    proposal = torch.tensor([[3.0, 1.0]])  # the first group is the one furthest below its proposal
    for monotone, expected in ((False, [[2, 2]]), (True, [[1, 2]])):
        assert project({"cost": cost}, allowed, proposal, {"cost": 1.0}, monotone).tolist() == expected


@pytest.mark.parametrize("chain", CHAINS)
def test_scanning_finds_what_bisection_finds_where_costs_are_monotone(chain):
    graph = CHAINS[chain]
    limits = Budget(macs=0.4, params=0.5).on(graph)
    generator = torch.Generator().manual_seed(3)
    proposals = torch.rand(20, len(graph.widths), generator=generator, dtype=torch.float64) * graph.widths
    scanned = project(limits.functions, limits.allowed, proposals, limits.limits, monotone=False)
    assert torch.equal(scanned, limits.project(proposals))


def test_whole_groups_may_go_where_the_latency_is_limited():
    assert Budget(latency=0.5).min_width == Budget(macs=0.5, latency="3 ms").min_width == 0
    assert Budget(macs=0.5).min_width == Budget(latency=0.5, min_width=1).min_width == 1
    assert Budget(latency=0.5, min_width=2).with_limits(macs=0.5).min_width == 2
