"""Base class of all data modules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from gnnrl_lightning.checks import as_seed, shown, whole
from gnnrl_lightning.data.examples import Examples, ExampleSet
from gnnrl_lightning.data.loader import Batch, BatchLoader, RawBatch
from gnnrl_lightning.data.splits import random_split
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import generator_for
from gnnrl_lightning.trees import Tree, shapes, tensors


class LoadedExamples(NamedTuple):
    """The official splits of a data set.

    Attributes:
        train: All training examples; the holdout is split off them, unless there is an official one.
        test: The test examples.
        validation: Examples of which the holdout is taken; None: training examples.
    """

    train: Examples
    test: Examples
    validation: Examples | None = None


class _Splits(NamedTuple):
    train: Examples
    holdout: ExampleSet
    test: Examples


PARTS = ("subset", "in_memory", "read")
"""What a split has, see `Examples`; a PyTorch Dataset lacks them."""


class ExampleData(LightningDataModule, ABC):
    """Base class of data modules with a holdout: training examples, kept in memory, on which candidates are scored.

    A data set is a subclass with a name and a `load` method:

    ```
    class Waves(ExampleData):
        name = "waves"

        def load(self):
            x = torch.linspace(0, 1, 4000)[torch.randperm(4000, generator=torch.Generator().manual_seed(0)), None]
            return LoadedExamples(ExampleSet(x[:3000], x[:3000].sin()), ExampleSet(x[3000:], x[3000:].sin()))
    ```

    It may also override `normalize`, `augment` and `split`. After `setup()`, the splits are available as `train` (the
    training examples without the holdout), `holdout` and `test`. The training loader shuffles and augments; validation
    uses the holdout.

    Args:
        batch_size: Training examples per batch on each device.
        eval_batch_size: Examples per batch in validation, test and scoring.
        holdout_size: Size of the holdout: a fraction of the training examples if below 1, else a number.
        split_seed: Seed of the holdout.
        seed: Seed of the order and the augmentation of the training examples; jobs have their own.

    Raises:
        UserError: A value is of another type, or out of range.
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
        self.batch_size = whole("batch_size", batch_size, 1)
        self.eval_batch_size = whole("eval_batch_size", eval_batch_size, 1)
        self.split_seed = as_seed("split_seed", split_seed)
        self.seed = as_seed("seed", seed)
        number = isinstance(holdout_size, Real) and not isinstance(holdout_size, bool)
        if not number or not 0 < holdout_size < math.inf or (holdout_size > 1 and holdout_size != int(holdout_size)):
            raise UserError(
                f"holdout_size is {shown(holdout_size)}: expected a fraction between 0 and 1 or a number of {self.unit}"
            )
        self.holdout_size = holdout_size
        self._splits: _Splits | None = None

    @abstractmethod
    def load(self) -> LoadedExamples:
        """Load both official splits.

        Raises:
            UserError: They are missing or unreadable.
        """

    def setup(self, stage: str | None = None) -> None:
        """Load the examples and split off the holdout; further calls do nothing.

        Args:
            stage: Ignored; all splits are loaded at once.

        Raises:
            UserError: `load` fails or returns something else, the class does not call `super().__init__()`, or the
                holdout leaves no training examples.
        """
        if not hasattr(self, "_splits"):
            raise UserError(f"{type(self).__name__} has no holdout_size: call super().__init__() in its __init__")
        if self._splits is not None:
            return
        loaded = self.load()
        self._check_splits(loaded)
        self._check(loaded)
        held, validation = self.held(len(loaded.train)), getattr(loaded, "validation", None)
        if validation is None:
            kept, chosen = self.split(loaded.train, held)
            train, holdout = loaded.train.subset(kept), loaded.train.subset(chosen)
        elif (held := max(1, held)) < len(validation):
            train, holdout = loaded.train, validation.subset(self.split(validation, held)[1])
        else:
            train, holdout = loaded.train, validation
        self._splits = _Splits(train, holdout.in_memory(), loaded.test)

    def _check_splits(self, loaded: Any) -> None:
        validated = getattr(loaded, "validation", None) is not None
        for name in ("train", "test", "validation") if validated else ("train", "test"):
            found = getattr(loaded, name, loaded)
            if not all(hasattr(found, part) for part in PARTS):
                where = f" as {name}" if found is not loaded else ""
                raise UserError(
                    f"{type(self).__name__}.load returns {shown(found)}{where}: expected LoadedExamples(train, test) "
                    "of two ExampleSet, or LoadedImages of two ImageSet"
                )
            if not len(found):
                raise UserError(
                    f"{type(self).__name__}.load returns no examples as {name}: expected at least one"
                    f"{'; give None for a part of the training examples' if name == 'validation' else ''}"
                )
            self._check_inputs(name, found)

    def _check_inputs(self, name: str, examples: Any) -> None:
        """Refuse inputs in memory that no network can use."""
        if not isinstance(examples, ExampleSet):
            return
        given = (tensor for tensor in tensors(examples.inputs) if tensor.is_floating_point())
        broken = sum(int((~tensor.isfinite()).sum()) for tensor in given)
        if broken:
            raise UserError(
                f"{type(self).__name__}.load returns {broken} NaN or infinite values in the inputs of {name}: expected "
                "finite numbers; replace them, or leave these examples out"
            )

    def _check(self, loaded: Any) -> None:
        """Refuse splits whose examples differ in kind; no network reads the test examples before its final test."""
        kinds: dict[str, str] = {}
        for name in ("train", "validation", "test"):
            if split := getattr(loaded, name, None):
                first = split.subset(torch.tensor([0])).in_memory()
                kinds[name] = " and ".join(map(_kind, tensors((first.inputs, first.targets))))
        for name, kind in kinds.items():
            if kind != kinds.get("train", kind):
                raise UserError(
                    f"the {name} examples of {self.name} are {kind}, the training examples {kinds['train']}: expected "
                    "the same types and numbers of dimensions"
                )

    def split(self, examples: Examples, held: int) -> tuple[Tensor, Tensor]:
        """Indices `(n,)` of the remaining training examples and of the holdout; random by default."""
        return random_split(len(examples), held, self.split_seed)

    def held(self, examples: int) -> int:
        """Size of the holdout for a number of training examples."""
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
        """The holdout: training examples reserved for scoring candidates."""
        return self._split("holdout")

    @property
    def test(self) -> Examples:
        """The test examples."""
        return self._split("test")

    def transform_record(self) -> dict[str, Any]:
        """Preprocessing that a deployed network needs, in plain JSON types; by default, shapes and types of inputs."""
        example = self.calibration(1)
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors(example)]
        return {"dataset": self.name, "size": shapes(example), "dtypes": kinds}

    def normalize(self, inputs: Tree) -> Tree:
        """Convert inputs of a split to network inputs, on any device; the identity by default."""
        return inputs

    def augment(self, inputs: Tree, targets: Tree, generator: torch.Generator) -> tuple[Tree, Tree]:
        """Augment a training batch; the identity by default.

        Args:
            inputs: Inputs in the format of the split, on any device.
            targets: Targets of the inputs.
            generator: CPU generator; the same state gives the same augmentation on every device.

        Returns:
            Inputs and targets of the same structure.
        """
        return inputs, targets

    def calibration(self, examples: int) -> Tree:
        """Normalised inputs of training examples for calibration; never from the holdout.

        Args:
            examples: Number of examples. The choice is random but fixed; fewer examples are a prefix of more.

        Returns:
            Network inputs on the CPU.

        Raises:
            UserError: There are fewer training examples.
        """
        return self.normalize(self.some(examples).inputs)

    def some(self, examples: int) -> ExampleSet:
        """The examples of `calibration` in the format of the split, with their targets.

        Args:
            examples: Number of examples.

        Raises:
            UserError: There are fewer training examples.
        """
        limit = f", the training {self.unit} without the holdout (see candidate.calibration_examples)"
        whole(f"number of calibration {self.unit}", examples, 1, len(self.train), limit)
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
        """Augment (training batches only) and normalise on the device; batches of other loaders are unchanged."""
        if not isinstance(batch, RawBatch):
            return batch
        inputs, targets = batch.inputs, batch.targets
        if batch.seed is not None:
            inputs, targets = self.augment(inputs, targets, torch.Generator().manual_seed(batch.seed))
        return Batch(self.normalize(inputs), targets)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tensor.dim()}D"
