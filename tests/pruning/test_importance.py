import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.pruning.importance import CRITERIA, importance_scores, keep_best
from tests.networks_zoo import ZOO


class Two(nn.Module):
    """Three channels between two linear layers, with a bias that criteria of weights do not count."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 1)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.0], [-1.0, -1.0]]))
            self.a.bias.copy_(torch.tensor([100.0, 0.0, 0.0]))
            self.b.weight.copy_(torch.tensor([[-4.0, 0.5, 2.0]]))

    def forward(self, x):
        return self.b(self.a(x).relu())


def traced(network):
    return gnnrl_lightning.trace(network, torch.zeros(1, 2), self_test=False)


def test_by_hand():
    network = Two()
    graph = traced(network)
    (scores,) = importance_scores(graph, network, "l1", None)
    assert scores.tolist() == [[3 + 4, 3 + 0.5, 2 + 2]]
    (scores,) = importance_scores(graph, network, "l2", None)
    assert scores.tolist() == [[5 + 16, 9 + 0.25, 2 + 4]]


@pytest.mark.parametrize(("name", "kept"), [("l1", [0, 2]), ("l2", [0, 1])])
def test_the_plan_keeps_the_highest_scores(name, kept):
    network = Two()
    plan = traced(network).plan(network, torch.tensor([2]), importance=name)
    assert plan.kept["a"].tolist() == kept
    pruned = plan.apply(network)
    assert torch.equal(pruned.a.weight, network.a.weight[kept])
    assert torch.equal(pruned.a.bias, network.a.bias[kept])
    assert torch.equal(pruned.b.weight, network.b.weight[:, kept])


def test_a_users_own_criterion():
    seen = {}

    def largest_bias(network, parameters, calibration):
        seen.update(parameters=sorted(parameters), calibration=calibration)
        return {"a.bias": -parameters["a.bias"]}

    network, images = Two(), torch.ones(4, 2)
    plan = traced(network).plan(network, torch.tensor([2]), importance=largest_bias, calibration=images)
    assert plan.kept["a"].tolist() == [1, 2]
    assert seen["parameters"] == ["a.bias", "a.weight", "b.weight"]
    assert seen["calibration"] is images


def test_a_registered_criterion(monkeypatch):
    monkeypatch.setitem(CRITERIA, "first", lambda network, p, c: {"a.bias": torch.tensor([0.0, 1.0, 2.0])})
    network = Two()
    assert traced(network).plan(network, torch.tensor([1]), importance="first").kept["a"].tolist() == [2]


def test_every_set_of_a_group_has_scores_of_its_own():
    """Grouped convolution: each block of filters reads four channels of its own, and they count as read."""
    network = ZOO["Grouped"].build()
    graph = gnnrl_lightning.trace(network, ZOO["Grouped"].inputs(), self_test=False)
    stem, grouped = importance_scores(graph, network, "l2", None)
    weight = network.grouped.weight.detach().double().square()
    made = network.stem.weight.detach().double().square().sum((1, 2, 3)).reshape(2, 4)
    read = torch.stack([weight[:3].sum((0, 2, 3)), weight[3:].sum((0, 2, 3))])
    assert torch.allclose(stem, made + read)
    head = network.head.weight.detach().double().square().sum(0)
    assert torch.allclose(grouped, (weight.sum((1, 2, 3)) + head).reshape(2, 3))


def test_ties_keep_the_first():
    assert keep_best(torch.tensor([[1.0, 2.0, 1.0, 2.0, 2.0]]), 2).tolist() == [[1, 3]]
    assert keep_best(torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0]]), 3).tolist() == [[0, 1, 3]]
    assert keep_best(torch.zeros(2, 4), 3).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_kept_ranks_ascend_in_every_set():
    scores = torch.tensor([[5.0, 1.0, 9.0, 7.0], [0.0, 3.0, 2.0, 1.0]])
    assert keep_best(scores, 2).tolist() == [[2, 3], [1, 2]]
    assert keep_best(scores, 4).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_an_unknown_criterion_is_refused():
    network = Two()
    with pytest.raises(UserError, match=r"importance is 'l3': expected one of l1, l2.* or a callable"):
        traced(network).plan(network, torch.tensor([2]), importance="l3")


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([0], "the width of a is 0: expected 1 to 3"),
        ([4], "the width of a is 4: expected 1 to 3"),
        ([1, 2], r"widths has the shape \(2,\): expected \(1,\)"),
        ([[2]], r"widths has the shape \(1, 1\): expected \(1,\)"),
    ],
)
def test_widths_that_do_not_fit_are_refused(widths, message):
    network = Two()
    with pytest.raises(UserError, match=message):
        traced(network).plan(network, torch.tensor(widths))
