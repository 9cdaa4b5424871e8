"""What every objective has: distances, sums, figures, rewards."""

import math

import pytest
import torch

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification, Figure, Measured, Objective, Regression, relative_distance
from gnnrl_lightning.objective.protocol import SMALLEST, WORST, added_up, measure, primary_figure, record, untrained


class Counting(Objective):
    """A minimal user-defined objective."""

    figures = {"count_error": Figure("count error", digits=3)}  # noqa: RUF012
    ranking = ("count_error",)

    def loss(self, outputs, targets):
        return (outputs["rate"] - targets).square().mean()

    def measure(self, outputs, targets):
        error = (outputs["rate"] - targets).abs()
        return Measured(-error, {"count_error": error.sum()})


def test_a_users_own_objective_needs_loss_measure_and_names():
    objective, outputs = Counting(), {"rate": torch.tensor([1.0, 4.0]), "steps": torch.tensor([3, 3])}
    targets = torch.tensor([2.0, 2.0])
    sums = added_up([objective.measure(outputs, targets).sums])
    assert measure(objective, sums, 2) == {"count_error": 1.5}
    assert objective.primary == "count_error" and objective.merit({"count_error": 1.5}) == (-1.5,)
    other = {"rate": torch.tensor([1.0, 5.0]), "steps": torch.tensor([0, 0])}
    # The reference has a variance of 2.25, integers do not count.
    assert objective.distance(other, outputs).tolist() == pytest.approx([0.0, 1 / 2.25])
    assert float(objective.distillation(other, outputs, 4.0)) == pytest.approx(0.5)
    assert objective.agrees(outputs, outputs) and not objective.agrees(other, outputs)
    assert objective.reported.keys() == {"count_error", "divergence"}
    with pytest.raises(UserError, match="objective Counting draws no targets"):
        objective.draw(outputs, torch.Generator())


def test_relative_distance_by_hand():
    """Over two examples of two elements the reference has the variances 1 and 4; that of one tensor is the mean."""
    reference = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    outputs = torch.tensor([[3.0, 4.0], [2.0, 4.0]])
    assert relative_distance(outputs, reference).tolist() == [5.0, 0.0]
    assert relative_distance((outputs, reference), (reference, reference)).tolist() == [2.5, 0.0]
    # One that does not vary is compared with its square, zeros with the smallest number.
    assert relative_distance(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [2.0]])).tolist() == [0.25, 0.25]
    assert relative_distance(torch.zeros(2, 1), torch.zeros(2, 1)).tolist() == [0.0, 0.0]
    scaled = relative_distance(10 * outputs + 5, 10 * reference + 5)
    torch.testing.assert_close(scaled, relative_distance(outputs, reference))
    with pytest.raises(UserError, match="no floating-point tensor"):
        relative_distance(torch.zeros(2, 1).long(), torch.zeros(2, 1).long())


def test_distances_relative_to_all_outputs_do_not_depend_on_the_batch():
    generator = torch.Generator().manual_seed(0)
    reference, outputs = (
        {"a": torch.randn(12, 2, 3, generator=generator) + 100, "b": 1e-4 * torch.randn(12, generator=generator)}
        for _ in range(2)
    )
    parts = [{name: tensor[i : i + 5] for name, tensor in reference.items()} for i in range(0, 12, 5)]
    wanted = relative_distance(outputs, reference)
    objective = Regression()
    for size in (1, 2, 12):
        relative = objective.relative_to(parts)
        found = [
            relative.distance(*({name: tensor[i : i + size] for name, tensor in each.items()} for each in pair))
            for pair in [(outputs, reference)]
            for i in range(0, 12, size)
        ]
        torch.testing.assert_close(torch.cat(found), wanted, rtol=1e-4, atol=0)
    assert objective.distance(outputs, reference).equal(wanted) and objective == Regression()


@pytest.mark.parametrize("number", [0.1, 0.3, 7.7])
def test_rounding_is_no_variance(number):
    """Sums of numbers that are all the same are rounded."""
    for count in (7, 100, 1000):
        reference = torch.full((count, 3), number)
        found = relative_distance(reference + 0.01, reference)
        torch.testing.assert_close(found, torch.full((count,), (0.01 / number) ** 2), rtol=1e-3, atol=0)
        assert Regression().relative_to(reference.split(64)).distance(reference, reference).max() == 0


def test_outputs_are_looked_into_where_the_default_distance_is_used_alone():
    """Those of a language model, say, have parts without examples, which a classifier does not read."""
    logits = torch.randn(4, 3)
    objective = Classification().relative_to([{"logits": logits, "loss": torch.tensor(1.0)}])
    assert float(objective.distance({"logits": logits}, {"logits": logits}).sum()) == 0


def test_the_default_distillation_is_the_mean_squared_difference_whatever_the_batch():
    ours, theirs = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 1.0]])
    assert float(Regression().distillation(ours, theirs, 4.0)) == 2.5
    both = (ours, 10 * ours.long(), ours), (theirs, ours.long(), ours)
    assert float(Regression().distillation(*both, 4.0)) == 1.25
    with pytest.raises(UserError, match="no floating-point tensor"):
        Regression().distillation(ours.long(), theirs.long(), 4.0)


def test_sums_add_up_in_float64_whatever_their_shape():
    batches = [{"a": torch.tensor(1.0), "b": torch.tensor([[1, 2], [3, 4]])}] * 3
    assert added_up(batches) == {"a": [3.0], "b": [3.0, 6.0, 9.0, 12.0]}
    small = [{"a": torch.tensor(2.0**24)}, {"a": torch.tensor(1.0)}]
    assert added_up(small) == {"a": [2.0**24 + 1]}  # float32 has no such number


@pytest.mark.parametrize(
    ("figure", "value", "expected"),
    [
        (Figure("accuracy", "%", higher_is_better=True), 87.5, -0.125),
        (Figure("score", higher_is_better=True), 0.7, 0.7),
        (Figure("loss"), 0.7, -0.7),
        (Figure("loss"), 1000.0, -1000.0),
        (Figure("loss"), 1000 * math.exp(2), -3000.0),  # a squared error in a small unit
        (Figure("score", higher_is_better=True), 1000 * math.exp(0.5), 1500.0),
        (Figure("loss"), 1e30, -WORST),
        (Figure("loss"), math.inf, -WORST),
        (Figure("loss"), math.nan, -WORST),
        (Figure("score", higher_is_better=True), math.nan, -WORST),
        (Figure("score", higher_is_better=True), math.inf, -WORST),
        (Figure("accuracy", "%", higher_is_better=True), math.inf, -WORST),
        (Figure("divergence", logarithmic=True), math.exp(-2), 2.0),
        (Figure("divergence", logarithmic=True), 0.0, -math.log(SMALLEST)),
        (Figure("divergence", logarithmic=True), math.inf, -WORST),
        (Figure("divergence", logarithmic=True), math.nan, -WORST),
    ],
)
def test_rewards_of_figures(figure, value, expected):
    assert figure.reward(value) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("higher", [False, True])
def test_a_network_without_finite_outputs_ranks_last(value, higher):
    """Sums of NaN outputs are recorded as infinite."""
    figure = Figure("figure", higher_is_better=higher)
    assert figure.merit(value) == -math.inf < figure.merit(-1e300 if higher else 1e300)


def test_figures_are_written_with_unit_and_digits():
    accuracy = Classification.figures["top1"]
    assert (accuracy.heading, accuracy.with_unit(87.5), accuracy.text(1.0, sign=True)) == (
        "top-1 in %",
        "87.50 %",
        "+1.00",
    )
    assert Regression.figures["rmse"].with_unit(0.25) == "0.2500" and Regression.figures["rmse"].heading == "RMSE"
    assert primary_figure({"objective": record(Classification())}) == ("top1", accuracy)


def test_an_untrained_network_says_nothing():
    outputs, targets = torch.randn(50, 10), torch.arange(50) % 10
    found = untrained(Classification(), outputs, targets)
    assert found.keys() == {"top1", "top5", "cross_entropy", "divergence"}
    assert (found["top1"], found["cross_entropy"]) == (10.0, pytest.approx(math.log(10)))
