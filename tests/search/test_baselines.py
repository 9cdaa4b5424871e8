"""Starting candidates on ResNet-20: within budget, maximal, and shaped as they say."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.networks.cifar_resnet import resnet20
from gnnrl_lightning.search.baselines import STARTING, starting_candidates, tapered

STREAMS = [0, 5, 9]
"""The groups of ResNet-20 that are residual streams; the nine others are inner widths of blocks."""


@pytest.fixture(scope="module")
def graph():
    return gnnrl_lightning.trace(resnet20(), torch.zeros(1, 3, 8, 8), self_test=False)


@pytest.mark.parametrize(
    "budget", [Budget(macs=0.5), Budget(macs=0.8, params=0.3), Budget(macs=0.4, channel_multiple=4), Budget(macs=0.999)]
)
def test_every_candidate_fits_and_cannot_be_wider(graph, budget):
    limits = budget.on(graph)
    candidates = starting_candidates(graph, limits)
    assert list(candidates) == list(STARTING) and "uniform" in candidates
    for name, widths in candidates.items():
        assert widths.shape == graph.widths.shape and widths.dtype == torch.int64
        assert limits.met(widths[None]).all(), name
        step = budget.channel_multiple
        wider = torch.minimum(widths + step * torch.eye(12, dtype=torch.int64), graph.widths)
        assert not limits.met(wider)[widths < graph.widths].any(), name


def test_uniform_keeps_one_ratio(graph):
    """Every width is within one channel of the same share of its dense width."""
    widths = starting_candidates(graph, Budget(macs=0.5).on(graph))["uniform"]
    shares = torch.linspace(0.5, 0.9, 401)[:, None]
    distance = (widths - shares * graph.widths).abs().max(1)[0]
    assert distance.min() <= 1
    ratio = int(graph.cost.macs(widths)) / int(graph.cost.macs(graph.widths))
    assert 0.495 < ratio <= 0.5


@pytest.mark.parametrize(("name", "sign"), [("tapered_up", 1), ("tapered_down", -1)])
def test_tapered_ratios_run_in_one_direction(graph, name, sign):
    ratios = starting_candidates(graph, Budget(macs=0.5).on(graph))[name] / graph.widths
    third = len(ratios) // 3
    assert sign * (ratios[-third:].mean() - ratios[:third].mean()) > 0.15


def test_a_taper_to_one_is_uniform(graph):
    limits = Budget(macs=0.5).on(graph)
    assert torch.equal(tapered(1.0)(graph, limits), STARTING["uniform"](graph, limits))


def test_streams_stay_dense_where_the_inner_widths_suffice(graph):
    ratios = starting_candidates(graph, Budget(macs=0.5).on(graph))["streams_kept"] / graph.widths
    inner = [i for i in range(12) if i not in STREAMS]
    assert (ratios[STREAMS] == 1).all()
    assert ratios[inner].max() < 0.6


def test_streams_follow_where_the_inner_widths_do_not_suffice(graph):
    """With one channel in every block, the residual streams still cost more than 2 % of the MACs."""
    limits = Budget(macs=0.02).on(graph)
    alone = graph.widths.clone()
    alone[[i for i in range(12) if i not in STREAMS]] = 1
    assert not limits.met(alone[None]).any()
    widths = starting_candidates(graph, limits)["streams_kept"]
    assert limits.met(widths[None]).all() and (widths[STREAMS] < graph.widths[STREAMS]).any()


def test_a_network_of_which_only_weights_are_masked_has_starting_candidates():
    graph = gnnrl_lightning.trace(nn.Sequential(nn.Linear(64, 10)), torch.zeros(1, 64), masks=[nn.Linear])
    limits = Budget(nonzero=0.3).on(graph)
    found = torch.stack(list(starting_candidates(graph, limits).values()))
    assert graph.sets.tolist() == [0] and limits.met(found).all() and (found == found[0]).all()
