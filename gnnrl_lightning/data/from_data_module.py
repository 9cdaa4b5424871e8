"""Data modules of other projects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.core.hooks import DataHooks
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from gnnrl_lightning.checks import instance, shown
from gnnrl_lightning.data.dataset_examples import DatasetExamples, check_dataset
from gnnrl_lightning.data.example_data import ExampleData, LoadedExamples
from gnnrl_lightning.errors import UserError, with_place

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
"""Hooks of a data module that change batches after its loaders."""

SAMPLERS = (RandomSampler, SequentialSampler, DistributedSampler)
"""Samplers that draw every example once: what the training does, too."""


class FromDataModule(ExampleData):
    """The data sets of a `LightningDataModule` that has nothing to do with this package.

    Training, validation and test are its loaders' data sets, with their batch sizes, workers and collate functions. The
    holdout is taken of the validation examples. Without a test loader, the validation examples are the test examples,
    and the holdout is a part of the training examples.

    Args:
        module: The data module.
        target: Key of the targets if examples are dictionaries.
        holdout_size: Size of the holdout, which is kept in memory: a fraction of the training examples if below 1,
            else a number; at most all validation examples.
        split_seed: Seed of the holdout.
        seed: Seed of the order and the transforms of the training examples.

    Raises:
        UserError: It changes batches after its loaders.
    """

    def __init__(
        self,
        module: LightningDataModule,
        target: str = "labels",
        holdout_size: float = 0.1,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(holdout_size=holdout_size, split_seed=split_seed, seed=seed)
        self.module = instance("module", module, LightningDataModule, "a LightningDataModule")
        self.target = instance("target", target, str, "the key of the targets")
        self.name = type(module).__name__
        for hook in HOOKS:
            if getattr(type(module), hook) is not getattr(DataHooks, hook):
                raise UserError(
                    f"{self.name} has {hook}, which is not called here: let its data sets return what the network "
                    "reads, or write a subclass of ExampleData with `augment` and `normalize`"
                )

    def prepare_data(self) -> None:
        """Let the data module download what it needs."""
        with _calling(f"{self.name}.prepare_data"):
            self.module.prepare_data()

    def load(self) -> LoadedExamples:
        """Set the data module up, and return its data sets.

        Raises:
            UserError: A loader is missing, is no `DataLoader`, or draws examples in an order of its own.
        """
        for stage in ("fit", "test"):
            with _calling(f"{self.name}.setup"):
                self.module.setup(stage=stage)
        train, validation, test = (self._users_loader(stage) for stage in ("train", "val", "test"))
        if test is None:
            test, validation = validation, None
        if train is None or test is None:
            missing = "train_dataloader" if train is None else "test_dataloader or val_dataloader"
            raise UserError(f"{self.name} has no {missing}: expected one that returns a DataLoader")
        self.batch_size = train.batch_size or self.batch_size
        self.eval_batch_size = (test if validation is None else validation).batch_size or self.eval_batch_size
        return LoadedExamples(
            self._examples("train", train),
            self._examples("test", test),
            None if validation is None else self._examples("val", validation),
        )

    def _users_loader(self, stage: str) -> DataLoader[Any] | None:
        """Return a loader of the data module, or None if it has none."""
        name = f"{stage}_dataloader"
        if getattr(type(self.module), name) is getattr(DataHooks, name):
            return None
        with _calling(f"{self.name}.{name}"):
            loader = getattr(self.module, name)()
        if isinstance(loader, (list, tuple)) and len(loader) == 1:
            (loader,) = loader
        if loader is None or (isinstance(loader, (list, tuple)) and not loader):
            return None
        if not isinstance(loader, DataLoader):
            raise UserError(f"{self.name}.{name} returns {shown(loader)}: expected one torch.utils.data.DataLoader")
        return loader

    def _examples(self, stage: str, loader: DataLoader[Any]) -> DatasetExamples:
        name = f"{self.name}.{stage}_dataloader"
        if stage == "train" and not isinstance(loader.sampler, SAMPLERS):
            raise UserError(
                f"{name} has a {type(loader.sampler).__name__}: every example is drawn once an epoch here; leave the "
                "sampler out, or weigh the examples in a loss of your own"
            )
        dataset = check_dataset(f"the data set of {name}", loader.dataset)
        return DatasetExamples(
            dataset, torch.arange(len(dataset)), None, loader.collate_fn, loader.num_workers, self.target
        )


@contextmanager
def _calling(what: str) -> Iterator[None]:
    """Name what of the user's data module fails, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the user's own data module may raise anything
        raise UserError(f"{what} fails: {with_place(error)}") from error


def as_example_data(data: LightningDataModule) -> ExampleData:
    """Return a data module of this package; any other one is read by `FromDataModule`."""
    return data if isinstance(data, ExampleData) else FromDataModule(data)
