"""The data module that every source of examples shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from gnnrl_lightning.data.examples import Examples, ExampleSet
from gnnrl_lightning.data.loader import Batch, BatchLoader, RawBatch
from gnnrl_lightning.data.splits import random_split
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import generator_for
from gnnrl_lightning.trees import Tree, shapes, tensors


class LoadedExamples(NamedTuple):
    """What a source of examples gives: its two official splits.

    Attributes:
        train: Every training example, those to be held out included.
        test: The test examples.
    """

    train: Examples
    test: Examples


class _Splits(NamedTuple):
    train: Examples
    holdout: ExampleSet
    test: Examples


class ExampleData(LightningDataModule, ABC):
    """Examples with a holdout, a part of the training examples that candidates are scored on, in memory.

    A source of examples is a subclass with a name and a `load` method:

    ```
    class Waves(ExampleData):
        name = "waves"

        def load(self):
            x = torch.linspace(0, 1, 4000)[torch.randperm(4000, generator=torch.Generator().manual_seed(0)), None]
            return LoadedExamples(ExampleSet(x[:3000], x[:3000].sin()), ExampleSet(x[3000:], x[3000:].sin()))
    ```

    It may also override `normalize`, `augment` and `split`. After `setup()` there are `train` (the training examples
    without the holdout), `holdout` and `test`. The training loader shuffles and augments; validation reads the holdout.

    Args:
        batch_size: Training examples in a batch, on each device.
        eval_batch_size: Examples in a batch of validation, test and scoring.
        holdout_size: Examples held out of the training ones: below 1 a fraction, else their number.
        split_seed: Seed of the holdout.
        seed: Seed of the order and of the augmentation of the training examples.

    Raises:
        UserError: A value is out of range.
    """

    name = "examples"
    unit = "examples"

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        holdout_size: float = 0.1,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.eval_batch_size = at_least("eval_batch_size", eval_batch_size, 1)
        self.split_seed = at_least("split_seed", split_seed, 0)
        self.seed = at_least("seed", seed, 0)
        if not holdout_size > 0 or (holdout_size >= 1 and holdout_size != int(holdout_size)):
            raise UserError(
                f"holdout_size={holdout_size}: expected a fraction between 0 and 1 or a number of {self.unit}"
            )
        self.holdout_size = holdout_size
        self._splits: _Splits | None = None

    @abstractmethod
    def load(self) -> LoadedExamples:
        """Both official splits.

        Raises:
            UserError: They are missing or unreadable.
        """

    def setup(self, stage: str | None = None) -> None:
        """Load the examples and hold some out; further calls do nothing.

        Args:
            stage: Ignored, all splits are loaded together.

        Raises:
            UserError: What `load` raises; a holdout that leaves no training examples.
        """
        if self._splits is not None:
            return
        loaded = self.load()
        self._check(loaded)
        train, held = self.split(loaded.train, self.held(len(loaded.train)))
        self._splits = _Splits(loaded.train.subset(train), loaded.train.subset(held).in_memory(), loaded.test)

    def _check(self, loaded: Any) -> None:
        """Refuse what was loaded and does not fit; nothing, if not overridden."""

    def split(self, examples: Examples, held: int) -> tuple[Tensor, Tensor]:
        """Indices `(n,)` of training examples that stay and of those held out; at random, if not overridden."""
        return random_split(len(examples), held, self.split_seed)

    def held(self, examples: int) -> int:
        """Size of the holdout of so many training examples."""
        return int(self.holdout_size if self.holdout_size >= 1 else self.holdout_size * examples)

    def _split(self, name: str) -> Any:
        if self._splits is None:
            raise RuntimeError(f"{type(self).__name__}.{name}: call setup() first")
        return getattr(self._splits, name)

    @property
    def train(self) -> Examples:
        """The training examples, without the holdout."""
        return self._split("train")

    @property
    def holdout(self) -> ExampleSet:
        """The training examples held out to score candidates."""
        return self._split("holdout")

    @property
    def test(self) -> Examples:
        """The test examples."""
        return self._split("test")

    def transform_record(self) -> dict[str, Any]:
        """What a deployed network has to do to its inputs, in plain JSON types: here their shapes and types alone."""
        example = self.calibration(1)
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors(example)]
        return {"dataset": self.name, "size": shapes(example), "dtypes": kinds}

    def normalize(self, inputs: Tree) -> Tree:
        """Turn inputs of a split into what the network reads, on any device; as they are, if not overridden."""
        return inputs

    def augment(self, inputs: Tree, targets: Tree, generator: torch.Generator) -> tuple[Tree, Tree]:
        """Change a training batch at random; as it is, if not overridden.

        Args:
            inputs: Inputs, as a split has them, on any device.
            targets: Their targets.
            generator: CPU generator; the same state gives the same changes on every device.

        Returns:
            Inputs and targets of the same structure.
        """
        return inputs, targets

    def calibration(self, examples: int) -> Tree:
        """Normalised inputs of training examples to calibrate on, never of the holdout.

        Args:
            examples: How many; a fixed random choice, and fewer examples are the first of more.

        Returns:
            Inputs on the CPU, as a network reads them.

        Raises:
            UserError: There are not that many training examples.
        """
        return self.normalize(self.some(examples).inputs)

    def some(self, examples: int) -> ExampleSet:
        """Training examples of `calibration`, as the split has them, with their targets.

        Args:
            examples: How many.

        Raises:
            UserError: There are not that many training examples.
        """
        if not 1 <= examples <= len(self.train):
            raise UserError(f"{examples} calibration {self.unit} asked for: expected 1 to {len(self.train)}")
        chosen = torch.randperm(len(self.train), generator=generator_for(self.split_seed))[:examples]
        return self.train.subset(chosen).in_memory()

    def _loader(self, data: Examples, batch_size: int, shuffle_seed: int | None = None) -> BatchLoader:
        if self.trainer is None:
            return BatchLoader(data, batch_size, shuffle_seed)
        return BatchLoader(data, batch_size, shuffle_seed, self.trainer.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled and augmented training examples."""
        return self._loader(self.train, self.batch_size, shuffle_seed=self.seed)

    def val_dataloader(self) -> BatchLoader:
        """The holdout."""
        return self._loader(self.holdout, self.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        """The test examples."""
        return self._loader(self.test, self.eval_batch_size)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment (training batches) and normalise on the device; batches of other loaders pass unchanged."""
        if not isinstance(batch, RawBatch):
            return batch
        inputs, targets = batch.inputs, batch.targets
        if batch.seed is not None:
            inputs, targets = self.augment(inputs, targets, torch.Generator().manual_seed(batch.seed))
        return Batch(self.normalize(inputs), targets)


def at_least(name: str, value: int, least: int) -> int:
    """The value.

    Raises:
        UserError: It is smaller.
    """
    if value < least:
        raise UserError(f"{name}={value}: expected at least {least}")
    return value
