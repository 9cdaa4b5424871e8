"""PyTorch data sets as examples: their order, their random transforms, and what is read without them."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from gnnrl_lightning.data import BatchLoader, DatasetExamples, Datasets, Draw, dataset_examples
from gnnrl_lightning.data.dataset_examples import Loading
from gnnrl_lightning.errors import UserError


class Numbers(Dataset):
    """Example k is k, and 2 k; with noise of the three generators that transforms draw from."""

    def __init__(self, count, noise=False, first=0):
        self.count, self.noise, self.first = count, noise, first

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        number = float(self.first + index)
        noise = [random.random(), np.random.rand(), float(torch.rand(()))] if self.noise else [0.0] * 3
        return torch.tensor([number, *(number + each for each in noise)]), 2 * (self.first + index)


class ByName(Dataset):
    def __init__(self, count, key="labels"):
        self.count, self.key = count, key

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"pixels": torch.full((2,), float(index)), "mask": torch.ones(1), self.key: index % 3}


def examples(dataset, **loading):
    return DatasetExamples(dataset, torch.arange(len(dataset)), None, Loading(**loading))


def test_batches_have_the_examples_that_are_asked_for():
    few = examples(Numbers(10)).subset(torch.tensor([7, 2, 5]))
    ((inputs, targets),) = few.read([Draw(torch.tensor([2, 0]), 1)])
    assert inputs[:, 0].tolist() == [5, 7] and targets.tolist() == [10, 14] and len(few) == 3
    held = few.in_memory()
    assert held.inputs[:, 0].tolist() == [7, 2, 5] and held.targets.tolist() == [14, 4, 10]


@pytest.mark.parametrize("workers", [0, 2])
def test_transforms_draw_by_the_seed_of_the_batch(workers):
    """Whatever the number of workers, and whatever the generators have drawn before; they go on as if nothing were."""

    def epoch(seed, epoch=0, workers=workers):
        loader = BatchLoader(examples(Numbers(20, noise=True), num_workers=workers), 6, seed)
        loader.set_epoch(epoch)
        return torch.cat([batch.inputs for batch in loader])

    torch.rand(5), np.random.rand(5), random.random()
    state = torch.get_rng_state()
    first = epoch(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, epoch(0, workers=0))
    noise = first[:, 1:] - first[:, :1]
    assert len(noise.unique()) == noise.numel() and bool((noise >= 0).all())
    assert not torch.equal(noise, epoch(0, 1)[:, 1:] - epoch(0, 1)[:, :1])
    assert sorted(epoch(0, 1)[:, 0].tolist()) == list(range(20))


def test_what_is_scored_is_read_without_random_transforms():
    data = Datasets(Numbers(40, noise=True), Numbers(8, first=100), plain=Numbers(40), holdout_size=10)
    data.setup()
    assert (len(data.train), len(data.holdout), len(data.test)) == (30, 10, 8)
    assert torch.equal(data.holdout.inputs, data.holdout.inputs[:, :1].expand(-1, 4))
    assert torch.equal(data.calibration(5), data.calibration(5)[:, :1].expand(-1, 4))
    batch = next(iter(data.train_dataloader()))
    assert not torch.equal(batch.inputs, batch.inputs[:, :1].expand(-1, 4))
    seen = torch.cat([data.holdout.targets, *(batch.targets for batch in data.train_dataloader())])
    assert seen.sort().values.tolist() == [2 * each for each in range(40)]
    assert [batch.targets.tolist() for batch in data.test_dataloader()] == [[2 * each for each in range(100, 108)]]


@pytest.mark.parametrize(("size", "held"), [(12, 12), (0.5, 20), (100, 25)])
def test_the_holdout_is_of_the_validation_examples(size, held):
    data = Datasets(Numbers(40), Numbers(8), validation=Numbers(25, first=100), holdout_size=size)
    data.setup()
    numbers = data.holdout.inputs[:, 0]
    assert len(data.train) == 40 and len(data.holdout) == held == len(numbers.unique())
    assert bool((numbers >= 100).all())


def test_inputs_by_name():
    data = Datasets(ByName(10), ByName(3), holdout_size=4)
    data.setup()
    assert {name: tuple(each.shape) for name, each in data.holdout.inputs.items()} == {"pixels": (4, 2), "mask": (4, 1)}
    assert torch.equal(data.holdout.targets, data.holdout.inputs["pixels"][:, 0].long() % 3)


def collated(items):
    return torch.stack([item for item, _ in items]) / 2, torch.tensor([target for _, target in items])


def test_label_and_other_keys():
    for target, key in ((None, "label"), ("y", "y")):
        data = Datasets(ByName(10, key), ByName(3, key), target=target, holdout_size=4)
        data.setup()
        assert data.holdout.inputs.keys() == {"pixels", "mask"} and data.holdout.targets.shape == (4,)


def test_a_collate_function_of_ones_own():
    data = Datasets(Numbers(10), Numbers(5), collate=collated, holdout_size=2)
    data.setup()
    assert torch.equal(4 * data.holdout.inputs[:, 0], data.holdout.targets.float())


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": Streamed()}, "train is a Streamed: expected .* not one that is only iterated"),
        ({"test": 3}, "test is a int: expected a data set with __getitem__ and __len__$"),
        ({"validation": Numbers(0)}, "validation is empty"),
        ({"plain": Numbers(9)}, "plain has 9 examples and train 10"),
        ({"num_workers": -1}, "num_workers is -1: expected at least 0"),
        ({"target": 1}, "target is a int: expected the key of the targets, or None"),
    ],
)
def test_other_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Datasets(**{"train": Numbers(10), "test": Numbers(5)} | arguments)


class Broken(Numbers):
    def __getitem__(self, index):
        if index == 3:
            raise OSError("no such file")
        return super().__getitem__(index)


class Ragged(Numbers):
    def __getitem__(self, index):
        return torch.zeros(index + 1), 0


class Triples(Numbers):
    def __getitem__(self, index):
        return torch.zeros(1), 0, 1


def single(items):
    return torch.zeros(1, 3), torch.zeros(1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (Broken(5), {}, r"^Broken\[3\] fails: no such file \(test_datasets.py, line \d+\); expected an example$"),
        (Ragged(5), {}, "examples of Ragged make no batch: .* a collate function of your own"),
        (Triples(5), {}, "an example of Triples is 3 parts: expected an input and a target, or a dictionary"),
        (ByName(5, key="y"), {}, "mask, y, not labels or label: give the targets' key as `target` of Datasets"),
        (
            Numbers(5),
            {"collate": single},
            r"inputs of Numbers have the shape \(1, 3\): expected 5 examples",
        ),
        (Numbers(5), {"collate": lambda items: ("a", "b")}, "inputs of Numbers: expected tensors"),
        (
            [(torch.zeros(3), name) for name in ("cat", "dog")],
            {},
            r"targets of list: expected tensors .*, got str; give numbers, batch first, not names$",
        ),
    ],
)
def test_examples_that_cannot_be_used_are_named_in_one_line(dataset, arguments, message, workers):
    with pytest.raises(UserError, match=message):
        examples(dataset, num_workers=workers, **arguments).in_memory()


def test_batches_that_do_not_fit_together_are_refused():
    def padded(items):
        return torch.zeros(len(items), len(items)), torch.zeros(len(items))

    with pytest.raises(
        UserError, match=r"examples of Numbers differ: \(64,\) in float32, .*; and \(1,\) in float32, .*; .*, so pad or"
    ):
        examples(Numbers(65), collate=padded).in_memory()


def test_examples_that_do_not_fit_into_memory_are_refused():
    """Four numbers and one target, 4 and 8 bytes each: 24 bytes an example."""
    most = 24 * 1000 / 2**30
    assert len(examples(Numbers(1000), memory_limit_gib=most).in_memory()) == 1000
    with pytest.raises(UserError, match=r"1001 examples of Numbers take .* more than memory_limit_gib .*: lower hold"):
        examples(Numbers(1001), memory_limit_gib=most).in_memory()


opened = None


class Opened(Numbers):
    """Reads a file that a worker process has opened."""

    def __getitem__(self, index):
        return torch.tensor([float(opened)]), index


def test_the_users_function_begins_each_worker_process():
    def begin(worker):
        global opened
        opened = 10 + worker + get_worker_info().dataset.first

    read = examples(Opened(4, first=5), num_workers=2, worker_init_fn=begin, multiprocessing_context="fork")
    found = [float(inputs) for inputs, _ in read.read([Draw(torch.tensor([0]), None)] * 3)]
    assert sorted({*found}) == [15.0, 16.0]


class Owning(Numbers):
    """Reads a file of its own, which each worker process has opened."""

    file = target = None

    def __getitem__(self, index):
        return torch.tensor([float(self.file)]), index + self.target


@pytest.mark.parametrize("batches", [1, 3])
def test_the_users_function_gives_the_data_set_what_each_process_needs(batches):
    """Also where there is a single batch, which is read without workers otherwise."""

    def begin(worker):
        dataset = get_worker_info().dataset
        dataset.file, dataset.target = 10 + worker, 0
        assert dataset.target == 0  # not the key of the targets

    read = examples(Owning(4), num_workers=2, worker_init_fn=begin, multiprocessing_context="fork")
    found = [float(inputs) for inputs, _ in read.read([Draw(torch.tensor([0]), None)] * batches)]
    assert sorted({*found}) == [10.0, 11.0][:batches] and read.dataset.file is None


def test_workers_may_be_started_by_copies():
    """As where processes are spawned."""
    batches = dataset_examples._Batches(dataset_examples._Reader(Numbers(5, first=7), None, default_collate, None))
    for copied in (pickle.loads(pickle.dumps(batches)), copy.copy(batches), copy.deepcopy(batches)):
        assert copied[[2], None][1].tolist() == [18] and copied.first == 7
    with pytest.raises(AttributeError):
        batches.nothing  # noqa: B018


def test_one_batch_is_read_without_workers(monkeypatch):
    started = []
    monkeypatch.setattr(dataset_examples, "DataLoader", lambda *a, **k: started.append(k["num_workers"]) or iter(()))
    for batches in (1, 2, 9):
        list(examples(Numbers(20), num_workers=4).read([Draw(torch.tensor([0]), None)] * batches))
    assert started == [0, 1, 4]


class Doubled(Numbers):
    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        return inputs.double(), target


class Flat(Numbers):
    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        return inputs, torch.tensor([target])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"test": Doubled(5)},
            "the test examples of datasets are float64 2D and int64 1D, the training .* float32 2D",
        ),
        ({"test": Flat(5)}, "the test examples of datasets are float32 2D and int64 2D"),
        ({"validation": Doubled(5)}, "the validation examples of datasets are float64 2D"),
        ({"test": Triples(5)}, "an example of Triples is 3 parts"),
    ],
)
def test_splits_of_different_kinds_are_refused_when_they_are_loaded(splits, message):
    with pytest.raises(UserError, match=message):
        Datasets(**{"train": Numbers(20), "test": Numbers(5)} | splits).setup()
