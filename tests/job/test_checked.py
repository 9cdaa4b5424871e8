"""What does not depend on measurements is refused before anything is measured."""

import pytest
import torch

from gnnrl_lightning import GNNRL, Budget, Task, UserError, compress
from gnnrl_lightning.data import Digits
from gnnrl_lightning.job import check, checked
from gnnrl_lightning.job.checked import unmeasured
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.speed import timer
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.options import options_of
from tests.support.two_hidden import TwoHidden

BUDGETS = [Budget(macs=0.5, channel_multiple="auto"), Budget(latency=0.7), Budget(latency=0.7, macs=0.6, min_width=1)]


@pytest.fixture
def unmeasurable(monkeypatch):
    for name in ("operators", "networks", "check"):
        monkeypatch.setattr(timer.RealTimer, name, lambda *_: pytest.fail("something was measured"))


def late(evaluation):
    return evaluation.beauty


def untrained(state_dim, action_dim):
    raise RuntimeError("no policy")


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize(
    ("options", "agent", "message"),
    [
        ({"evaluations": 5}, {}, r"^search.evaluations is 5: at least \d+ are needed"),
        (
            {"reward": late},
            {},
            r"^episode.reward .* fails: .*'beauty' \(test_checked.py, line \d+\); expected",
        ),
        ({}, {"make_policy": untrained}, r"^model.make_policy cannot be made: no policy"),
        ({"repair": late}, {}, r"^candidate.repair 'late': expected"),
    ],
)
def test_an_agent_that_does_not_fit_is_refused_before_anything_is_measured(
    budget, options, agent, message, unmeasurable
):
    with pytest.raises(UserError, match=message):
        compress(TwoHidden(), Digits(), budget, by=GNNRL(**agent), options=options_of(**options))


def test_a_budget_that_cannot_be_met_too(unmeasurable):
    with pytest.raises(UserError, match=r"^budget.params is 1e-06 .*, which cannot be reached"):
        check(Task(TwoHidden(), Digits()), Budget(latency=0.7, params=1e-6))


def test_a_multiple_that_is_not_known_yet_is_tried_coarse_first(monkeypatch):
    """The coarser, the fewer examples are read: what fits then is not refused. Else the finest says what is needed."""
    monkeypatch.setattr(checked, "align", lambda *_: pytest.fail("something was measured"))
    seen = []

    def fits(known, measured):
        assert not measured
        seen.append(known.job.limits.budget.channel_multiple)
        raise UserError(f"refused with {seen[-1]}")

    budget, task = Budget(macs=0.5, channel_multiple="auto"), Task(TwoHidden(), Digits())
    with pytest.raises(UserError, match=r"^refused with 1$"):
        check(task, budget, fits=fits)
    assert seen == [4, 1]  # 24 and 16 channels: of multiples of 8, there are 3 and 2
    with pytest.raises(pytest.fail.Exception, match="was measured"):
        check(task, budget, fits=lambda known, _: seen.append(known.job.limits.budget.channel_multiple))
    assert seen == [4, 1, 4]


def test_what_is_known_of_a_budget_without_measurements():
    assert unmeasured(Budget(latency=0.7, macs=0.6)) == Budget(macs=0.6, min_width=0)
    assert unmeasured(Budget(latency=0.7)).min_width == 0 and "latency" not in unmeasured(Budget(latency=0.7)).limits
    assert unmeasured(Budget(macs=0.5, channel_multiple="auto"), 8) == Budget(macs=0.5, channel_multiple=8)
    assert unmeasured(Budget(macs=0.5, channel_multiple=2), 8) == Budget(macs=0.5, channel_multiple=2)


class ReadyMade(TwoHidden):
    def __init__(self):
        super().__init__()
        self.load_state_dict({name: torch.full_like(tensor, 0.01) for name, tensor in self.state_dict().items()})


def test_a_network_that_is_made_with_trained_weights_is_not_trained_anew(unmeasurable):
    task = Task(NetworkSpec(f"{__name__}.ReadyMade"), Digits())
    with pytest.raises(UserError, match=r"ReadyMade makes the same weights whatever the seed"):
        check(task, Budget(macs=0.5, channel_multiple=1), options_of(pretraining=TrainingOptions(epochs=1)))
    with pytest.raises(pytest.fail.Exception, match="something was measured"):
        check(task, Budget(macs=0.5, channel_multiple=1), options_of(pretraining=TrainingOptions(epochs=0)))
