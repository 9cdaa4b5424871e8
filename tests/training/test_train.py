import copy
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.training.distillation import Teacher
from gnnrl_lightning.training.mixup import mix
from gnnrl_lightning.training.module import SupervisedModule
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.schedules import one_cycle
from gnnrl_lightning.training.train import figures, quiet_trainer, train
from tests.support.fakes import SaveAt


def small(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(8 * 64, 10),
    )


def on_cpu(**flags):
    return quiet_trainer(accelerator="cpu", **flags)


def same(first, second):
    return all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_training_learns_and_leaves_the_network_ready(digits):
    network = small()
    before = torch.random.get_rng_state()
    untrained = figures(network, digits.test, digits, Classification())["top1"]
    network.train()
    validated = train(network, digits, TrainingOptions(epochs=3), Classification(), trainer=on_cpu, seed=5)
    assert untrained < 30 < 80 < figures(network, digits.test, digits, Classification())["top1"]
    assert len(validated) == 3 and validated[0]["top1"] < validated[2]["top1"]
    assert validated[2] == pytest.approx(figures(network, digits.holdout, digits, Classification()))
    assert not any(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert digits.seed == 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_epochs_a_network_needs_nothing_to_train(digits):
    network = small().requires_grad_(False).train()
    before = copy.deepcopy(network)
    assert train(network, digits, TrainingOptions(epochs=0), Classification(), trainer=on_cpu) == []
    assert same(network, before) and not network.training


def test_the_same_seed_gives_the_same_weights(digits):
    def trained(seed):
        network = small(dropout=0.2)
        torch.rand(seed + 1)  # the state of the global generator does not matter
        train(network, digits, TrainingOptions(epochs=1), Classification(), trainer=on_cpu, seed=seed)
        return network

    first, again, other = trained(1), trained(1), trained(2)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["Python", "NumPy"])
def test_the_seed_decides_what_other_generators_draw(digits, draw):
    """As for the layer drop of many networks; the state of their generators before does not matter."""

    class Dropping(nn.Module):
        def forward(self, x):
            return x * (draw() < 0.5) if self.training else x

    def trained():
        network = small().append(Dropping())
        draw()
        train(network, digits, TrainingOptions(epochs=1), Classification(), trainer=on_cpu, seed=1)
        return network

    assert same(trained(), trained())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"check_val_every_n_epoch": 2}, "check_val_every_n_epoch 2: expected to validate after each epoch"),
        ({"val_check_interval": 0.5}, "val_check_interval 0.5: expected to validate after each epoch"),
        ({"val_check_interval": 1}, "val_check_interval 1: expected to validate after each epoch"),
    ],
)
def test_a_trainer_that_leaves_validations_out_is_refused(digits, flags, message):
    """A training without figures is one that has diverged, and is undone; 1 is one batch, 1.0 one epoch."""
    trainer = lambda **others: on_cpu(**{**others, **flags})  # noqa: E731
    with pytest.raises(UserError, match=message):
        train(small(), digits, TrainingOptions(epochs=1), Classification(), trainer=trainer)


def slow_body(params, lr, weight_decay):
    """SGD whose first parameters learn a tenth as fast."""
    body, *head = params
    return torch.optim.SGD([{"params": [body], "lr": lr / 10}, {"params": head}], lr=lr, weight_decay=weight_decay)


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *_):
        self.seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def test_each_group_of_an_optimizer_has_its_own_rate_from_the_first_step_on(digits, tmp_path):
    rates, options = Rates(), TrainingOptions(epochs=2, optimizer=f"{__name__}.slow_body", warmup_epochs=0)

    def trained(ckpt_path=None, **flags):
        on_cpu(max_epochs=2, callbacks=[rates, *flags.pop("callbacks", ())], **flags).fit(
            SupervisedModule(small(), options, Classification()), digits, ckpt_path=ckpt_path, weights_only=True
        )

    trained(callbacks=[SaveAt(9, tmp_path / "9.ckpt")])
    first = rates.seen[0]
    trained(tmp_path / "9.ckpt")
    assert first == pytest.approx([0.01, 0.1])
    assert all(body == pytest.approx(head / 10) for body, head in rates.seen)


def straight(step, steps, warmup_steps):
    """It cannot be called for a training of one step."""
    return max(0.0, 1 - step / (steps - 1))


def test_a_schedule_is_called_with_the_steps_of_the_training_alone(digits):
    rates, options = Rates(), TrainingOptions(epochs=1, schedule=f"{__name__}.straight")
    trainer = lambda **flags: on_cpu(callbacks=[rates], **flags)  # noqa: E731
    train(small(), digits, options, Classification(), trainer=trainer)
    assert [rate for (rate,) in rates.seen] == pytest.approx([0.1 * (1 - step / 8) for step in range(9)])


@pytest.mark.parametrize("save_at", [5, 9, 12], ids=["within an epoch", "at an epoch's end", "in the second epoch"])
def test_resuming_gives_the_weights_of_the_uninterrupted_run(digits, tmp_path, save_at):
    options = TrainingOptions(epochs=2)

    def run(ckpt_path=None, **flags):
        network = small()
        on_cpu(max_epochs=2, default_root_dir=tmp_path, **flags).fit(
            SupervisedModule(network, options, Classification()),
            datamodule=digits,
            ckpt_path=ckpt_path,
            weights_only=True,
        )
        return network

    whole = run(callbacks=[SaveAt(save_at, tmp_path / "at.ckpt")])
    assert len(digits.train_dataloader()) == 9
    resumed = run(tmp_path / "at.ckpt")
    assert same(whole, resumed)


@pytest.mark.parametrize(("weight", "alpha"), [(0.0, 0.0), (0.3, 0.0), (0.3, 1.0)])
def test_one_step_is_sgd_by_hand(digits, weight, alpha):
    network, teacher = small(), small(seed=1)
    manual = copy.deepcopy(network).train()
    options = TrainingOptions(
        epochs=1,
        learning_rate=0.2,
        warmup_epochs=0,
        weight_decay=0.01,
        distillation_weight=weight,
        mixup=alpha,
    )
    on_cpu(max_steps=1).fit(
        SupervisedModule(network, options, Classification(label_smoothing=0.1), Teacher(teacher)), datamodule=digits
    )
    batch = digits.on_after_batch_transfer(next(iter(digits.train_dataloader())), 0)
    inputs, targets = batch.inputs, F.one_hot(batch.targets).float()
    if alpha > 0:
        mixed = mix(inputs, targets, alpha, 0, 0, 0, 0, 1)  # seed, epoch, batch, process, and what tells it from crops
        inputs, targets = mixed.inputs, mixed.weight * mixed.targets + (1 - mixed.weight) * mixed.others
    logits = manual(inputs)
    loss = F.cross_entropy(logits, targets, label_smoothing=0.1)
    distance = Classification().distillation(logits, teacher.eval()(inputs).detach(), 4.0)
    ((1 - weight) * loss + weight * distance).backward()
    for trained, parameter in zip(network.parameters(), manual.parameters(), strict=True):
        gradient = parameter.grad + 0.01 * parameter
        # Nesterov's first step: gradient + momentum * gradient
        torch.testing.assert_close(trained, parameter - 0.2 * 1.9 * gradient)


def test_every_step_has_its_rate_in_every_group(digits):
    rates = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rates.append([group["lr"] for group in optimizer.param_groups])

    options = TrainingOptions(
        epochs=2,
        optimizer="adamw",
        learning_rate=0.3,
        schedule="one_cycle",
        warmup_epochs=0.5,
        decay_norms_and_biases=False,
    )
    train(small(), digits, options, Classification(), trainer=lambda **f: on_cpu(callbacks=[Rates()], **f))
    assert rates == [[pytest.approx(0.3 * one_cycle(step, 18, 4.5))] * 2 for step in range(18)]


def test_metrics_are_logged_in_percent_and_agree_with_top1(digits):
    network = small()
    classifier = SupervisedModule(network, TrainingOptions(epochs=1), Classification())
    trainer = on_cpu(max_epochs=1, limit_val_batches=1.0)
    trainer.fit(classifier, datamodule=digits)
    assert trainer.callback_metrics.keys() == {
        f"{stage}/{name}" for stage in ("train", "val") for name in ("loss", "top1", "top5", "cross_entropy")
    }
    assert 15 < trainer.callback_metrics["train/top1"] <= 100
    searched = figures(network, digits.holdout, digits, Classification())["top1"]
    assert trainer.callback_metrics["val/top1"].item() == pytest.approx(searched)
    (metrics,) = trainer.test(classifier, datamodule=digits, verbose=False)
    assert metrics["test/top1"] == pytest.approx(figures(network, digits.test, digits, Classification())["top1"])
    with torch.no_grad():
        loss = F.cross_entropy(network.eval()(digits.normalize(digits.test.images)), digits.test.labels)
    assert metrics["test/loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_frozen_parameters_stay(digits):
    network = small()
    network[0].weight.requires_grad_(False)
    before = network[0].weight.clone()
    train(network, digits, TrainingOptions(epochs=1), Classification(), trainer=on_cpu)
    assert torch.equal(network[0].weight, before)
    assert [p.requires_grad for p in network.parameters()] == [False, True, True, True, True]
    with pytest.raises(UserError, match="nothing to train"):
        train(network.requires_grad_(False), digits, TrainingOptions(epochs=1), Classification(), trainer=on_cpu)


def test_zero_epochs_change_nothing_but_the_mode(digits):
    network = small().train()
    train(network, digits, TrainingOptions(epochs=0), Classification(), trainer=on_cpu)
    assert same(network, small())
    assert not network.training


def test_a_student_follows_its_teacher(digits):
    teacher = small(seed=1)
    train(teacher, digits, TrainingOptions(epochs=3), Classification(), trainer=on_cpu)
    teacher.train()
    kept = copy.deepcopy(teacher)
    distances = {}
    for weight in (0.0, 1.0):
        student = small(seed=2)
        options = TrainingOptions(epochs=2, distillation_weight=weight)
        train(student, digits, options, Classification(), trainer=on_cpu, teacher=Teacher(teacher))
        images = digits.normalize(digits.test.images)
        with torch.no_grad():
            distances[weight] = Classification().distillation(student(images), kept.eval()(images), 4.0).item()
    assert distances[1.0] < distances[0.0]
    assert same(teacher, kept) and teacher.training
    with pytest.raises(UserError, match=r"distillation_weight is 1\.0 without a teacher"):
        train(student, digits, options, Classification(), trainer=on_cpu)


def test_top1_counts_every_image_and_leaves_the_network_as_it_was(digits):
    network = small().train()
    network[3].eval()
    modes = [module.training for module in network.modules()]
    value = figures(network, digits.holdout, digits, Classification())["top1"]
    assert [module.training for module in network.modules()] == modes
    guesses = network.eval()(digits.normalize(digits.holdout.images)).argmax(1)
    assert value == 100 * (guesses == digits.holdout.labels).sum().item() / 287


def test_an_interrupted_training_restores_what_it_borrowed(digits):
    def broken(**flags):
        raise OSError("no trainer")

    network = small().train()
    with pytest.raises(OSError, match="no trainer"):
        train(network, digits, TrainingOptions(epochs=1), Classification(), trainer=broken, seed=9)
    assert digits.seed == 0
    assert not network.training


def test_the_trainer_gets_epochs_and_clipping(digits):
    made: list[Trainer] = []

    def remember(**flags):
        made.append(on_cpu(**flags))
        return made[-1]

    train(small(), digits, TrainingOptions(epochs=1, gradient_clip=0.5), Classification(), trainer=remember)
    assert (made[0].max_epochs, made[0].gradient_clip_val, made[0].current_epoch) == (1, 0.5, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", -1),
        ("learning_rate", -0.1),
        ("weight_decay", float("nan")),
        ("warmup_epochs", -1.0),
        ("gradient_clip", -1.0),
        ("mixup", -0.1),
        ("distillation_weight", 1.1),
        ("ema_decay", 1.0),
        ("distillation_temperature", 0.0),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}: expected"):
        TrainingOptions(**{name: value})


@pytest.mark.gpu
def test_the_network_comes_back_from_the_gpu(digits):
    network = small()
    train(
        network,
        digits,
        TrainingOptions(epochs=1),
        Classification(),
        trainer=lambda **f: quiet_trainer(accelerator="gpu", **f),
    )
    assert next(network.parameters()).device.type == "cpu"
    assert figures(network, digits.test, digits, Classification(), device="cuda")["top1"] > 50
    assert next(network.parameters()).device.type == "cpu"
