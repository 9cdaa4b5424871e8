"""Regression against torchmetrics and scikit-learn."""

import pytest
import torch
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from gnnrl_lightning.data import ExampleSet
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Regression
from gnnrl_lightning.objective.protocol import added_up, measure


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("shape", [(30, 1), (30, 4), (30,)])
def test_figures_are_those_of_scikit_learn(shape):
    outputs, targets = drawn(*shape)
    objective = Regression()
    parts = zip(outputs.split(7), targets.split(7), strict=True)
    found = measure(objective, added_up([objective.measure(*part).sums for part in parts]), 30)
    flat = targets.flatten(), outputs.flatten()
    assert found["rmse"] == pytest.approx(root_mean_squared_error(*flat))
    assert found["mean_absolute_error"] == pytest.approx(mean_absolute_error(*flat))
    assert objective.loss(outputs, targets).item() == pytest.approx(found["rmse"] ** 2)
    scores = objective.measure(outputs, targets).scores
    assert scores.shape == (30,) and bool((scores <= 0).all())


def test_lower_is_better():
    better, worse = ({"rmse": value, "mean_absolute_error": 1.0} for value in (0.5, 0.7))
    assert Regression().merit(better) > Regression().merit(worse)
    assert Regression().figures["rmse"].reward(0.5) == -0.5


def test_outputs_that_would_be_broadcast_are_refused():
    Regression().check(torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(UserError, match=r"returns \(3, 1\), targets are \(3,\): expected the same shape"):
        Regression().check(torch.zeros(3, 1), torch.zeros(3))


def test_targets_that_are_not_finite_are_refused_in_all_training_examples():
    class Data:
        train = ExampleSet(torch.zeros(3, 1), torch.tensor([[0.0], [torch.nan], [torch.inf]]))
        holdout = ExampleSet(torch.zeros(2, 1), torch.zeros(2, 1))

    some = torch.zeros(2, 1)
    Regression().check(some, some)
    with pytest.raises(UserError, match="the targets have 2 NaN or infinite values: expected finite numbers"):
        Regression().check(some, some, Data())
    with pytest.raises(UserError, match="the targets have 2 NaN or infinite values: expected finite numbers"):
        Regression().check(some, some * torch.nan)


def test_drawn_targets_have_the_outputs_as_their_mean():
    outputs = torch.full((5000, 1), 3.0)
    targets = Regression().draw(outputs, torch.Generator().manual_seed(0))
    assert targets.mean().item() == pytest.approx(3.0, abs=0.05) and targets.std().item() == pytest.approx(1, abs=0.05)
