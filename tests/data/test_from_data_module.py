"""Data modules of other projects: which of their loaders is what, and what cannot be read."""

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from gnnrl_lightning import Budget, Options, TrainingOptions, compress
from gnnrl_lightning.data import Digits, FromDataModule
from gnnrl_lightning.data.from_data_module import as_example_data
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.search.options import SearchOptions


def numbers(count, first=0):
    return TensorDataset(torch.arange(first, first + count).float()[:, None], torch.arange(first, first + count))


class OnlyTrained(LightningDataModule):
    """Made as Lightning's documentation does it: data sets in setup, one loader a split."""

    def prepare_data(self):
        self.prepared = True

    def setup(self, stage):
        if stage == "fit":
            self.training, self.validation = numbers(40), numbers(10, 100)
        if stage == "test":
            self.tested = numbers(6, 200)

    def train_dataloader(self):
        return DataLoader(self.training, batch_size=8, shuffle=True)


class Validated(OnlyTrained):
    def val_dataloader(self):
        return [DataLoader(self.validation, batch_size=5)]


class Whole(Validated):
    def test_dataloader(self):
        return DataLoader(self.tested, batch_size=3, num_workers=1)


class Held(OnlyTrained):
    def test_dataloader(self):
        return DataLoader(self.tested)


def ready(module, **arguments):
    data = FromDataModule(module, **arguments)
    data.prepare_data()
    data.setup()
    return data


def ends(split):
    held = split.in_memory()
    assert torch.equal(held.inputs[:, 0], held.targets.float())
    return len(held), int(held.targets.min()), int(held.targets.max())


def test_train_validation_and_test_are_those_of_its_loaders():
    data = ready(Whole(), holdout_size=100)
    assert data.module.prepared and data.name == "Whole"
    assert [ends(data.train), ends(data.holdout), ends(data.test)] == [(40, 0, 39), (10, 100, 109), (6, 200, 205)]
    assert (data.batch_size, data.eval_batch_size) == (8, 8)
    assert [len(batch.targets) for batch in data.train_dataloader()] == [8] * 5
    assert len(ready(Whole(), holdout_size=4).holdout) == 4


def test_without_validation_examples_the_holdout_is_a_part_of_the_training_examples():
    data = ready(Held(), holdout_size=0.25)
    assert (len(data.train), len(data.holdout)) == (30, 10) and ends(data.test) == (6, 200, 205)
    assert sorted([*data.train.in_memory().targets.tolist(), *data.holdout.targets.tolist()]) == list(range(40))


def test_without_test_examples_those_of_the_validation_are_tested():
    """And then no candidate is scored on them."""
    data = ready(Validated(), holdout_size=0.25)
    assert ends(data.test) == (10, 100, 109) and int(data.holdout.targets.max()) < 40


class Drawn(LightningDataModule):
    """Splits at random whenever it is set up, and says nothing of a seed."""

    def setup(self, stage):
        self.parts = random_split(numbers(60), [30, 20, 10])

    def train_dataloader(self):
        return DataLoader(self.parts[0], batch_size=8, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.parts[1], batch_size=8)

    def test_dataloader(self):
        return DataLoader(self.parts[2], batch_size=8)


def targets(data):
    return [set(split.in_memory().targets.tolist()) for split in (data.train, data.holdout, data.test)]


def test_a_random_split_is_the_same_whenever_it_is_made():
    first = targets(ready(Drawn(), holdout_size=20))
    torch.rand(11)
    assert targets(ready(Drawn(), holdout_size=20)) == first
    assert [len(each) for each in first] == [30, 20, 10] and len(set.union(*first)) == 60
    assert targets(ready(Drawn(), holdout_size=20, split_seed=1)) != first


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loaders
def test_a_data_module_that_a_trainer_has_set_up_keeps_its_split():
    module, network = Drawn(), OwnClassifier()
    flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    network.forward = lambda inputs: nn.functional.one_hot(inputs[:, 0].long(), 60) * network.layers[0].bias.sum()
    Trainer(max_steps=1, limit_val_batches=0, enable_model_summary=False, **flags).fit(network, module)
    trained = {*(int(module.parts[0].dataset[index][1]) for index in module.parts[0].indices)}
    assert targets(ready(module, holdout_size=20))[0] == trained


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loaders
@pytest.mark.parametrize("stage", ["test", "validate"])
def test_a_data_module_that_a_trainer_has_only_read_is_set_up_for_training(stage):
    class Staged(LightningDataModule):
        def setup(self, stage):
            if stage == "fit":
                self.training = numbers(40)
            if stage in ("fit", "validate"):
                self.validation = numbers(20)
            if stage == "test":
                self.testing = numbers(10)

        def train_dataloader(self):
            return DataLoader(self.training, batch_size=4, shuffle=True)

        def val_dataloader(self):
            return DataLoader(self.validation, batch_size=4)

        def test_dataloader(self):
            return DataLoader(self.testing, batch_size=4)

    class Reading(LightningModule):
        def validation_step(self, batch, _):
            pass

        def test_step(self, batch, _):
            pass

    module = Staged()
    getattr(Trainer(logger=False, enable_progress_bar=False, accelerator="cpu"), stage)(Reading(), module)
    data = ready(module, holdout_size=20)
    assert (len(data.train), len(data.holdout), len(data.test)) == (40, 20, 10)


class Folds(LightningDataModule):
    """Ten numbers are held out, which ones its fold says."""

    fold = 0

    def setup(self, stage):
        held = range(10 * self.fold, 10 * self.fold + 10)
        self.held, self.rest = Subset(numbers(50), held), Subset(numbers(50), [*{*range(50)} - {*held}])

    def train_dataloader(self):
        return DataLoader(self.rest, batch_size=4)

    def val_dataloader(self):
        return DataLoader(self.held, batch_size=4)

    test_dataloader = val_dataloader


def test_a_data_module_is_read_as_it_is_now():
    module, held = Folds(), []
    for module.fold in (0, 3):
        data = as_example_data(module)
        data.setup()
        assert as_example_data(data) is data
        held.append(data.test.in_memory().inputs.flatten().tolist())
    assert held == [[*range(10)], [*range(30, 40)]]


class BySamplers(LightningDataModule):
    """One data set, of which each loader draws its own part."""

    def part(self, *ends):
        return DataLoader(numbers(50), batch_size=4, sampler=SubsetRandomSampler(range(*ends)))

    def train_dataloader(self):
        return self.part(0, 30)

    def val_dataloader(self):
        return self.part(30, 40)

    def test_dataloader(self):
        return self.part(40, 50)


def test_samplers_of_subsets_are_the_splits():
    data = ready(BySamplers(), holdout_size=10)
    assert [ends(split) for split in (data.train, data.holdout, data.test)] == [(30, 0, 29), (10, 30, 39), (10, 40, 49)]


def test_loaders_that_are_set_on_the_data_module_itself():
    module = LightningDataModule.from_datasets(numbers(40), numbers(10, 100), numbers(6, 200), batch_size=4)
    data = ready(module, holdout_size=10)
    assert [ends(split) for split in (data.train, data.holdout, data.test)] == [
        (40, 0, 39),
        (10, 100, 109),
        (6, 200, 205),
    ]
    assert data.batch_size == 4


class Repeated(Whole):
    def val_dataloader(self):
        return DataLoader(self.validation, sampler=RandomSampler(self.validation, replacement=True, num_samples=99))


class Balanced(Whole):
    def train_dataloader(self):
        return DataLoader(self.training, batch_sampler=[[0, 1], [2, 3]])


class Batched(Whole):
    def train_dataloader(self):
        return DataLoader(self.training, batch_size=None)


class Alone(Whole):
    def train_dataloader(self):
        return DataLoader(self.training, batch_size=8 // self.trainer.world_size)


class Weighed(Whole):
    def train_dataloader(self):
        return DataLoader(self.training, sampler=WeightedRandomSampler([1.0] * 40, 40))


class Several(Whole):
    def val_dataloader(self):
        return [DataLoader(self.validation), DataLoader(self.validation)]


class Untrained(Whole):
    train_dataloader = LightningDataModule.train_dataloader


class Absent(Whole):
    def setup(self, stage):
        raise FileNotFoundError("data/train.csv")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OnlyTrained, "OnlyTrained has no test_dataloader or val_dataloader"),
        (Untrained, "Untrained has no train_dataloader"),
        (Weighed, "Weighed.train_dataloader has a WeightedRandomSampler that does not draw every example once"),
        (Several, r"Several.val_dataloader returns .*: expected one torch.utils.data.DataLoader"),
        (Repeated, "Repeated.val_dataloader has a RandomSampler that does not draw every example once"),
        (Balanced, "Balanced.train_dataloader has list: expected a batch_size"),
        (Batched, "Batched.train_dataloader has no batch size: expected a batch_size"),
        (
            Alone,
            r"Alone.train_dataloader fails: .*\(test_from_data_module.py.*; expected code .* is None here$",
        ),
        (Absent, r"^Absent.setup fails: data/train.csv \(test_from_data_module.py, line \d+\); expected that"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(kind, message):
    with pytest.raises(UserError, match=message):
        ready(kind())


class Mixing(Whole):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch


def test_hooks_that_would_not_be_called_are_refused():
    with pytest.raises(UserError, match="Mixing has on_after_batch_transfer, which is not called here"):
        FromDataModule(Mixing())


def test_hooks_of_a_network_that_would_not_be_called_are_refused():
    class Normalising(OwnClassifier):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0] / 2, batch[1]

    with pytest.raises(UserError, match="Normalising has on_after_batch_transfer, which is not called here"):
        compress(Normalising(), DigitsElsewhere(), Budget(macs=0.5), by="uniform")


class DigitsElsewhere(LightningDataModule):
    """The digits, as another project would have them."""

    def setup(self, stage=None):
        data = Digits()
        data.setup()
        self.splits = [
            TensorDataset(data.normalize(split.images), split.labels) for split in (data.train, data.holdout, data.test)
        ]

    def train_dataloader(self):
        return DataLoader(self.splits[0], batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.splits[1], batch_size=128)

    def test_dataloader(self):
        return DataLoader(self.splits[2], batch_size=128)


class OwnClassifier(LightningModule):
    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.layers = nn.Sequential(*layers, nn.Linear(8, 10))
        self.steps = 0

    def forward(self, images):
        return self.layers(images)

    def training_step(self, batch, _):
        self.steps += 1
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.02)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loaders and loops
def test_a_lightning_module_is_pruned_with_it_and_trained_further_by_its_own_trainer():
    torch.manual_seed(0)
    network, data = OwnClassifier(), DigitsElsewhere()
    options = Options(finetuning=TrainingOptions(epochs=1, learning_rate=0.05), search=SearchOptions(evaluations=20))
    found = compress(network, data, Budget(macs=0.5), by="greedy", options=options)
    assert found.figures["dataset"] == "DigitsElsewhere" and found.figures["test_examples"] == 360
    assert found.figures["pruned"]["macs_ratio"] <= 0.5
    smaller = found.network
    assert type(smaller) is OwnClassifier and smaller.layers[0].out_channels < 8 == network.layers[0].out_channels
    flags = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    Trainer(max_steps=3, limit_val_batches=0, enable_model_summary=False, **flags).fit(smaller, data)
    assert smaller.steps == 3 and network.steps == 0
