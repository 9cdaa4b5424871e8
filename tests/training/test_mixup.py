import pytest
import torch
from torch.nn import functional as F

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.objective.regression import Regression
from gnnrl_lightning.training.mixup import check_mixable, mix


def batch(examples=64):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, 3, generator=generator)
    return inputs, torch.randint(4, (examples,), generator=generator)


def test_inputs_and_targets_of_the_same_pairs_are_mixed():
    inputs, targets = batch()
    # the last column numbers the examples
    inputs = torch.cat([inputs, torch.arange(64.0)[:, None]], 1).double()
    mixed = mix({"x": inputs}, targets, 1.0, 7)
    assert 0.5 <= mixed.weight < 1
    partners = (mixed.inputs["x"][:, 3] - mixed.weight * inputs[:, 3]) / (1 - mixed.weight)
    partners = partners.round().long()
    assert sorted(partners.tolist()) == list(range(64)) and partners.tolist() != list(range(64))
    torch.testing.assert_close(mixed.inputs["x"], mixed.weight * inputs + (1 - mixed.weight) * inputs[partners])
    assert torch.equal(mixed.targets, targets) and torch.equal(mixed.others, targets[partners])


def test_the_loss_is_that_of_the_mean_targets():
    inputs, targets = batch()
    mixed, outputs = mix(inputs, targets, 1.0, 3), torch.randn(64, 4)
    mean = mixed.weight * F.one_hot(targets, 4) + (1 - mixed.weight) * F.one_hot(mixed.others, 4)
    assert mixed.loss(Classification(), outputs).item() == pytest.approx(F.cross_entropy(outputs, mean).item(), 1e-5)
    outputs = torch.randn(64, 3, requires_grad=True)
    mixed = mix(inputs, 2 * inputs, 1.0, 3)
    (found,) = torch.autograd.grad(mixed.loss(Regression(), outputs), outputs)
    (expected,) = torch.autograd.grad(F.mse_loss(outputs, 2 * mixed.inputs), outputs)
    torch.testing.assert_close(found, expected)


def test_weights_are_those_of_the_beta_distribution_and_depend_on_the_key_alone():
    inputs, targets = batch(2)
    drawn = [mix(inputs, targets, 0.5, 1, key).weight for key in range(2000)]
    assert mix(inputs, targets, 0.5, 1, 9).weight == drawn[9] != drawn[8]
    weights = torch.tensor(drawn)
    # Beta(1/2, 1/2) has the distribution function 2 / pi * asin(sqrt(x)); a fold at one half doubles the upper half
    for quantile in (0.6, 0.75, 0.9):
        expected = 2 * (2 / torch.pi * torch.tensor(quantile).sqrt().asin() - 0.5)
        assert (weights < quantile).float().mean() == pytest.approx(expected.item(), abs=0.045)  # four deviations


def test_integers_have_no_means():
    check_mixable(torch.zeros(2))
    with pytest.raises(UserError, match="mixup with inputs of type int64: expected floating-point inputs; set mixup"):
        check_mixable((torch.zeros(2), torch.zeros(2, dtype=torch.int64)))
