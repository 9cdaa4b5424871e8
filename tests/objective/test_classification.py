"""Classification against torchmetrics, and by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torchmetrics.functional.classification import multiclass_accuracy

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification, Segmentation
from gnnrl_lightning.objective.classification import AS_GOOD
from gnnrl_lightning.objective.protocol import added_up, measure


def drawn(examples, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(examples, classes, generator=generator)
    return logits, torch.randint(classes, (examples,), generator=generator)


def figures(logits, targets, batch=7):
    objective = Classification()
    parts = zip(logits.split(batch), targets.split(batch), strict=True)
    return measure(objective, added_up([objective.measure(*part).sums for part in parts]), len(targets))


@pytest.mark.parametrize("classes", [2, 5, 6, 20])
def test_figures_are_those_of_torchmetrics(classes):
    logits, targets = drawn(50, classes)
    found = figures(logits, targets)
    top = {1: "top1"} | ({5: "top5"} if classes > 5 else {})
    assert found.keys() == {*top.values(), "cross_entropy"}  # of five classes all are among the first five
    for k, name in top.items():
        share = multiclass_accuracy(logits, targets, classes, average="micro", top_k=k)
        assert found[name] == pytest.approx(100 * float(share))
    assert found["cross_entropy"] == pytest.approx(float(cross_entropy(logits, targets)))
    assert Classification().measure(logits, targets).scores.dtype == torch.bool


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distances_add_up_to_the_softened_divergence(temperature):
    ours, theirs = drawn(40, 6)[0], drawn(40, 6, 1)[0]
    goal = Classification(divergence_temperature=temperature)
    each = goal.distance(ours, theirs)
    softened = (log_softmax(logits / temperature, 1) for logits in (ours, theirs))
    expected = temperature**2 * kl_div(*softened, log_target=True, reduction="sum")
    assert each.sum() == expected  # to the last bit: the temperature is a power of two
    assert bool((each.sum(1) > 0).all()) and goal.distance(ours, ours).abs().max() == 0


def test_the_divergence_is_softened_by_default():
    ours, theirs = torch.tensor([[9.0, 0.0, 1.0]]), torch.tensor([[0.0, 9.0, 1.0]])
    plain, soft = Classification(divergence_temperature=1), Classification()
    assert float(soft.distance(ours, theirs).sum()) == pytest.approx(float(soft.distillation(ours, theirs, 4.0)))
    assert float(soft.distance(ours, theirs).sum()) != pytest.approx(float(plain.distance(ours, theirs).sum()), rel=0.5)
    for goal in (Classification, Segmentation):
        for temperature in (0.5, math.nan, math.inf):
            with pytest.raises(UserError, match=rf"divergence_temperature is {temperature}: expected a finite number"):
                goal(divergence_temperature=temperature)


def test_distillation_by_hand():
    """Two classes: softmax((0, 2 ln 3) / 2) = (1/4, 3/4), and an undecided network."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, 2 * math.log(3.0)]])
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert float(Classification().distillation(student, teacher, 2.0)) == pytest.approx(4 * divergence)
    assert float(Classification().distillation(teacher, teacher, 3.0)) == pytest.approx(0.0, abs=1e-7)


def test_the_loss_may_be_smoothed():
    logits, targets = drawn(20, 4)
    expected = cross_entropy(logits, targets, label_smoothing=0.1)
    assert Classification(label_smoothing=0.1).loss(logits, targets) == expected
    with pytest.raises(UserError, match=r"label_smoothing is 2\.0: expected a number from 0 to 1"):
        Classification(label_smoothing=2.0)


def test_ranking_is_top1_then_the_lower_cross_entropy():
    def merit(top1, loss):
        return Classification().merit({"top1": top1, "cross_entropy": loss})

    assert merit(80.0, 0.9) > merit(70.0, 0.1) and merit(80.0, 0.4) > merit(80.0, 0.5)
    assert merit(80.0, math.nan) < merit(80.0, math.inf) or merit(80.0, math.nan) == merit(80.0, math.inf)


class Data:
    num_classes = 5


@pytest.mark.parametrize(
    ("outputs", "data", "message"),
    [
        (torch.zeros(2, 3), Data(), "the network has 3 classes, the data has 5: set `num_classes`"),
        (torch.zeros(2, 3), None, "the network has 3 classes, and a target is 4: expected 0 to 2"),
        (torch.zeros(2, 5, 8, 8), Data(), r"returns \(2, 5, 8, 8\): expected logits \(examples, classes\)"),
        (torch.zeros(3, 5), Data(), r"returns \(3, 5\) for 2 examples: expected one each"),
        (
            (torch.zeros(2, 5),) * 2,
            Data(),
            r"a tuple: expected logits .*, as its only output or one named",
        ),
    ],
)
def test_outputs_that_do_not_fit_are_refused(outputs, data, message):
    Classification().check(torch.zeros(2, 5), torch.tensor([0, 4]), data)
    with pytest.raises(UserError, match=message):
        Classification().check(outputs, torch.tensor([0, 4]), data)


class Split:
    def __init__(self, *targets):
        self.targets = torch.tensor(targets)


class Splits:
    train, holdout = Split(0, 4, 1), Split(2)

    @property
    def test(self):
        raise AssertionError("the test examples are read once, at the end")


@pytest.mark.parametrize(
    ("targets", "data", "message"),
    [
        (torch.tensor([0.0, 1.0]), None, r"torch.float32: expected classes, .*; .* set objective: regression"),
        (torch.tensor([0, 1], dtype=torch.int32), None, "the targets are torch.int32: .* in torch.int64$"),
        (torch.tensor([[0, 1, 0], [1, 0, 0]]), None, r"\(2, 3\): expected \(examples,\), .*argmax of one-hot"),
        (torch.tensor([0, -1]), None, "the network has 3 classes, and a target is -1: expected 0 to 2"),
        (torch.tensor([0, 1]), Splits(), "the network has 3 classes, and a target is 4: expected 0 to 2"),
    ],
)
def test_targets_that_are_no_classes_are_refused(targets, data, message):
    with pytest.raises(UserError, match=message):
        Classification().check(torch.zeros(2, 3), targets, data)


def test_targets_are_drawn_by_the_networks_own_probabilities():
    logits = torch.tensor([[0.0, math.log(3.0)]]).expand(4000, 2)
    targets = Classification().draw(logits, torch.Generator().manual_seed(0))
    assert targets.shape == (4000,) and float(targets.float().mean()) == pytest.approx(0.75, abs=0.02)
    assert nn.functional.cross_entropy(logits, targets) > 0


def log_probs(*rows):
    return log_softmax(torch.tensor(rows), 1)


def test_agreement_by_hand():
    """Of 100 images one may be wrong; a class that is nearly as likely is not; and the outputs have to be close."""
    sure, other = [4.0, 0.0], [3.9, 0.0]
    reference = log_probs(*[sure] * 100)
    assert Classification().agrees(log_probs(*[other] * 100), reference)
    wrong = [0.0, 0.01]
    near = log_probs(*[[0.01, 0.0]] * 200)
    assert Classification().agrees(log_probs(*[wrong] * 200), near)  # ties: 0.01 < AS_GOOD
    assert AS_GOOD > 0.01
    close = [[0.12, 0.0]] * 200
    for count, expected in ((2, True), (3, False)):
        assert Classification().agrees(log_probs(*[[0.0, 0.01]] * count, *close[count:]), log_probs(*close)) is expected
    assert not Classification().agrees(log_probs(*[[2.0, 0.0]] * 100), log_probs(*[[3.0, 0.0]] * 100))
    assert not Classification().agrees(torch.full((100, 2), float("nan")), reference)
    sure, surer = torch.tensor([[20.0, 0.0]] * 100), torch.tensor([[24.0, 0.0]] * 100)
    assert Classification(divergence_temperature=64).agrees(surer, sure)  # it compares probabilities, not softened ones


def test_a_target_that_is_read_late_and_no_class_is_refused():
    outputs, targets = torch.zeros(2, 3), torch.tensor([0, 3])
    for compute in (Classification().loss, Classification().measure):
        with pytest.raises(UserError, match=r"the network has 3 classes: Target 3 is out of .*; expected .* 0 to 2"):
            compute(outputs, targets)
