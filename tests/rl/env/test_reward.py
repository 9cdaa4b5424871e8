import math
import sys
from types import ModuleType, SimpleNamespace

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.env import NegativeCrossEntropy, NegativeTop1Error
from gnnrl_lightning.rl.env.reward import WORST, find_reward
from tests.support.fakes import FakeEvaluation


def test_rewards():
    evaluation = FakeEvaluation((1,), top1=87.5, cross_entropy=0.4)
    assert NegativeTop1Error()(evaluation) == -0.125
    assert NegativeCrossEntropy()(evaluation) == -0.4


def test_outputs_that_overflow_have_a_finite_reward():
    evaluation = SimpleNamespace(top1=10.0, cross_entropy=math.inf, divergence=math.inf)
    assert find_reward("cross_entropy")(evaluation) == find_reward("divergence")(evaluation) == -WORST


class Mine:
    def __call__(self, evaluation):
        return 7.0


@pytest.mark.parametrize(("name", "value"), [("top1", -0.25), ("cross_entropy", -0.5), ("divergence", -0.125)])
def test_rewards_by_name(name, value):
    evaluation = SimpleNamespace(top1=75.0, cross_entropy=0.5, divergence=0.125)
    assert find_reward(name)(evaluation) == value


def test_a_users_own_reward_by_its_path(monkeypatch):
    module = ModuleType("own_rewards")
    module.Mine, module.mine, module.number = Mine, lambda evaluation: 8.0, 3
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    assert find_reward("own_rewards.Mine")(None) == 7.0
    assert find_reward("own_rewards.mine")(None) == 8.0
    for name, message in {
        "own_rewards.number": "is not a function",
        "own_rewards.missing": "cannot be imported",
        "magic": "expected one of top1, cross_entropy, divergence",
    }.items():
        with pytest.raises(UserError, match=message):
            find_reward(name)
