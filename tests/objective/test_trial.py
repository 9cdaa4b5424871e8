"""An objective of the user's own is measured once: each mistake is one line."""

from typing import ClassVar

import pytest
import torch

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import (
    Classification,
    Figure,
    Measured,
    Objective,
    Regression,
    Segmentation,
    find_objective,
)
from gnnrl_lightning.objective.protocol import measure
from gnnrl_lightning.objective.trial import try_objective

LOGITS, CLASSES = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1])


class Right(Objective):
    figures: ClassVar = {"right": Figure("right", "%", higher_is_better=True), "wrong": Figure("wrong", "%")}
    ranking = ("right",)

    def loss(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets)

    def measure(self, outputs, targets):
        right = outputs.argmax(1) == targets
        return Measured(right, {"right": 100.0 * right.sum(), "wrong": 100.0 * (~right).sum()})


class WithoutFigures(Right):
    figures: ClassVar = {}


class Texts(Right):
    figures: ClassVar = {"right": "right in %"}


class OtherRanking(Right):
    ranking = ("accuracy",)


class OneName(Right):
    ranking = "right"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (WithoutFigures, "^objective WithoutFigures has no figures: expected figures = {name: Figure"),
        (Texts, "^objective Texts has no figures: expected figures"),
        (
            OtherRanking,
            r"^objective OtherRanking: ranking is \('accuracy',\): expected names of its figures",
        ),
        (OneName, "^objective OneName: ranking is 'right': expected names of its figures"),
    ],
)
def test_what_it_declares_is_checked_where_it_is_given(kind, message):
    for given in (kind, kind()):
        with pytest.raises(UserError, match=message):
            find_objective(given)


class Means(Right):
    def measure(self, outputs, targets):
        right = outputs.argmax(1) == targets
        return Measured(right, {"right": 100 * right.float().mean(), "wrong": 0.0 * right.sum()})


class OneScore(Right):
    def measure(self, outputs, targets):
        return Measured(super().measure(outputs, targets).scores.float().mean(), {})


class Number(Right):
    def measure(self, outputs, targets):
        return Measured(super().measure(outputs, targets).scores, {"right": 1.0})


class Pair(Right):
    def measure(self, outputs, targets):
        return super().measure(outputs, targets).scores, {}


class Raising(Right):
    def measure(self, outputs, targets):
        return {}["right"]


class Undeclared(Right):
    def values(self, means):
        return {"right": 1.0, "top2": 2.0}


class Half(Right):
    ranking = ("right", "wrong")

    def values(self, means):
        return {"right": float(means["right"])}


class Broken(Right):
    def values(self, means):
        return {"right": means["left"]}


class Elements(Right):
    def values(self, means):
        return {"right": torch.zeros(3)}


class Tensors(Right):
    def values(self, means):
        return {"right": means["right"] ** 0.5}


def test_figures_may_be_tensors_of_one_number():
    try_objective(Tensors(), LOGITS, CLASSES)
    found = measure(Tensors(), {"right": [200.0]}, 2)
    assert found == {"right": 10.0} and type(found["right"]) is float


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Means, r"measure gives 50.0 as right of 2 examples together, and \[100.0, 0.0\] of each alone: expected sums"),
        (OneScore, r"measure gives scores of shape \(\) for 2 examples: expected \(2,\)$"),
        (Number, r"measure gives right as a float: expected a tensor$"),
        (Pair, r"measure returns a tuple: expected Measured\(scores, \{name: sum\}\)$"),
        (Raising, r"measure fails: no key 'right' \(test_trial.py, line \d+\); expected Measured"),
        (Undeclared, r"its figures are right, wrong, and it measures right, top2: expected at least right, and none"),
        (Half, r"its figures are right, wrong, and it measures right: expected at least right, wrong, and none"),
        (Elements, r"values gives tensor\(\[0., 0., 0.\]\) as right: expected a number$"),
        (Broken, r"values fails: no key 'left' \(test_trial.py, line \d+\); expected figures by name$"),
    ],
)
def test_what_it_measures_is_tried(kind, message):
    with pytest.raises(UserError, match=f"^objective {kind.__name__}: {message}"):
        try_objective(kind(), LOGITS, CLASSES)


@pytest.mark.parametrize(
    ("objective", "outputs", "targets"),
    [
        (Right(), LOGITS, CLASSES),
        (Classification(), LOGITS, CLASSES),
        (Regression(), LOGITS, LOGITS + 1),
        (Segmentation(), torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))),
    ],
)
def test_what_is_right_passes(objective, outputs, targets):
    try_objective(objective, outputs, targets)
