"""Data modules of other projects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, SubsetRandomSampler
from torch.utils.data.distributed import DistributedSampler

from gnnrl_lightning.checks import instance, real, shown
from gnnrl_lightning.data.batch_hooks import check_batch_hooks, overrides
from gnnrl_lightning.data.dataset_examples import MEMORY_LIMIT_GIB, DatasetExamples, Loading, check_dataset
from gnnrl_lightning.data.example_data import ExampleData, LoadedExamples
from gnnrl_lightning.errors import UserError, with_place
from gnnrl_lightning.seeds import seed_generators


class FromDataModule(ExampleData):
    """The data sets of a `LightningDataModule` that has nothing to do with this package.

    Training, validation and test are its loaders' data sets, with their batch sizes, workers and collate functions. The
    holdout is taken of the validation examples. Without a test loader, the validation examples are the test examples,
    and the holdout is a part of the training examples.

    The data module is set up with seeded generators, so that a random split in its `setup` is the same in every
    process, and whenever a run is resumed; a generator of its own needs a seed, or no search goes on. If a Trainer has
    set it up before, it stays so: the split is the one with which the network was trained.

    Args:
        module: The data module. Its `trainer` is None here unless it has been used by one.
        target: Key of the targets if examples are dictionaries; None: labels or label.
        holdout_size: Size of the holdout, which is kept in memory: a fraction of the training examples if below 1,
            else a number; at most all validation examples.
        memory_limit_gib: Maximum memory of the holdout, in GiB.
        split_seed: Seed of the holdout, and of what the data module draws in `setup`.
        seed: Seed of the order and the transforms of the training examples; jobs have their own.

    Raises:
        UserError: It changes batches after its loaders.
    """

    def __init__(
        self,
        module: LightningDataModule,
        target: str | None = None,
        holdout_size: float = 0.1,
        memory_limit_gib: float = MEMORY_LIMIT_GIB,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(holdout_size=holdout_size, split_seed=split_seed, seed=seed)
        self.module = instance("module", module, LightningDataModule, "a LightningDataModule")
        self.target = target if target is None else instance("target", target, str, "the key of the targets, or None")
        self.memory_limit_gib = real("memory_limit_gib", memory_limit_gib, 0, ends="(]")
        self.name = type(module).__name__
        self._prepared = False
        check_batch_hooks(self.module, self.name)

    def prepare_data(self) -> None:
        """Let the data module download what it needs, once."""
        if not self._prepared:
            with self._calling("prepare_data"):
                self.module.prepare_data()
        self._prepared = True

    def load(self) -> LoadedExamples:
        """Set the data module up, and return its data sets.

        Raises:
            UserError: A loader is missing, is no `DataLoader`, or draws examples in an order of its own.
        """
        used = self.module.trainer is not None
        if not used or self._fails("train") or self._fails("val"):
            self._set_up("fit")
        train, validation = self._users_loader("train"), self._users_loader("val")
        if not used or self._fails("test"):
            self._set_up("test")
        test = self._users_loader("test")
        if train is None or (test is None and validation is None):
            missing = "train_dataloader" if train is None else "test_dataloader or val_dataloader"
            raise UserError(f"{self.name} has no {missing}: expected one that returns a DataLoader")
        found = {"train": self._examples("train", train)}
        if validation is not None:
            found["test" if test is None else "validation"] = self._examples("val", validation)
        if test is not None:
            found["test"] = self._examples("test", test)
        samplers: list[Any] = [loader.batch_sampler for loader in (train, validation, test) if loader is not None]
        self.batch_size, self.eval_batch_size = samplers[0].batch_size, max(each.batch_size for each in samplers)
        return LoadedExamples(**found)

    def _set_up(self, stage: str) -> None:
        with self._calling("setup"):
            self.module.setup(stage)  # pyright: ignore[reportCallIssue]  # a decorator hides its argument

    def _fails(self, stage: str) -> bool:
        """Whether a loader fails because its stage has not been set up."""
        try:
            self._users_loader(stage)
        except UserError:
            return True
        return False

    @contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        """Call the user's data module with seeded generators, and name in one line what of it fails."""
        try:
            with isolate_rng(include_cuda=False):
                seed_generators(self.split_seed)
                yield
        except UserError:
            raise
        except Exception as error:  # the user's own data module may raise anything
            lonely = self.module.trainer is None and "NoneType" in str(error)
            expected = "code that needs no Trainer: self.trainer is None here" if lonely else "that it succeeds"
            raise UserError(f"{self.name}.{what} fails: {with_place(error)}; expected {expected}") from error

    def _users_loader(self, stage: str) -> DataLoader[Any] | None:
        """Return a loader of the data module, or None if it has none."""
        name = f"{stage}_dataloader"
        if not overrides(self.module, name):
            return None
        with self._calling(name):
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
        dataset = check_dataset(f"the data set of {name}", loader.dataset)
        if type(loader.batch_sampler) is not BatchSampler:
            kind = type(loader.batch_sampler).__name__ if loader.batch_sampler else "no batch size"
            raise UserError(f"{name} has {kind}: expected a batch_size, since batches are drawn here")
        indices = drawn(loader.batch_sampler.sampler, len(dataset), name)
        ways = loader.worker_init_fn, loader.multiprocessing_context
        loading = Loading(loader.collate_fn, loader.num_workers, self.target, self.memory_limit_gib, *ways)
        return DatasetExamples(dataset, indices, None, loading)


def drawn(sampler: Any, examples: int, name: str) -> Tensor:
    """Return the indices `(n,)` that a sampler draws, each once, in an epoch.

    Args:
        sampler: The sampler of a loader.
        examples: Number of examples of its data set.
        name: Name of the loader, for the message.

    Raises:
        UserError: It draws some of them more often than others.
    """
    if type(sampler) is SubsetRandomSampler:
        return torch.as_tensor(list(sampler.indices), dtype=torch.int64).sort().values
    once = not isinstance(sampler, RandomSampler) or (not sampler.replacement and sampler.num_samples == examples)
    if once and isinstance(sampler, (RandomSampler, SequentialSampler, DistributedSampler)):
        return torch.arange(examples)
    raise UserError(
        f"{name} has a {type(sampler).__name__} that does not draw every example once in an epoch, as is done here: "
        "leave it out, or weigh the examples in a loss of your own"
    )


def as_example_data(data: LightningDataModule) -> ExampleData:
    """Return a data module of this package; any other one is read by a new `FromDataModule`, as it is now."""
    return data if isinstance(data, ExampleData) else FromDataModule(data)
