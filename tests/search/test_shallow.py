"""Candidates without whole groups."""

import pytest
import torch

from gnnrl_lightning import Budget, trace
from gnnrl_lightning.networks.cifar_resnet import CIFARResNet
from gnnrl_lightning.search import shallow
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, SHALLOW, STARTING, allocation_candidates, starting_count
from gnnrl_lightning.search.shallow import without_least
from tests.support.fakes import random_sensitivity


def test_the_groups_that_lose_least_go_and_the_others_use_the_budget():
    graph = trace(CIFARResNet(2, num_classes=4), torch.zeros(1, 3, 16, 16))
    sensitivity = random_sensitivity(graph)
    limits = Budget(macs=0.4, min_width=0).on(graph)
    removable = limits.allowed.removable.nonzero()[:, 0].tolist()
    least = sorted(removable, key=lambda group: float(sensitivity.losses[group, 0]))
    half = graph.widths // 2
    for number in (0, 2, len(removable), 99):
        widths = without_least(number, half, limits, sensitivity)
        assert set((widths == 0).nonzero()[:, 0].tolist()) == set(least[:number])
        assert limits.met(widths) and torch.equal(limits.project(widths), widths)
    found = allocation_candidates(graph, limits, sensitivity)
    assert [int((found[name] == 0).sum()) for name in SHALLOW] == [round(len(removable) / n) for n in (6, 3, 2)]
    assert starting_count(True, limits) == len(STARTING) + len(found) == starting_count(False, limits) + 5
    whole = Budget(macs=0.4).on(graph)
    assert list(allocation_candidates(graph, whole, sensitivity)) == list(FROM_SENSITIVITY)
    assert starting_count(True, whole) == len(STARTING) + 2


@pytest.mark.parametrize(("count", "gone"), [(1, [1]), (2, [1]), (3, [1, 2]), (4, [1, 2])])
def test_of_few_groups_at_least_one_goes_and_no_candidate_is_paid_for_twice(count, gone):
    graph = trace(CIFARResNet(2, num_classes=4), torch.zeros(1, 3, 16, 16))
    stay = graph.removable.groups.nonzero()[count:, 0].tolist()
    graph = graph.limited({graph.groups[number].name: {"min": 0.2} for number in stay})
    limits, sensitivity = Budget(macs=0.6, min_width=0).on(graph), random_sensitivity(graph)
    found = allocation_candidates(graph, limits, sensitivity)
    assert [int((found[name] == 0).sum()) for name in found if name in SHALLOW] == gone
    assert starting_count(True, limits) == len(STARTING) + len(found)


def test_groups_that_dynamic_programming_lacks_are_not_counted(monkeypatch):
    """It has removed all but three: one or two of these go. If it has removed all, nothing is scored twice."""
    graph = trace(CIFARResNet(2, num_classes=4), torch.zeros(1, 3, 16, 16))
    limits, sensitivity = Budget(macs=0.6, min_width=0).on(graph), random_sensitivity(graph)
    removable = limits.allowed.removable.nonzero()[:, 0]
    for gone, expected in ((len(removable) - 3, [1, 2]), (len(removable), [])):
        planned = limits.project(graph.widths.index_fill(0, removable[:gone], 0))
        monkeypatch.setitem(FROM_SENSITIVITY, "dynamic_programming", lambda *given, widths=planned: widths)
        monkeypatch.setattr(shallow, "dynamic_programming", lambda *given, widths=planned: widths)
        found = allocation_candidates(graph, limits, sensitivity)
        lacking = [int((found[name] == 0).sum()) - gone for name in found if name in SHALLOW]
        assert lacking == expected and starting_count(True, limits) >= len(STARTING) + len(found)
