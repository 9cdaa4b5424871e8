import pytest
import torch
from lightning.pytorch import Callback

from gnnrl_lightning.data import Digits
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


@pytest.fixture(scope="module")
def digits():
    data = Digits(batch_size=128)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_training_resumes_to_the_same_weights(tmp_path, digits, epoch):
    """Also with dropout: random draws of an epoch derive from the seed and the epoch."""
    whole, begun, resumed = with_dropout(), with_dropout(), with_dropout()
    options, path = TrainingOptions(epochs=3), tmp_path / "dense.ckpt"
    train(whole, digits, options, Classification(), trainer=on_cpu, seed=5)

    def broken(**flags):
        return on_cpu(callbacks=[BreakAt(epoch)], **flags)

    with pytest.raises(Broken):
        train(begun, digits, options, Classification(), trainer=broken, seed=5, checkpoint=path)
    # It breaks before the checkpoint of the epoch before counts.
    assert LatestCheckpoint(path).found == (path if epoch > 1 else None)
    torch.manual_seed(17)  # nothing may depend on it
    train(resumed, digits, options, Classification(), trainer=on_cpu, seed=5, checkpoint=path)
    for first, second in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(first, second)
    assert torch.load(path, weights_only=True)["epoch"] == 2


def test_a_finished_training_gives_its_weights_again(tmp_path, digits):
    network, again, path = with_dropout(), with_dropout(), tmp_path / "dense.ckpt"
    train(network, digits, TrainingOptions(epochs=1), Classification(), trainer=on_cpu, checkpoint=path)
    before = path.stat().st_mtime_ns
    train(again, digits, TrainingOptions(epochs=1), Classification(), trainer=on_cpu, checkpoint=path)
    assert path.stat().st_mtime_ns == before
    for first, second in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second)


def test_without_a_path_nothing_is_kept(tmp_path, digits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(with_dropout(), digits, TrainingOptions(epochs=1), Classification(), trainer=on_cpu)
    assert LatestCheckpoint().found is None and list(tmp_path.iterdir()) == []
