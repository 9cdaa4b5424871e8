"""Distillation: what is compared, and with what."""

import copy

import pytest
import torch
from torch import nn

from gnnrl_lightning import UserError, trace
from gnnrl_lightning.networks import mobilenet_v2, resnet20
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.surgery.layers import kept_inputs
from gnnrl_lightning.training.distillation import DISTILLATIONS, Lesson, Teacher, paired, read_by
from gnnrl_lightning.training.module import SupervisedModule
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import train
from gnnrl_lightning.training.trial import check_training


def small(width=16, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)).eval()


def test_features_are_relative_squared_errors_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]])
    pairs = [(student, teacher), (torch.tensor([3.0]), torch.tensor([0.0])), (2 * teacher, teacher)]
    logits = torch.tensor([[1.0, -1.0]])
    lesson = Lesson(Classification(), 4.0, logits, logits, pairs)
    assert float(DISTILLATIONS["outputs"](lesson)) == pytest.approx(0, abs=1e-6)
    # (1 + 1) / 5, nothing for a teacher of zeros, 5 / 5
    assert float(DISTILLATIONS["features"](lesson)) == pytest.approx((0.4 + 0 + 1) / 3)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(3, 2), torch.randn(4, 5, 3)),
        (nn.Conv1d(3, 2, 1), torch.randn(4, 3, 6)),
        (nn.Conv2d(3, 2, 1), torch.randn(4, 3, 6, 5)),
        (nn.Conv2d(3, 2, 1), torch.randn(3, 6, 5)),
        (nn.ConvTranspose2d(3, 2, 1), torch.randn(4, 3, 6, 5)),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, nn.Module) else "x".join(map(str, given.shape)),
)
def test_the_kept_channels_of_what_a_layer_reads_are_recorded(layer, inputs):
    network = nn.ModuleDict({"layer": layer, "other": nn.BatchNorm1d(3)})
    channels = inputs.shape.index(3)
    with read_by(network, {"layer.weight": torch.tensor([0, 2]), "other.weight": None, "gone.weight": None}) as found:
        layer(inputs)
        layer(input=2 * inputs)
    layer(inputs)  # recorded no more
    first, second = found.pop("layer.weight")
    assert not found and torch.equal(second, 2 * first)
    assert torch.equal(first, torch.cat([inputs.narrow(channels, at, 1) for at in (0, 2)], channels))


def test_layers_that_ran_in_one_network_alone_are_left_out():
    one, two = torch.ones(1), torch.zeros(1)
    ours = {"a": [one, two], "b": [one], "removed": [one]}
    assert paired(ours, {"a": [two, one], "b": [two, two], "c": [one]}) == [(one, two), (two, one)]


@pytest.mark.parametrize("make", [resnet20, mobilenet_v2])
def test_layers_of_a_pruned_network_read_the_kept_channels_of_the_masked_one(make):
    """Surgery is exact, so that no layer may differ from the dense network in which the other channels are ignored."""
    torch.manual_seed(0)
    network, images = make(num_classes=10).eval().double(), torch.randn(2, 3, 32, 32).double()
    graph = trace(network, images[:1])
    plan = graph.plan(network, graph.project(graph.widths, macs=0.4))
    kept = kept_inputs(graph, plan.selection)
    assert len(kept) > 15
    pruned, masked = plan.apply(network), plan.mask(network)
    with torch.no_grad(), read_by(pruned, dict.fromkeys(kept)) as ours, read_by(masked, kept) as theirs:
        pruned(images)
        masked(images)
    pairs = paired(ours, theirs)
    assert len(pairs) == len(kept) and all(first.shape == second.shape for first, second in pairs)
    errors = [float((first - second).abs().max() / second.abs().max()) for first, second in pairs]
    assert max(errors) < 1e-6


def test_a_student_of_features_reads_what_its_teacher_reads(digits):
    teacher = small(seed=1)
    train(teacher, digits, TrainingOptions(epochs=3), Classification())
    images, graph = digits.normalize(digits.test.images), trace(teacher, torch.randn(1, 1, 8, 8))
    plan = graph.plan(teacher, torch.tensor([8]))
    kept, start = kept_inputs(graph, plan.selection), plan.apply(teacher)
    with torch.no_grad():
        start[1].weight.mul_(0.5)  # to be learned again
    away = {}
    for name in DISTILLATIONS:
        student = copy.deepcopy(start)
        options = TrainingOptions(epochs=2, learning_rate=0.02, distillation=name, distillation_weight=1.0)
        train(student, digits, options, Classification(), teacher=Teacher(teacher, kept))
        with torch.no_grad(), read_by(student, dict.fromkeys(kept)) as ours, read_by(teacher, kept) as theirs:
            student(images), teacher(images)
        ((read, taught),) = paired(ours, theirs)
        away[name] = float((read - taught).square().sum() / taught.square().sum())
    assert away["features"] < 0.7 * away["outputs"]


def vector(lesson):
    return torch.zeros(3)


def test_a_distillation_that_gives_no_number_is_refused_before_the_training(digits):
    network = small()
    path = f"{__name__}.vector"
    given = network, TrainingOptions(distillation=path, distillation_weight=0.5), Classification(), digits
    with pytest.raises(UserError, match=rf"distillation '{path}' fails: .*; expected a finite number"):
        check_training(*given, Teacher(network))
    with pytest.raises(
        UserError, match="distillation is 'hints': expected one of outputs, features, or an import path"
    ):
        TrainingOptions(distillation="hints")


def test_a_teacher_is_no_part_of_the_module(digits):
    options = TrainingOptions(distillation_weight=0.5)
    module = SupervisedModule(small(), options, Classification(), Teacher(small(seed=1)))
    assert not [name for name in module.state_dict() if "teacher" in name]
    assert len(list(module.modules())) == 1 + len(list(small().modules()))
