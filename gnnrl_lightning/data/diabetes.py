"""The diabetes data set of scikit-learn: a regression problem that needs no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_diabetes

from gnnrl_lightning.data.example_data import ExampleData, LoadedExamples
from gnnrl_lightning.data.examples import ExampleSet
from gnnrl_lightning.data.splits import random_split

TEST_EXAMPLES = 92


class Diabetes(ExampleData):
    """442 patients: ten measurements `(10,)`, and the progression of the disease after one year `(1,)`.

    Measurements are standardised over all patients, the progression over the 350 training examples. The test examples
    are a fixed set of 92 patients.

    Args:
        batch_size: Training examples per batch on each device.
        eval_batch_size: Examples per batch in validation, test and scoring.
        holdout_size: Size of the holdout: a fraction of the training examples if below 1, else a number.
        split_seed: Seed of the holdout.
        seed: Seed of the order of the training examples; jobs have their own.
    """

    name = "diabetes"

    def __init__(
        self,
        batch_size: int = 32,
        eval_batch_size: int = 512,
        holdout_size: float = 0.3,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, holdout_size, split_seed, seed)

    def load(self) -> LoadedExamples:
        """Standardise the data and split off the test examples."""
        measured, progression = load_diabetes(return_X_y=True)
        inputs, targets = torch.from_numpy(measured), torch.from_numpy(progression)[:, None]
        train, test = random_split(len(inputs), TEST_EXAMPLES, 0)
        inputs = inputs * len(inputs) ** 0.5  # scikit-learn's columns are centred and have norm 1
        targets = (targets - targets[train].mean()) / targets[train].std()
        data = ExampleSet(inputs.float(), targets.float())
        return LoadedExamples(data.subset(train), data.subset(test))
