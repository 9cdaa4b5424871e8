import pytest
import torch
from lightning.pytorch import Callback

from gnnrl_lightning.objective import Classification
from gnnrl_lightning.training.checkpoint import LatestCheckpoint
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer, train


class Broken(RuntimeError):
    pass


class BreakAt(Callback):
    """Ends the training at the beginning of an epoch, before or after the checkpoint counts."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise Broken


def with_dropout():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(16),
        torch.nn.Linear(16, 10),
    )  # fmt: skip


def on_cpu(**flags):
    return quiet_trainer(accelerator="cpu", log_every_n_steps=1, **flags)


PLAIN = TrainingOptions(epochs=3)
EVERYTHING = TrainingOptions(
    epochs=3,
    optimizer={"class_path": "adamw", "init_args": {"amsgrad": True}},
    learning_rate=0.01,
    decay_norms_and_biases=False,
    schedule="one_cycle",
    warmup_epochs=1.5,
    gradient_clip=0.5,
    mixup=0.4,
    ema_decay=0.8,
)


@pytest.mark.parametrize(("options", "epoch"), [(PLAIN, 0), (PLAIN, 1), (PLAIN, 2), (EVERYTHING, 2)])
def test_a_training_resumes_to_the_same_weights(tmp_path, digits, options, epoch):
    """Also with dropout and mixup: random draws of an epoch derive from the seed and the epoch."""
    whole, begun, resumed = with_dropout(), with_dropout(), with_dropout()
    path = tmp_path / "dense.ckpt"
    figures = train(whole, digits, options, Classification(), trainer=on_cpu, seed=5)

    def broken(**flags):
        return on_cpu(callbacks=[BreakAt(epoch)], **flags)

    with pytest.raises(Broken):
        train(begun, digits, options, Classification(), trainer=broken, seed=5, checkpoint=path)
    # It breaks before the checkpoint of the epoch before counts.
    assert LatestCheckpoint(path).found == (path if epoch > 1 else None)
    torch.manual_seed(17)  # nothing may depend on it
    again = train(resumed, digits, options, Classification(), trainer=on_cpu, seed=5, checkpoint=path)
    assert again == figures and len(figures) == 3
    for first, second in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(first, second)
    assert torch.load(path, weights_only=True)["epoch"] == 2


@pytest.mark.parametrize("ema_decay", [0.0, 0.8])
def test_a_finished_training_gives_its_weights_again(tmp_path, digits, ema_decay):
    network, again, path = with_dropout(), with_dropout(), tmp_path / "dense.ckpt"
    options = TrainingOptions(epochs=1, ema_decay=ema_decay)
    figures = train(network, digits, options, Classification(), trainer=on_cpu, checkpoint=path)
    before = path.stat().st_mtime_ns
    assert train(again, digits, options, Classification(), trainer=on_cpu, checkpoint=path) == figures
    assert path.stat().st_mtime_ns == before
    for first, second in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second)


def test_without_a_path_nothing_is_kept(tmp_path, digits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(with_dropout(), digits, TrainingOptions(epochs=1), Classification(), trainer=on_cpu)
    assert LatestCheckpoint().found is None and list(tmp_path.iterdir()) == []
