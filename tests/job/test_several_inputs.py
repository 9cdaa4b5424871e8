"""The whole job of a network with two inputs, given by name: an image and a number."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import gnnrl_lightning
from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Datasets, ExampleData, ExampleSet, LoadedExamples
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


class Transformer(nn.Module):
    """Takes inputs by name and returns several outputs by name, as networks of Hugging Face do."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.classifier = nn.Conv2d(1, 8, 2, 2), nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, pixel_values, labels=None):
        tokens = self.embed(pixel_values).flatten(2).mean(2).relu()
        return {"logits": self.classifier(self.layer(tokens).relu()), "hidden_states": (tokens,)}


class Bright(Dataset):
    def __init__(self, examples, seed):
        self.images = torch.rand(examples, 1, 6, 6, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], "labels": int(self.images[index].mean() > 0.5)}


def test_the_whole_job_with_inputs_and_outputs_by_name(tmp_path):
    """9 x 4 x 8 MACs make what is an output, too; 10 are those of each channel of the layer, of which 7 may stay."""
    torch.manual_seed(0)
    network = Transformer().eval()
    options = options_of(calibration_examples=32, finetuning=TrainingOptions(epochs=1, learning_rate=0.05))
    data = Datasets(Bright(300, 0), Bright(100, 1), batch_size=32, holdout_size=60)
    given = {"evaluations": 20, "by": "random", "options": options, "folder": tmp_path / "run"}
    delivered = compress(network, data, Budget(macs=288 + 75), **given)
    assert delivered.widths == {"layer": 7} and delivered.network.layer.out_features == 7
    loaded = artifact.load(delivered.folder, format="program")
    inputs = {"pixel_values": torch.rand(5, 1, 6, 6)}
    with torch.no_grad():
        torch.testing.assert_close(call(loaded, inputs), call(delivered.network, inputs))
