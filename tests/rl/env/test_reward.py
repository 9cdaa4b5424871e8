import math
import sys
from types import ModuleType, SimpleNamespace

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification, Regression, Segmentation
from gnnrl_lightning.objective.protocol import WORST
from gnnrl_lightning.rl.env.reward import REWARDS, check_reward, find_reward
from tests.support.fakes import scored

OBJECTIVE = Classification()


def test_outputs_that_overflow_have_a_finite_reward():
    lost = scored(top1=10.0, cross_entropy=math.inf, divergence=math.inf)
    for name in ("cross_entropy", "divergence"):
        assert find_reward(name, OBJECTIVE)(lost) == -WORST


class Mine:
    def __call__(self, evaluation):
        return 7.0


@pytest.mark.parametrize(
    ("name", "value"), [("top1", -0.25), (None, -0.25), ("cross_entropy", -0.5), ("divergence", math.log(8))]
)
def test_rewards_by_name(name, value):
    assert find_reward(name, OBJECTIVE)(scored(top1=75.0, cross_entropy=0.5, divergence=0.125)) == value


def test_rewards_follow_the_objective():
    evaluation = SimpleNamespace(scores={"mean_iou": 60.0, "rmse": 2.0})
    assert find_reward("mean_iou", Segmentation())(evaluation) == pytest.approx(-0.4)
    assert find_reward(None, Regression())(evaluation) == -2.0
    with pytest.raises(UserError, match=r"episode\.reward is 'top1': expected one of mean_iou, pixel_accuracy"):
        find_reward("top1", Segmentation())


def test_a_figure_that_the_network_does_not_have_says_so():
    with pytest.raises(UserError, match="'top5' fails: this network has no top5: expected one of top1, cross"):
        check_reward(find_reward("top5", OBJECTIVE), "top5", scored())


def test_a_reward_that_is_no_name_is_called_as_its_function():
    def own(evaluation):
        return evaluation.scores["acc"]

    with pytest.raises(
        UserError, match=r"^episode\.reward '[\w.<>]*\bown' fails: no key 'acc' \(test_reward.py, line \d+\)"
    ):
        check_reward(find_reward(own, OBJECTIVE), own, scored())


def test_a_registered_reward_goes_with_every_objective():
    REWARDS.register("seven_for_this_test", Mine)
    assert find_reward("seven_for_this_test", Regression())(None) == 7.0


def test_a_users_own_reward_by_its_path(monkeypatch):
    module = ModuleType("own_rewards")
    module.Mine, module.mine, module.number = Mine, lambda evaluation: 8.0, 3
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    assert find_reward("own_rewards.Mine", OBJECTIVE)(None) == 7.0
    assert find_reward("own_rewards.mine", OBJECTIVE)(None) == 8.0
    for name, message in {
        "own_rewards.number": "expected a function",
        "own_rewards.missing": "cannot be imported",
        "magic": "expected one of top1, top5, cross_entropy, divergence",
    }.items():
        with pytest.raises(UserError, match=message):
            find_reward(name, OBJECTIVE)
