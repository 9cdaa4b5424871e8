"""The whole job of a network with two inputs, given by name: an image and a number."""

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ExampleData, ExampleSet, LoadedExamples
from gnnrl_lightning.job.compress import compress
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.trees import call
from tests.support.options import options_of


class Both(nn.Module):
    """An image and a number, to one number."""

    def __init__(self):
        super().__init__()
        self.look, self.read = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(1, 6)
        self.head = nn.Linear(8 + 6, 1)

    def forward(self, image, number):
        seen = self.look(image).relu().mean((2, 3))
        return self.head(torch.cat([seen, self.read(number).relu()], 1))


class Sums(ExampleData):
    """The mean of an image plus a number."""

    name = "sums"

    def load(self):
        def drawn(examples, seed):
            generator = torch.Generator().manual_seed(seed)
            image = torch.rand(examples, 1, 6, 6, generator=generator)
            number = torch.randn(examples, 1, generator=generator)
            return ExampleSet({"image": image, "number": number}, image.mean((1, 2, 3))[:, None] + number)

        return LoadedExamples(drawn(300, 0), drawn(60, 1))


@pytest.mark.parametrize("made", [dict, tuple])
def test_networks_of_several_inputs_are_traced_like_others(made):
    inputs = {"image": torch.zeros(2, 1, 6, 6), "number": torch.zeros(2, 1)}
    given = inputs if made is dict else tuple(inputs.values())
    graph = gnnrl_lightning.trace(Both(), given)
    assert sorted(graph.widths.tolist()) == [6, 8]
    # 36 positions x 9 x 8, 1 x 6, and the head.
    assert int(graph.cost.macs(graph.widths)) == 36 * 9 * 8 + 6 + 14


def test_the_whole_job_with_inputs_by_name(tmp_path):
    torch.manual_seed(0)
    network = Both().eval()
    options = options_of(calibration_examples=32, finetuning=TrainingOptions(epochs=1, learning_rate=0.01))
    delivered = compress(
        network,
        Sums(batch_size=64, holdout_size=60),
        Budget(macs=0.6),
        evaluations=30,
        by="random",
        options=options,
        objective="regression",
        folder=tmp_path / "run",
    )
    figures = delivered.figures["pruned"]
    assert figures["macs_ratio"] <= 0.6 and figures["rmse_test_after"] < 2
    inputs = Sums().load().test.inputs
    loaded = artifact.load(delivered.folder, format="program")
    with torch.no_grad():
        torch.testing.assert_close(call(loaded, inputs), call(delivered.network, inputs))
        again = artifact.load(delivered.folder, network, {name: tensor[:1] for name, tensor in inputs.items()})
        assert torch.equal(call(again, inputs), call(delivered.network, inputs))
