import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from gnnrl_lightning.objective import Classification
from gnnrl_lightning.training.averaging import MovingAverage
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import figures, quiet_trainer, train


class Weights(Callback):
    """Records the network's state after each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.steps.append({name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()})


def normalised():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))


def close(first, second):
    return all(torch.allclose(first[name].double(), second[name].double(), atol=1e-6) for name in first)


def test_the_average_by_hand_is_validated_and_given(digits):
    """Of batch norms' statistics, too."""
    network, seen, options = normalised(), Weights(), TrainingOptions(epochs=2, ema_decay=0.8)
    measured = train(
        network,
        digits,
        options,
        Classification(),
        trainer=lambda **flags: quiet_trainer(accelerator="cpu", callbacks=[seen], log_every_n_steps=1, **flags),
    )
    average, ends = dict(seen.steps[0]), []
    for number, current in enumerate(seen.steps[1:], 1):
        decay = min(0.8, (1 + number) / (10 + number))
        for name, value in current.items():
            average[name] = decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
        if (number + 1) % 9 == 0:
            ends.append(dict(average))
    assert len(seen.steps) == 18 and close(network.state_dict(), average)
    assert not torch.allclose(seen.steps[-1]["2.running_mean"], average["2.running_mean"], atol=1e-4)
    for given, end in zip(measured, ends, strict=True):
        network.load_state_dict(end)
        assert given == pytest.approx(figures(network, digits.holdout, digits, Classification()))


def test_shared_weights_are_exchanged_once():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    before = network[0].weight.clone()
    average = MovingAverage(network, 0.9)
    with torch.no_grad():
        network[0].weight.add_(1)
    average.exchange()
    assert torch.equal(network[1].weight, before)
    average.exchange()
    assert torch.equal(network[1].weight, before + 1)
