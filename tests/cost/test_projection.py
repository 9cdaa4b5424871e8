"""Projection where groups may be removed entirely."""

import pytest
import torch

from gnnrl_lightning import Budget, trace
from gnnrl_lightning.cost.projection import AllowedWidths
from gnnrl_lightning.cost.ranges import NONE, log_keep
from gnnrl_lightning.errors import UserError
from tests.support.networks_branches import Inception, Residual


@pytest.fixture(scope="module", params=[Residual, Inception])
def graph(request):
    return trace(request.param(), torch.zeros(1, 3, 10, 10))


def proposals(graph, count=64):
    """Keep ratios of which many stand for less than a channel."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, len(graph.widths), generator=generator, dtype=torch.float64) ** 4 * graph.widths


@pytest.mark.parametrize("macs", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("channel_multiple", [1, 2])
def test_what_is_proposed_absent_stays_absent(graph, macs, channel_multiple):
    """Candidates meet the budget, lack what is proposed absent and what is of no use without it; others cannot grow."""
    limits = Budget(macs=macs, channel_multiple=channel_multiple, min_width=0).on(graph)
    given = proposals(graph)
    found, removable = limits.project(given), graph.removable
    assert limits.met(found).all()
    gone = (given <= 0.5) & removable.groups
    for _ in range(len(gone[0])):  # the definition of what is of no use, one step at a time
        gone = gone | ((gone[:, :, None] & removable.useless).any(1))
    assert (found[gone] == 0).all() and bool(gone.any())
    assert (found[~gone & ~removable.groups] > 0).all()
    for row in found:
        for group in (row > 0).nonzero()[:, 0].tolist():
            wider = limits.allowed.wider(row)[group]
            assert wider == row[group] or not limits.met(row.index_fill(0, torch.tensor([group]), int(wider)))
    assert torch.equal(limits.project(found), found)


def test_groups_go_of_themselves_only_where_one_channel_each_is_too_much(graph):
    one_each = Budget(macs=0.9).on(graph).smallest
    enough = int(graph.cost.macs(one_each))
    assert (Budget(macs=enough, min_width=0).on(graph).project(graph.widths) > 0).all()
    below = Budget(macs=enough - 1, min_width=0).on(graph)
    found = below.project(graph.widths)
    assert below.met(found) and (found == 0).any()
    assert not bool(((found > 0) & graph.removable.useless[found == 0].any(0)).any())
    with pytest.raises(UserError, match="cannot be reached"):
        Budget(macs=enough - 1).on(graph)


def test_without_absent_groups_the_smallest_width_makes_no_difference(graph):
    given = proposals(graph).clamp(min=1)
    found = [Budget(macs=0.4, min_width=least).on(graph).project(given) for least in (0, 1)]
    assert torch.equal(*found)


def test_a_lowest_width_given_by_the_user_holds(graph):
    name = graph.groups[int(graph.removable.groups.nonzero()[0])].name
    limits = Budget(macs=0.2, min_width=0).on(graph.limited({name: {"min": "1%"}}))
    number = [group.name for group in graph.groups].index(name)
    assert (limits.project(proposals(graph))[:, number] > 0).all()
    assert not limits.met(limits.project(graph.widths).index_fill(0, torch.tensor([number]), 0))


def test_rounding_removes_at_half_a_channel():
    dense, removable = torch.tensor([8, 8]), torch.tensor([True, False])
    allowed = AllowedWidths(dense, torch.tensor([1, 1]), min_width=0, removable=removable)
    assert allowed.lowest.tolist() == [0, 1]
    given = torch.tensor([[0.2, 0.2], [0.5, 0.5], [0.6, 0.6], [7.6, 2.4]])
    assert allowed.round(given)[:, 0].tolist() == [0, 0, 1, 8]
    assert allowed.hold(torch.tensor([[0, 1], [8, 8]])).tolist() == [True, True]


def test_no_channel_has_a_finite_logarithm():
    dense = torch.tensor([4, 16])
    logs = log_keep(torch.tensor([[0, 16], [1, 8]]), dense)
    torch.testing.assert_close(logs.exp() * dense, torch.tensor([[NONE, 16], [1, 8]], dtype=torch.float64))
