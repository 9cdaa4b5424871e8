import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import train
from tests.training.test_train import on_cpu, same, small


def test_a_precision_that_nobody_has_measured_is_refused(digits):
    with pytest.raises(UserError, match="precision is auto, which jobs measure"):
        train(small(), digits, TrainingOptions(epochs=1, precision="auto"), Classification(), trainer=on_cpu)


class Watched(nn.Conv2d):
    """Notes the types and memory formats of what it reads."""

    seen: set

    def forward(self, images):
        outputs = super().forward(images)
        formats = (tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (images, self.weight))
        self.seen.add((outputs.dtype, *formats))
        return outputs


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_training_uses_precision_and_memory_format(digits, precision, last):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), Watched(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10))
    network[1].seen = set()
    options = TrainingOptions(epochs=1, precision=precision, channels_last=last)
    figures = train(network, digits, options, Classification(), trainer=on_cpu)
    dtype = {"32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert network[1].seen == {(dtype, last, last)}
    assert figures[0]["top1"] > 30
    for tensor in network.state_dict().values():
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()


def test_an_interrupted_training_in_channels_last_ends_with_the_same_weights(digits, tmp_path):
    class Stop(Exception):
        pass

    def trained(path, epochs_before=None):
        network = small()
        options = TrainingOptions(epochs=3, precision="bf16", channels_last=True, ema_decay=0.9)

        class Interrupted(Classification):
            losses = 0

            def loss(self, outputs, targets):
                type(self).losses += 1
                if epochs_before is not None and self.losses > 9 * epochs_before + 12:
                    raise Stop
                return super().loss(outputs, targets)

        train(network, digits, options, Interrupted(), trainer=on_cpu, checkpoint=path)
        return network

    whole = trained(tmp_path / "whole.ckpt")
    with pytest.raises(Stop):
        trained(tmp_path / "cut.ckpt", epochs_before=1)
    assert (tmp_path / "cut.ckpt").is_file()
    assert same(trained(tmp_path / "cut.ckpt"), whole)
