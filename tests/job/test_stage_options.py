"""Budgets of the stages before the last one."""

import pytest

from gnnrl_lightning import trace
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.stage_options import StageOptions
from gnnrl_lightning.rl.env.options import EpisodeOptions
from tests.support.two_hidden import TwoHidden


@pytest.fixture(scope="module")
def graph():
    import torch

    return trace(TwoHidden(), torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shares": [0.5, 0.7]}, r"stages.shares is \[0.5, 0.7\]: expected falling shares, for example \[0.7, 0.5\]"),
        ({"shares": [0.5, "50%"]}, r"expected falling shares"),
        ({"shares": [1000]}, r"stages.shares is \[1000\]: expected shares of the dense network's cost, below 1"),
        ({"shares": ["100%"]}, r"stages.shares is 100%, which is neither a share nor absolute"),
        ({"shares": [0]}, r"stages.shares is 0: expected a positive number"),
        ({"shares": ["half"]}, r"stages.shares is 'half': expected a share such as 0.5 or 50%"),
        ({"shares": [0.7], "epochs": [1, 2]}, r"stages.epochs is \[1, 2\] .* expected one number for each share"),
        ({"shares": [0.7], "epochs": -1}, r"stages.epochs is -1: expected at least 0"),
        ({"shares": [0.7, 0.5], "epochs": [1, -1]}, r"stages.epochs is -1: expected at least 0"),
    ],
)
def test_shares_that_are_none_or_do_not_fall_are_refused(given, message):
    with pytest.raises(UserError, match=message) as error:
        StageOptions(**given)
    assert "\n" not in str(error.value)


def test_each_metric_falls_to_its_own_limit(graph):
    """Dense: 64 * 24 + 24 * 16 + 16 * 10 = 2080 MACs, of which 390 are 18.75 %."""
    limits = Budget(macs=390, params="60%", channel_multiple=2, min_width=3).on(graph)
    found = StageOptions(["70%", 0.5, 0.2]).budgets(limits)
    assert [each.limits for each in found] == [
        {"macs": 0.7, "params": 0.7},
        {"macs": 0.5, "params": "60%"},
        {"macs": 0.2, "params": "60%"},
    ]
    assert {(each.channel_multiple, each.min_width) for each in found} == {(2, 3)}


@pytest.mark.parametrize("shares", [[0.5], [0.4], [0.7, 0.4]])
def test_a_share_that_is_not_above_the_budget_is_refused(graph, shares):
    with pytest.raises(UserError, match=r"stages.shares has 0.\d, and the budget is macs 0.5 of the dense network"):
        StageOptions(shares).budgets(Budget(macs=1040).on(graph))


def test_epochs_are_those_of_fine_tuning_unless_given():
    assert [*StageOptions([0.7, 0.5]).epochs_of(8)] == [8, 8]
    assert [*StageOptions([0.7, 0.5], 3).epochs_of(8)] == [3, 3]
    assert [*StageOptions([0.7, 0.5], [3, 0]).epochs_of(8)] == [3, 0]
    assert [*StageOptions().epochs_of(8)] == []


def test_a_range_of_budgets_and_stages_exclude_each_other():
    with pytest.raises(
        UserError, match=r"episode.macs_range and stages.shares exclude each other, for a stage has one budget"
    ):
        Options(stages=StageOptions([0.7]), episode=EpisodeOptions(macs_range=(0.2, 0.5)))
