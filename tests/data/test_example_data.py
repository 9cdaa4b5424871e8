"""A data module of a user's own, with inputs in a dictionary."""

import pytest
import torch

from gnnrl_lightning.data import Batch, ExampleData, ExampleSet, LoadedExamples
from gnnrl_lightning.errors import UserError


class Pairs(ExampleData):
    name = "pairs"

    def load(self):
        def examples(n):
            numbers = torch.arange(n)
            return ExampleSet({"a": numbers.float()[:, None], "b": numbers}, (numbers * 2, numbers.float()))

        return LoadedExamples(examples(50), examples(10))

    def augment(self, inputs, targets, generator):
        noise = torch.rand(len(inputs["b"]), generator=generator)
        return inputs | {"a": inputs["a"] + noise[:, None]}, (targets[0], targets[1] + noise)


def ready(**arguments):
    data = Pairs(**arguments)
    data.setup()
    return data


def test_splits_belong_together_and_are_random():
    data = ready(holdout_size=0.2)
    assert (len(data.train), len(data.holdout), len(data.test)) == (40, 10, 10)
    numbers = torch.cat([data.train.inputs["b"], data.holdout.inputs["b"]])
    assert numbers.sort().values.tolist() == list(range(50)) and not torch.equal(numbers, numbers.sort().values)
    assert torch.equal(data.train.targets[0], 2 * data.train.inputs["b"])
    assert torch.equal(ready(holdout_size=10).holdout.inputs["b"], data.holdout.inputs["b"])
    assert not torch.equal(ready(holdout_size=10, split_seed=1).holdout.inputs["b"], data.holdout.inputs["b"])


def test_inputs_and_targets_are_augmented_together():
    data = ready(batch_size=16)
    raw = next(iter(data.train_dataloader()))
    batch = data.on_after_batch_transfer(raw, 0)
    assert isinstance(batch, Batch)
    change = batch.inputs["a"][:, 0] - raw.inputs["a"][:, 0]
    torch.testing.assert_close(change, batch.targets[1] - raw.targets[1])
    assert 0 < float(change.min()) and torch.equal(batch.inputs["b"], raw.inputs["b"])
    plain = next(iter(data.val_dataloader()))
    assert torch.equal(data.on_after_batch_transfer(plain, 0).inputs["a"], plain.inputs["a"])


def test_calibration_has_the_structure_and_a_record():
    data = ready()
    few, many = data.calibration(3), data.calibration(30)
    assert torch.equal(few["b"], many["b"][:3])
    assert data.transform_record() == {"dataset": "pairs", "size": "1, scalar", "dtypes": ["float32", "int64"]}
    with pytest.raises(UserError, match="number of calibration examples is 99: expected a whole number from 1 to 45"):
        data.calibration(99)


class NoExamples(Pairs):
    def __init__(self, loaded):
        super().__init__()
        self.loaded = loaded

    def load(self):
        return self.loaded


class Forgetful(Pairs):
    def __init__(self):
        self.name = "forgetful"


def test_what_load_returns_is_checked():
    examples = ExampleSet(torch.zeros(30, 1), torch.zeros(30))
    dataset = torch.utils.data.TensorDataset(torch.zeros(30, 1), torch.zeros(30))
    for loaded in ((examples, examples), None, LoadedExamples(dataset, examples), LoadedExamples(examples, dataset)):
        with pytest.raises(UserError, match=r"^NoExamples.load returns .*: expected LoadedExamples\(train, test\) of"):
            NoExamples(loaded).setup()
    with pytest.raises(
        UserError, match=r"^Forgetful has no holdout_size: call super\(\).__init__\(\) in its __init__$"
    ):
        Forgetful().setup()
    inputs = torch.zeros(3)
    for given in (inputs.numpy(), inputs.tolist(), tuple(inputs.tolist())):
        for both in ((inputs, given), (given, inputs), (given, given)):
            with pytest.raises(UserError, match=r"expected tensors of as many .* got \w+; .* use torch.as_tensor"):
                ExampleSet(*both)


@pytest.mark.parametrize("part", ["train", "test", "validation"])
def test_splits_without_examples_are_refused(part):
    some, none = (ExampleSet(torch.zeros(number, 1), torch.zeros(number)) for number in (30, 0))
    loaded = LoadedExamples(some, some, some)._replace(**{part: none})
    with pytest.raises(UserError, match=f"NoExamples.load returns no examples as {part}: expected at least one"):
        NoExamples(loaded).setup()
    single = ExampleSet(torch.zeros(1, 1), torch.zeros(1))
    with pytest.raises(UserError, match="cannot hold out 0 of 1 examples: expected at least 2 examples"):
        NoExamples(LoadedExamples(single, some)).setup()


@pytest.mark.parametrize(("number", "part"), [(torch.nan, "train"), (-torch.inf, "test")])
def test_inputs_that_are_not_finite_are_refused(number, part):
    class Broken(Pairs):
        def load(self):
            found = super().load()
            getattr(found, part).inputs["a"][3] = number
            return found

    with pytest.raises(
        UserError, match=rf"Broken.load returns \d+ NaN or infinite values in the inputs of {part}: exp"
    ):
        Broken().setup()


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(UserError, match=r"as many examples each, got \[2, 3\]"):
        ExampleSet(torch.zeros(2), torch.zeros(3))
    with pytest.raises(UserError, match="cannot hold out 50 of 50 examples"):
        ready(holdout_size=50)
