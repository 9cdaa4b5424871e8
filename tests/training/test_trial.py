"""A step of the training is tried before anything else: what is wrong is one line."""

import copy

import pytest
import torch
from torch import nn

from gnnrl_lightning.data import ExampleData, ExampleSet, LoadedExamples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.trial import check_training
from tests.support.networks_code import Viewing


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 10)).eval()


class Few(ExampleData):
    def __init__(self, examples, batch_size):
        super().__init__(batch_size=batch_size)
        self.examples = examples

    def load(self):
        inputs = torch.linspace(0, 1, 64 * self.examples).view(-1, 1, 8, 8)
        every = ExampleSet(inputs, torch.arange(self.examples) % 10)
        return LoadedExamples(every, every, validation=every)


class Step(torch.optim.Optimizer):
    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})


class WithoutClosure(Step):
    def step(self):
        pass


class Ignoring(Step):
    def step(self, closure=None):
        pass


class ToNaN(Step):
    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.fill_(float("nan"))
        return loss


class PerExample(Classification):
    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, reduction="none")


class AsNumber(Classification):
    def loss(self, outputs, targets):
        return 1.0


class Detached(Classification):
    def loss(self, outputs, targets):
        return super().loss(outputs, targets).detach()


class NotANumber(Classification):
    def loss(self, outputs, targets):
        return super().loss(outputs, targets) * float("nan")


class Failing(Classification):
    def loss(self, outputs, targets):
        return outputs.logits


class Layer(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.layer = nn.Linear(*sizes)


class InTraining(Layer):
    def forward(self, x):
        if self.training:
            raise RuntimeError("no statistics")
        return self.layer(x)


class Parts(Layer):
    def forward(self, x):
        return (self.layer(x), x) if self.training else self.layer(x)


class WithoutGradients(Layer):
    def forward(self, x):
        with torch.no_grad():
            return self.layer(x)


def late(step, steps, warmup_steps):
    return 1 / (step - 7)


def negative(step, steps, warmup_steps):
    return 1 - 2 * step / steps


def as_rate(step, steps, warmup_steps):
    return 50.0


def flat(layer):
    return nn.Sequential(nn.Flatten(), layer(64, 10))


PLACE = r"\(test_trial.py, line \d+\)"
OPTIONS = [
    ({"distillation_weight": 0.5}, r"^distillation_weight is 0\.5 without a teacher"),
    ({"optimizer": "torch.optim.Muon"}, "^optimizer 'torch.optim.Muon' refuses its arguments"),
    (
        {"optimizer": f"{__name__}.WithoutClosure"},
        r"^optimizer '\S+WithoutClosure': step fails: .*; expected step\(",
    ),
    ({"optimizer": f"{__name__}.Ignoring"}, r"^optimizer '\S+Ignoring': step does not call its closure: expected"),
    ({"optimizer": f"{__name__}.ToNaN"}, r"^optimizer '\S+ToNaN': after one step, the network has 512 NaN or infinite"),
    (
        {"schedule": f"{__name__}.late"},
        r"^schedule \S+late is -0.142\w* in step 0 of 45: expected a share of learning",
    ),
    (
        {"schedule": f"{__name__}.negative"},
        r"^schedule \S+negative is -0.022\w* in step 23 of 45: expected .* to 1$",
    ),
    ({"schedule": f"{__name__}.as_rate"}, r"^schedule \S+as_rate is 50 in step 0 of 45: expected a share"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=[message[1:40] for _, message in OPTIONS])
def test_what_does_not_fit_the_network_is_refused_before_the_training(digits, options, message):
    """Five epochs of nine batches."""
    check_training(network(), TrainingOptions(epochs=0, **options), Classification(), digits)
    with pytest.raises(UserError, match=message):
        check_training(network(), TrainingOptions(epochs=5, **options), Classification(), digits)


OBJECTIVES = [
    (PerExample, r"^objective PerExample: loss is shape \(2,\): expected the mean over the batch, .* of shape \(\)$"),
    (AsNumber, r"^objective AsNumber: loss is a float: expected the mean over the batch"),
    (Detached, r"^objective Detached: loss depends on no parameter of the network: expected neither torch.no_grad"),
    (NotANumber, r"^objective NotANumber: loss is nan, of finite outputs: expected a finite number$"),
    (Failing, rf"^in training mode, objective Failing: loss fails: .* {PLACE}; expected a scalar tensor$"),
]


@pytest.mark.parametrize(("objective", "message"), OBJECTIVES)
def test_a_loss_of_the_users_own_is_tried(digits, objective, message):
    with pytest.raises(UserError, match=message):
        check_training(network(), TrainingOptions(epochs=1), objective(), digits)


NETWORKS = [
    (
        InTraining,
        rf"^the network in training mode fails: no statistics {PLACE}; expected outputs as in eval",
    ),
    (Parts, r"^in training mode, the network returns a tuple: expected logits \(examples, classes\)"),
    (WithoutGradients, r"^objective Classification: loss depends on no parameter of the network"),
]


@pytest.mark.parametrize(("layer", "message"), NETWORKS)
def test_so_is_the_network_in_training_mode(digits, layer, message):
    with pytest.raises(UserError, match=message):
        check_training(flat(layer).eval(), TrainingOptions(epochs=1), Classification(), digits)


def test_so_is_the_memory_format(digits):
    network = nn.Sequential(nn.Conv2d(1, 3, 1), Viewing(), nn.Linear(4, 10))
    check_training(network, TrainingOptions(epochs=1, channels_last=False), Classification(), digits)
    with pytest.raises(UserError, match=r"^the network in training mode fails: view size is not compatible"):
        check_training(network, TrainingOptions(epochs=1, channels_last=True), Classification(), digits)


@pytest.mark.parametrize(
    ("examples", "batch_size", "refused"), [(8, 1, True), (9, 2, True), (8, 2, False), (9, 3, False)]
)
def test_a_batch_of_one_example_is_tried_if_there_will_be_one(examples, batch_size, refused):
    """Nine examples in batches of two make one of a single example, which has no variance for a batch norm."""
    data = Few(examples, batch_size)
    data.setup()
    if not refused:
        check_training(network(), TrainingOptions(epochs=1), Classification(), data)
        return
    message = (
        rf"^with one example in a batch, the network .* a batch_size of {batch_size} for {examples} training examples"
    )
    with pytest.raises(UserError, match=message):
        check_training(network(), TrainingOptions(epochs=1), Classification(), data)
    check_training(flat(nn.Linear).eval(), TrainingOptions(epochs=1), Classification(), data)


def test_nothing_changes_and_random_numbers_are_as_before(digits):
    given = network()
    before, state = copy.deepcopy(given.state_dict()), torch.get_rng_state()
    check_training(given, TrainingOptions(epochs=1), Classification(), digits)
    assert torch.equal(torch.get_rng_state(), state) and not given.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.state_dict().items())
    assert all(parameter.grad is None for parameter in given.parameters())


def test_a_schedule_of_a_long_training_is_called_a_thousand_times(digits, monkeypatch):
    calls = []
    monkeypatch.setitem(globals(), "counted", lambda step, steps, warmup_steps: calls.append((step, steps)) or 0.5)
    check_training(network(), TrainingOptions(epochs=1000, schedule=f"{__name__}.counted"), Classification(), digits)
    steps = 1000 * 9
    assert [step for step, whole in calls if whole == steps] == [*range(0, steps, 9), steps]
