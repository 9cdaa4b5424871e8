"""Examples of a PyTorch `Dataset`, read one by one whenever they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from gnnrl_lightning.data.examples import Draw, ExampleSet
from gnnrl_lightning.errors import UserError, one_line, with_place
from gnnrl_lightning.seeds import seed_generators
from gnnrl_lightning.trees import Tree, count, map_tensors, tensors

CHUNK = 64
"""Examples that are read together into memory."""

MEMORY_LIMIT_GIB = 4.0
"""Maximum memory of the examples that are kept in memory, by default."""

TARGETS = "labels", "label"
"""Keys of the targets of examples that are dictionaries."""

Collate = Callable[[list[Any]], Any]
"""Makes a batch of a list of examples."""


class SizedDataset(Protocol):
    """A data set that is read by index: what `torch.utils.data` calls map-style."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def check_dataset(name: str, given: Any) -> SizedDataset:
    """Return a data set that is read by index.

    Args:
        name: Name of the argument, for the message.
        given: The data set.

    Raises:
        UserError: It has no `__getitem__` and `__len__`, or it is empty.
    """
    streamed = isinstance(given, IterableDataset)
    if streamed or isinstance(given, type) or not (hasattr(given, "__getitem__") and hasattr(given, "__len__")):
        raise UserError(
            f"{name} is a {type(given).__name__}: expected a data set with __getitem__ and __len__"
            f"{', not one that is only iterated: examples are drawn by their index' if streamed else ''}"
        )
    if not len(given):
        raise UserError(f"{name} is empty: expected at least one example")
    return given


@dataclass(frozen=True)
class Loading:
    """How the examples of a data set are made into batches.

    Args:
        collate: Makes a batch of a list of examples.
        num_workers: Number of worker processes that read batches, each up to two batches ahead; 0: read here.
        target: Key of the targets if examples are dictionaries; None: labels or label.
        memory_limit_gib: Maximum memory of examples that are kept, in GiB.
        worker_init_fn: Called with its number in each worker process, as by PyTorch.
        multiprocessing_context: How worker processes are started, as in PyTorch.
    """

    collate: Collate = default_collate
    num_workers: int = 0
    target: str | None = None
    memory_limit_gib: float = MEMORY_LIMIT_GIB
    worker_init_fn: Callable[[int], None] | None = None
    multiprocessing_context: Any = None


@dataclass(frozen=True)
class DatasetExamples:
    """Some examples of a data set.

    Random transforms of the data set draw from the global generators of Python, NumPy and PyTorch. These are seeded for
    every batch by the batch's own seed, so that an epoch is the same whatever the number of workers, and goes on in the
    same way if it is resumed.

    Args:
        dataset: The data set; an example is an input and a target, or a dictionary.
        indices: Indices of the n examples, int64, shape `(n,)`.
        plain: The same data set without random transforms, which is read where nothing is augmented; None: `dataset`.
        loading: How batches are read, see `Loading`.
    """

    dataset: SizedDataset
    indices: Tensor
    plain: SizedDataset | None = None
    loading: Loading = Loading()

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.indices)

    def subset(self, indices: Tensor) -> DatasetExamples:
        """The examples at `indices` (int64, shape `(n,)`), in that order."""
        return replace(self, indices=self.indices[indices])

    def in_memory(self) -> ExampleSet:
        """Read all examples into memory, without random transforms if there is `plain`.

        Raises:
            UserError: An example cannot be read, shapes differ between batches, or they take more memory than allowed.
        """
        places = torch.arange(len(self)).split(CHUNK)
        everything: Tree = None
        for place, batch in zip(places, self.read([Draw(each, None) for each in places]), strict=True):
            everything = self._room(batch) if everything is None else everything
            kinds, expected = ([_described(tensor) for tensor in tensors(tree)] for tree in (batch, everything))
            if kinds != expected:
                raise UserError(
                    f"examples of {type(self.dataset).__name__} differ: {', '.join(expected)}; and {', '.join(kinds)}; "
                    "expected inputs of one shape and type, so pad or resize them to it"
                )
            for into, part in zip(tensors(everything), tensors(batch), strict=True):
                into[place] = part
        return ExampleSet(*everything)

    def _room(self, batch: Tree) -> Tree:
        """Empty tensors for all examples, of the shapes of a batch."""
        size = sum(tensor[0].nbytes for tensor in tensors(batch)) * len(self) / 2**30
        if size > self.loading.memory_limit_gib:
            raise UserError(
                f"{len(self)} examples of {type(self.dataset).__name__} take {size:.1f} GiB in memory, more than "
                f"memory_limit_gib ({self.loading.memory_limit_gib:g}): lower holdout_size, or raise the limit"
            )
        return map_tensors(lambda tensor: tensor.new_empty(len(self), *tensor.shape[1:]), batch)

    def read(self, draws: Iterable[Draw]) -> Iterator[tuple[Tree, Tree]]:
        """Yield the inputs and the targets of each batch.

        Raises:
            UserError: An example cannot be read, or it is no input with its target.
        """

        def sampled() -> Iterator[tuple[list[int], int | None]]:
            for draw in draws:
                yield self.indices[draw.indices].tolist(), draw.seed

        how = self.loading
        workers = how.num_workers
        if isinstance(draws, Sized) and how.worker_init_fn is None:
            workers = max(min(workers, len(draws) - 1), 0)  # one batch is read here
        loader = DataLoader(
            _Batches(_Reader(self.dataset, self.plain, how.collate, how.target)),
            batch_size=None,
            sampler=sampled(),
            num_workers=workers,
            worker_init_fn=how.worker_init_fn,
            multiprocessing_context=how.multiprocessing_context if workers > 0 else None,
            generator=torch.Generator(),  # otherwise each pass draws from the global generator
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


class _Batches(Dataset[Any]):
    """The data set of a worker: what a reader gives for the indices and the seed of a batch.

    A function of the user's, which begins a worker process, finds the attributes of its own data set here, and may set
    those that each process needs for itself, such as an open file.
    """

    def __init__(self, reader: _Reader) -> None:
        vars(self)["_reader"] = reader

    def __getitem__(self, batch: tuple[list[int], int | None]) -> tuple[Tree, Tree] | UserError:
        return self._reader(*batch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_reader":  # while a copy is made, it has no attributes yet
            raise AttributeError(name)
        return getattr(self._reader.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._reader.dataset, name, value)


@dataclass(frozen=True)
class _Reader:
    """Reads a batch of a data set, see `DatasetExamples` and `Loading`."""

    dataset: SizedDataset
    plain: SizedDataset | None
    collate: Collate
    target: str | None

    def __call__(self, indices: list[int], seed: int | None) -> tuple[Tree, Tree] | UserError:
        dataset = self.dataset if seed is not None or self.plain is None else self.plain
        try:
            with isolate_rng(include_cuda=False):
                seed_generators(indices[0] if seed is None else seed)
                return self._read(dataset, indices)
        except UserError as error:  # returned, because a raised one would carry the worker's traceback in its message
            return error

    def _read(self, dataset: SizedDataset, indices: list[int]) -> tuple[Tree, Tree]:
        name, items = type(dataset).__name__, []
        for index in indices:
            try:
                items.append(dataset[index])
            except Exception as error:  # the user's own data set may raise anything
                raise UserError(f"{name}[{index}] fails: {with_place(error)}; expected an example") from error
        try:
            batch = self.collate(items)
        except Exception as error:  # the user's own function may raise anything
            raise UserError(
                f"examples of {name} make no batch: {with_place(error)}; expected inputs of one shape and type, or a "
                "collate function of your own"
            ) from error
        inputs, targets = self._parted(name, batch)
        self._check(name, inputs, targets, len(indices))
        return inputs, targets

    def _parted(self, name: str, batch: Any) -> tuple[Tree, Tree]:
        """Split a batch into inputs and targets."""
        if isinstance(batch, Mapping):
            wanted = TARGETS if self.target is None else (self.target,)
            key = next((each for each in wanted if each in batch), None)
            if key is None:
                keys = ", ".join(map(str, batch))
                raise UserError(
                    f"an example of {name} has {keys}, not {' or '.join(wanted)}: give the targets' key as "
                    "`target` of Datasets or FromDataModule"
                )
            return {each: value for each, value in batch.items() if each != key}, batch[key]
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            inputs, targets = batch
            return tuple(inputs) if isinstance(inputs, list) else inputs, targets
        given = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
        raise UserError(f"an example of {name} is {given}: expected an input and a target, or a dictionary")

    @staticmethod
    def _check(name: str, inputs: Tree, targets: Tree, examples: int) -> None:
        for what, tree in (("inputs", inputs), ("targets", targets)):
            try:
                found = count(tree)
            except (ValueError, TypeError) as error:
                raise UserError(f"{what} of {name}: {one_line(error)}; give numbers, batch first, not names") from error
            if found != examples:
                shape = tuple(tensors(tree)[0].shape)
                raise UserError(f"{what} of {name} have the shape {shape}: expected {examples} examples, batch first")


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape[1:])} in {str(tensor.dtype).removeprefix('torch.')}"
