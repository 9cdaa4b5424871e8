import pytest
import torch
from lightning.pytorch import Callback

from gnnrl_lightning.objective import Classification
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import train
from tests.training.test_checkpoint import BreakAt, Broken, digits, on_cpu, with_dropout  # noqa: F401

OPTIONS = TrainingOptions(epochs=3, ema_decay=0.8)


class Weights(Callback):
    """Records the network's state after each step and during validation."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.steps.append({name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()})

    def on_validation_batch_start(self, trainer, pl_module, *_):
        self.validated.append({name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()})


def close(first, second):
    return all(torch.allclose(first[name].double(), second[name].double(), atol=1e-6) for name in first)


def test_the_average_by_hand_is_validated_and_given(digits):  # noqa: F811
    network, seen = with_dropout(), Weights()
    train(
        network,
        digits,
        OPTIONS,
        Classification(),
        trainer=lambda **flags: on_cpu(callbacks=[seen], **(flags | {"limit_val_batches": 1.0})),
    )
    average, ends = dict(seen.steps[0]), []
    for number, current in enumerate(seen.steps[1:], 1):
        decay = min(0.8, (1 + number) / (10 + number))
        for name, value in current.items():
            average[name] = decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
        if (number + 1) % 9 == 0:
            ends.append(dict(average))
    assert len(seen.steps) == 27 and close(network.state_dict(), average)
    assert not close(seen.steps[-1], average)  # batch norms' running means, too
    assert not torch.allclose(seen.steps[-1]["3.running_mean"], average["3.running_mean"], atol=1e-4)
    assert all(
        close(validated, end) for validated, end in zip(seen.validated[:: len(seen.validated) // 3], ends, strict=True)
    )


@pytest.mark.parametrize("epoch", [2, 3])
def test_it_resumes(tmp_path, digits, epoch):  # noqa: F811
    """After an interruption, and when the training was complete."""
    whole, begun, resumed, path = with_dropout(), with_dropout(), with_dropout(), tmp_path / "dense.ckpt"
    train(whole, digits, OPTIONS, Classification(), trainer=on_cpu, seed=5)
    if epoch < 3:
        with pytest.raises(Broken):
            train(
                begun,
                digits,
                OPTIONS,
                Classification(),
                trainer=lambda **flags: on_cpu(callbacks=[BreakAt(epoch)], **flags),
                seed=5,
                checkpoint=path,
            )
    else:
        train(begun, digits, OPTIONS, Classification(), trainer=on_cpu, seed=5, checkpoint=path)
    train(resumed, digits, OPTIONS, Classification(), trainer=on_cpu, seed=5, checkpoint=path)
    for first, second in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(first, second)
