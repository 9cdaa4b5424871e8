"""The whole job with a LightningDataModule that has nothing to do with this package, by its import path."""

import json

import torch
from safetensors.torch import load_file

from gnnrl_lightning.cli import main

DATA = """
import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, Subset


class Noisy(Dataset):
    def __init__(self, spread):
        images, labels = load_digits(return_X_y=True)
        self.images = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 8 - 1
        self.labels, self.spread = labels, spread

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index] + self.spread * torch.randn(1, 8, 8), int(self.labels[index])


class OwnDigits(LightningDataModule):
    def __init__(self, batch_size: int = 64, spread: float = 0.1):
        super().__init__()
        self.batch_size, self.spread = batch_size, spread

    def setup(self, stage):
        self.noisy, self.plain = Noisy(self.spread), Noisy(0.0)

    def train_dataloader(self):
        return DataLoader(Subset(self.noisy, range(1200)), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Subset(self.plain, range(1200, 1497)), batch_size=100)

    def test_dataloader(self):
        return DataLoader(Subset(self.plain, range(1497, 1797)), batch_size=100)
"""


def test_fit_and_test_with_a_foreign_data_module(workplace, capsys):
    (workplace / "own_data.py").write_text(DATA)
    data = ["--data", "own_data.OwnDigits", "--data.init_args.batch_size", "32"]
    main(["fit", "--config", "small.yaml", *data, "--run.name", "one"])
    result = json.loads((workplace / "runs" / "one" / "result.json").read_text())
    assert result["dataset"] == "OwnDigits" and result["test_examples"] == 300
    assert result["pruned"]["macs_ratio"] <= 0.5 and result["dense"]["top1_test"] > 60
    capsys.readouterr()
    main(["test", "--config", "small.yaml", *data, "--artifact", "runs/one/pruned"])
    assert f"{result['pruned']['top1_test_after']:.2f}" in capsys.readouterr().out


def test_random_transforms_are_drawn_again_when_a_run_is_repeated(workplace):
    (workplace / "own_data.py").write_text(DATA)
    for name in ("first", "second"):
        torch.rand(7)  # what was drawn before makes no difference
        given = ["--data", "own_data.OwnDigits", "--data.init_args.spread", "0.5", "--run.name", name]
        main(["pretrain", "--config", "small.yaml", *given])
    first, second = (
        load_file(workplace / "runs" / name / "checkpoints" / "dense.safetensors") for name in ("first", "second")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
