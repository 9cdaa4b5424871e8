"""The data module of PyTorch data sets."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset, default_collate

from gnnrl_lightning.checks import instance, real, whole
from gnnrl_lightning.data.dataset_examples import (
    MEMORY_LIMIT_GIB,
    Collate,
    DatasetExamples,
    Loading,
    SizedDataset,
    check_dataset,
)
from gnnrl_lightning.data.example_data import ExampleData, LoadedExamples
from gnnrl_lightning.errors import UserError


class Datasets(ExampleData):
    """PyTorch data sets for training and test, such as those of torchvision.

    ```
    train = CIFAR10(folder, train=True, transform=augment)
    data = Datasets(train, CIFAR10(folder, train=False, transform=plain), plain=CIFAR10(folder, transform=plain))
    ```

    An example is an input, as the network reads it, and a target; or a dictionary of inputs by name with the targets
    under one of its keys. Training examples are read anew in every epoch, so random transforms of `train` augment them.

    Args:
        train: The training examples.
        test: The test examples.
        validation: Examples on which candidates are scored; None: a part of the training examples.
        plain: The training examples once more, in the same order, without random transforms: the holdout and the
            examples for calibration are read from it; None: from `train`, as its transforms give them.
        target: Key of the targets if examples are dictionaries; None: labels or label.
        num_workers: Number of worker processes per device that read examples; 0: read in the training process.
        collate: Makes a batch of a list of examples; None: PyTorch's `default_collate`.
        batch_size: Training examples per batch on each device.
        eval_batch_size: Examples per batch in validation, test and scoring.
        holdout_size: Size of the holdout, which is kept in memory: a fraction of the training examples if below 1,
            else a number; at most all of `validation`.
        memory_limit_gib: Maximum memory of the holdout, in GiB.
        split_seed: Seed of the holdout.
        seed: Seed of the order and the transforms of the training examples; jobs have their own.

    Raises:
        UserError: A value is of another type, or out of range; or `plain` has not as many examples as `train`.
    """

    name = "datasets"

    def __init__(
        self,
        train: Dataset,
        test: Dataset,
        validation: Dataset | None = None,
        plain: Dataset | None = None,
        target: str | None = None,
        num_workers: int = 0,
        collate: Collate | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        holdout_size: float = 0.1,
        memory_limit_gib: float = MEMORY_LIMIT_GIB,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, holdout_size, split_seed, seed)
        given = {"train": train, "test": test, "validation": validation, "plain": plain}
        self._given = {name: check_dataset(name, each) for name, each in given.items() if each is not None}
        counts = {name: len(each) for name, each in self._given.items()}
        if counts.get("plain", counts["train"]) != counts["train"]:
            raise UserError(
                f"plain has {counts['plain']} examples and train {counts['train']}: expected the same ones in the same "
                "order"
            )
        if target is not None:
            instance("target", target, str, "the key of the targets, or None")
        limit = real("memory_limit_gib", memory_limit_gib, 0, ends="(]")
        workers = whole("num_workers", num_workers)
        self._loading = Loading(default_collate if collate is None else collate, workers, target, limit)

    def load(self) -> LoadedExamples:
        """Return the data sets, of which nothing is read yet."""
        found = {name: self._examples(each) for name, each in self._given.items() if name != "plain"}
        found["train"] = self._examples(self._given["train"], self._given.get("plain"))
        return LoadedExamples(**found)

    def _examples(self, dataset: SizedDataset, plain: SizedDataset | None = None) -> DatasetExamples:
        indices = torch.arange(len(dataset))
        return DatasetExamples(dataset, indices, plain, self._loading)
