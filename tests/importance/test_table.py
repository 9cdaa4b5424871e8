import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gnnrl_lightning
from gnnrl_lightning.calibration import least_squares
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance import IMPORTANCES, Importance, importance_scores, keep_best, surgeon
from tests.support.networks_hard import TiedWeights
from tests.support.networks_zoo import ZOO


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
    assert seen["calibration"].inputs is images and seen["calibration"].targets is None


def test_a_registered_criterion(monkeypatch):
    monkeypatch.setattr(IMPORTANCES, "_rows", dict(IMPORTANCES))
    IMPORTANCES.register("first", lambda network, p, c: {"a.bias": torch.tensor([0.0, 1.0, 2.0])})
    network = Two()
    assert traced(network).plan(network, torch.tensor([1]), importance="first").kept["a"].tolist() == [2]


class LargestBias:
    """A criterion that is a class."""

    def __call__(self, network, parameters, calibration):
        return {"a.bias": parameters["a.bias"]}


def by_number(context):
    return [torch.arange(size).reshape(1, -1) for size in context.sizes]


BY_NUMBER = Importance(by_number)


@pytest.mark.parametrize(("name", "kept"), [("LargestBias", [0]), ("BY_NUMBER", [2])])
def test_an_importance_by_its_import_path(name, kept):
    network = Two()
    importance = f"{__name__}.{name}"
    assert traced(network).plan(network, torch.tensor([1]), importance=importance).kept["a"].tolist() == kept


def test_an_importance_says_which_passes_it_takes():
    """A plain function may read the images and counts as one pass; two functions count as two."""
    passes = {name: row.passes for name, row in IMPORTANCES.items() if row.passes}
    assert passes == {"taylor": ("taylor",), "fisher": ("fisher",), "surgeon": ("moments",)}
    own = [IMPORTANCES.find(given).passes for given in (LargestBias, lambda network, parameters, calibration: {})]
    assert [len(each) for each in own] == [1, 1] and own[0] != own[1]
    assert IMPORTANCES.find(BY_NUMBER).passes == ()


def test_scores_of_another_shape_are_refused():
    with pytest.raises(UserError, match=r"importance .*returns scores of shapes \[\(3,\)\]: expected \[\(1, 3\)\]"):
        scores_of(Two(), Importance(lambda context: [torch.zeros(3)]))


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
    with pytest.raises(UserError, match=r"importance is 'l3': expected one of l1, l2.* or an import path"):
        traced(network).plan(network, torch.tensor([2]), importance="l3")


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([0], "the width of a is 0: expected 1 to 3"),
        ([4], "the width of a is 4: expected 1 to 3"),
        ([1, 2], r"widths has the shape \(2,\): expected \(1,\)"),
        ([1.5], r"widths is \[1.5\]: expected whole numbers of channels"),
        ([float("nan")], r"widths is \[nan\]: expected finite numbers"),
        ([[2]], r"widths has the shape \(1, 1\): expected \(1,\)"),
    ],
)
def test_widths_that_do_not_fit_are_refused(widths, message):
    network = Two()
    with pytest.raises(UserError, match=message):
        traced(network).plan(network, torch.tensor(widths))


def scores_of(network, name, calibration=None, example=None, **options):
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 2) if example is None else example, self_test=False)
    return importance_scores(graph, network, name, calibration, **options)


class Normed(nn.Module):
    """Two convolutions with batch norms, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3), nn.Linear(4, 10)
        self.norms = nn.ModuleList([nn.BatchNorm2d(5), nn.BatchNorm2d(4)])
        for norm in self.norms:
            nn.init.normal_(norm.weight)

    def forward(self, x):
        x = F.relu(self.norms[0](self.a(x)), inplace=True)
        return self.head(F.relu(self.norms[1](self.b(x)), inplace=True).mean((2, 3)))


def test_batch_norm_scale():
    network = Normed()
    a, b = scores_of(network, "batch_norm", example=torch.randn(1, 3, 8, 8))
    assert torch.allclose(a, network.norms[0].weight.abs().double()[None])
    assert torch.allclose(b, network.norms[1].weight.abs().double()[None])


def test_a_criterion_without_a_word_on_a_group_is_refused():
    with pytest.raises(UserError, match="has no scores for the channels of a"):
        scores_of(Two(), "batch_norm")


def test_scores_that_are_not_finite_are_refused():
    network = Two()
    with torch.no_grad():
        network.a.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match="importance l1 returns scores that are not finite for a"):
        scores_of(network, "l1")


def test_geometric_median_against_all_pairs():
    network = Two()
    (scores,) = scores_of(network, "geometric_median")
    vectors = torch.cat([network.a.weight, network.b.weight.T], 1).detach().double()
    expected = [sum(float((x - y).norm()) for y in vectors) for x in vectors]
    assert scores[0].tolist() == pytest.approx(expected)


def test_geometric_median_in_each_index_set():
    network = ZOO["Grouped"].build()
    stem, _ = scores_of(network, "geometric_median", example=ZOO["Grouped"].inputs())
    made, read = network.stem.weight.flatten(1), network.grouped.weight.reshape(2, 3, 4, 9).transpose(1, 2).flatten(2)
    for block in range(2):
        vectors = torch.cat([made[4 * block : 4 * block + 4], read[block]], 1).double()
        assert torch.allclose(stem[block], torch.cdist(vectors, vectors).sum(1), atol=1e-5)


def test_random_is_a_fixed_order():
    first, second = scores_of(Two(), "random"), scores_of(Two(), "random")
    assert torch.equal(first[0], second[0]) and len(set(first[0][0].tolist())) == 3


def labelled(images=40):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, 3, 8, 8, generator=generator), torch.randint(10, (images,), generator=generator)


def test_taylor_against_the_gradients_of_two_batches():
    network = Normed().eval()
    images, labels = labelled()
    a, _ = scores_of(network, "taylor", (images, labels), images[:1])
    expected = torch.zeros(5)
    for batch, target in zip(images.split(32), labels.split(32), strict=True):
        network.zero_grad()
        F.cross_entropy(network(batch), target).backward()
        moved = {name: (p * p.grad).detach().square() for name, p in network.named_parameters()}
        expected += moved["a.weight"].sum((1, 2, 3)) + moved["a.bias"] + moved["norms.0.weight"] + moved["norms.0.bias"]
        expected += moved["b.weight"].sum((0, 2, 3))
    assert torch.allclose(a[0].float(), expected, rtol=1e-4)


def test_fisher_against_masks_one_image_at_a_time():
    network = Normed().eval()
    images, labels = labelled()
    scores = scores_of(network, "fisher", (images, labels), images[:1])
    expected = [torch.zeros(5), torch.zeros(4)]
    for image, label in zip(images, labels, strict=True):
        masks = [torch.ones(1, n, 1, 1, requires_grad=True) for n in (5, 4)]
        x = network.norms[0](network.a(image[None])).relu() * masks[0]
        x = network.norms[1](network.b(x)).relu() * masks[1]
        loss = F.cross_entropy(network.head(x.mean((2, 3))), label[None])
        for total, gradient in zip(expected, torch.autograd.grad(loss, masks), strict=True):
            total += gradient.flatten().square()
    for mine, theirs in zip(scores, expected, strict=True):
        assert torch.allclose(mine[0].float(), theirs, rtol=1e-4, atol=1e-9)


def test_fisher_sums_over_readers_before_it_squares():
    """A residual stream: the mask of a channel works wherever the channel is read."""
    network = ZOO["ThreeBranches"].build().eval()
    images, labels = labelled(6)
    scores = scores_of(network, "fisher", (images, labels), images[:1])
    names = [group.name for group in gnnrl_lightning.trace(network, images[:1], self_test=False).groups]
    stream = scores[names.index("branches.0")][0]
    expected = torch.zeros(6)
    for image, label in zip(images, labels, strict=True):
        mask = torch.ones(1, 6, 1, 1, requires_grad=True)
        x = sum(branch(image[None]) for branch in network.branches).sigmoid() * mask
        loss = F.cross_entropy(network.head(network.out(x).mean((2, 3))), label[None])
        expected += torch.autograd.grad(loss, mask)[0].flatten().square()
    assert torch.allclose(stream.float(), expected, rtol=1e-4)


def test_fisher_of_tied_weights():
    """Two modules with one weight: the mask of their one group works in front of both, and of the last layer."""
    network = TiedWeights().eval()
    images, labels = labelled(6)
    (scores,) = scores_of(network, "fisher", (images, labels), images[:1])
    expected = torch.zeros(6)
    for image, label in zip(images, labels, strict=True):
        mask = torch.ones(1, 6, 1, 1, requires_grad=True)
        x = network.b(network.a(network.stem(image[None]) * mask).sigmoid() * mask) * mask
        loss = F.cross_entropy(network.head(x.mean((2, 3))), label[None])
        expected += torch.autograd.grad(loss, mask)[0].flatten().square()
    assert torch.allclose(scores[0].float(), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_gradients_leave_the_network_as_it_is(name):
    network = Normed().train()
    network.requires_grad_(False)
    images, _ = labelled(4)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    first, second = (scores_of(network, name, images, images[:1]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert network.training and not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", ["taylor", "fisher", "surgeon"])
def test_data_is_asked_for(name):
    with pytest.raises(UserError, match="give calibration=inputs"):
        scores_of(Two(), name)


def test_gradients_need_logits():
    with pytest.raises(UserError, match=r"expected logits .*, as its only output or one named logits"):
        scores_of(ZOO["Outputs"].build(), "taylor", labelled(2)[0], torch.zeros(1, 3, 8, 8))


def removal_costs(network, x, alive):
    """Least-squares error of the last layer without each channel, by brute force."""
    hidden = network.a(x).relu().detach().double().numpy()
    target = hidden @ network.b.weight.detach().double().numpy().T
    costs = {}
    for gone in alive:
        rest = [i for i in alive if i != gone]
        design = np.concatenate([hidden[:, rest], np.ones((len(x), 1))], 1)
        fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
        costs[gone] = ((fitted - target) ** 2).sum()
    return costs


def test_surgeon_removes_what_costs_least_after_a_new_fit(monkeypatch):
    monkeypatch.setattr(least_squares, "RIDGE", 1e-9)
    network = Two()
    network.a, network.b = nn.Linear(2, 7), nn.Linear(7, 3)
    x = torch.randn(2000, 2)
    (scores,) = scores_of(network, "surgeon", x)
    alive, order = list(range(7)), []
    while len(alive) > 1:
        costs = removal_costs(network, x, alive)
        order.append(min(costs, key=costs.__getitem__))
        alive.remove(order[-1])
    assert scores[0].argsort().tolist() == order + alive


class Doubled(nn.Module):
    """Channel 1 is twice channel 0 and has small weights in one of two readers, channel 2 is alone."""

    def __init__(self, second):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 3, bias=False), nn.Linear(3, 1), nn.Linear(3, 1)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.1]]))
            self.b.weight.copy_(torch.tensor([[1.0, 1.0, 1.0]]))
            self.c.weight.copy_(torch.tensor([[0.0, 0.0, second]]))

    def forward(self, x):
        return self.b(self.a(x)) + self.c(self.a(x)).tanh()


@pytest.mark.parametrize(("second", "last"), [(0.0, [0, 1]), (1000.0, [2])])
def test_surgeon_sums_over_readers(second, last):
    """Of the equal two one goes at once, at no cost; then the second reader decides."""
    (scores,) = scores_of(Doubled(second), "surgeon", torch.randn(500, 2))
    order = scores[0].argsort().tolist()
    assert order[0] in (0, 1) and order[2] in last


@pytest.mark.parametrize(
    "name", ["Grouped", "GroupedShuffle", "DenseConcat", "C2f", "Flatten", "Transposed", "Shuffle"]
)
def test_surgeon_orders_every_index_set(name):
    case = ZOO[name]
    network = case.build().eval()
    images = torch.randn(20, *case.shapes[0][1:])
    graph = gnnrl_lightning.trace(network, images[:1], self_test=False)
    for group, scores in zip(graph.groups, importance_scores(graph, network, "surgeon", images), strict=True):
        assert scores.shape == (group.sets, group.width)
        assert all(sorted(row) == list(range(group.width)) for row in scores.tolist())


def test_surgeon_removes_many_at_once_where_there_are_many(monkeypatch):
    monkeypatch.setattr(surgeon, "AT_ONCE", 2)
    network = Two()
    network.a, network.b = nn.Linear(2, 9), nn.Linear(9, 3)
    (scores,) = scores_of(network, "surgeon", torch.randn(200, 2))
    assert sorted(scores[0].tolist()) == list(range(9))


def test_surgeon_needs_a_reader():
    with pytest.raises(UserError, match="no layer with known inputs reads a"):
        scores_of(Two(), "surgeon", torch.randn(4, 2), moments={})
