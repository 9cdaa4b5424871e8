import sys
from functools import partial
from types import ModuleType

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.prediction import predict, proposal, record_of
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.policies import Agent, save_policy
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.options import options_of

NODE = partial(Agent, head="node")


class Layers(torch.nn.Sequential):
    """A perceptron on the pixels of a digit, with a given number of hidden layers of 16 units."""

    def __init__(self, hidden):
        layers = [torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU()]
        for _ in range(hidden - 1):
            layers += [torch.nn.Linear(16, 16), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.Linear(16, 10))


@pytest.fixture
def stages_of(monkeypatch, tmp_path):
    module = ModuleType("hidden_layers")
    module.Layers = Layers
    monkeypatch.setitem(sys.modules, "hidden_layers", module)

    def make(hidden, **search):
        task = Task(NetworkSpec("hidden_layers.Layers", {"hidden": hidden}), Digits(), seed=1)
        options = options_of(**{"calibration_examples": 32, "pretraining": TrainingOptions(epochs=3)} | search)
        checked = check(task, Budget(macs=0.5), options)
        return checked, train(checked, RunFolder.create(tmp_path, f"layers{hidden}"))

    return make


def agent_for(stages, **settings):
    agent = GNNRL(make_policy=NODE, **settings)
    stages[0].prepare(agent)
    return agent


def test_predictions_are_maximal_within_their_budgets(stages_of):
    stages = stages_of(2)
    agent, trained = agent_for(stages), stages[1]
    graph = trained.job.graph
    found = predict(trained, agent, [0.3, 0.6])
    cost, dense = graph.cost, float(graph.cost.macs(graph.widths))
    for share, item in zip((0.3, 0.6), found, strict=True):
        widths = torch.tensor(list(item.widths.values()))
        assert item.macs_budget == share and item.ratios["macs_ratio"] == float(cost.macs(widths)) / dense <= share
        wider = widths + torch.eye(2, dtype=torch.int64)
        limits = Budget(macs=share).on(graph)
        assert not limits.met(wider).any()
        assert torch.equal(proposal(trained, agent, limits), widths)  # nothing random in it
        assert 0 <= item.scores["top1"] <= 100
    assert list(found[0].widths) == [group.name for group in graph.groups]
    written = record_of(trained, found)["predictions"][1]
    figures = [f"{name}_search" for name in ("top1", "top5", "cross_entropy", "divergence")]
    assert list(written) == ["macs_budget", "macs_ratio", "params_ratio", *figures, "widths"]
    assert written["macs_budget"] == 0.6 and written["macs_ratio"] == found[1].ratios["macs_ratio"]


def test_predictions_are_scored_on_the_whole_search_split(stages_of):
    """Also where one is far behind the one before, and candidates of a search race."""
    stages = stages_of(2, batch_size=20)
    trained, graph = stages[1], stages[1].job.graph
    racing = trained.evaluator(trained.job.options.drop_probability())
    for evaluator, seen in ((racing, 40), (trained.final_evaluator(), 287)):
        found = [evaluator(widths, "policy") for widths in (graph.widths, graph.smallest)]
        assert [item.seen for item in found] == [287, seen]
    for item in predict(trained, agent_for(stages), [0.9, 0.1]):
        assert item.scores == evaluator(torch.tensor(list(item.widths.values())), "policy").scores


def test_a_policy_of_one_network_serves_another(stages_of, tmp_path):
    source, target = stages_of(2), stages_of(4)
    save_policy(agent_for(source, seed=5).policy, tmp_path / "policy")
    reader = agent_for(target, policy_file=str(tmp_path / "policy"))
    assert len(predict(target[1], reader, [0.5])[0].widths) == 4


def test_a_policy_for_a_range_of_budgets_predicts_in_the_states_that_it_has_learnt_with(stages_of):
    """Without its range the options would let a surrogate imagine episodes, whose states have more features."""
    stages = stages_of(2, macs_range=(0.3, 0.7), surrogate=None)
    agent = agent_for(stages)
    for item in predict(stages[1], agent, [0.3, 0.6]):
        assert item.ratios["macs_ratio"] <= item.macs_budget


def test_what_cannot_be_predicted_is_refused(stages_of):
    stages = stages_of(2)
    agent, trained = agent_for(stages), stages[1]
    with pytest.raises(UserError, match=r"budgets is \[\]: expected some"):
        predict(trained, agent, [])
    with pytest.raises(UserError, match="cannot be reached"):
        predict(trained, agent, [0.5, 1e-6])
    with pytest.raises(UserError, match=r"share of the dense MACs in budgets is 1000000.0: expected a number above 0"):
        predict(trained, agent, [0.5, 1e6])
    with pytest.raises(UserError, match=r"in budgets is 1.0: expected a number above 0 and below 1"):
        predict(trained, agent, [1.0])


def test_the_dense_network_meets_its_own_budget(stages_of):
    stages = stages_of(2)
    graph = stages[1].job.graph
    limits = Budget(macs=int(graph.cost.macs(graph.widths))).on(graph)
    assert proposal(stages[1], agent_for(stages), limits).tolist() == [16, 16]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"proposal": None}, "episode.proposal dynamic_programming, here it is None"),
        ({"sensitivity": "reconstruction"}, "search.sensitivity outputs, here it is reconstruction"),
        ({"max_steps": 3}, "episode.max_steps 1, here it is 3"),
    ],
)
def test_a_policy_is_not_applied_in_another_setting(stages_of, tmp_path, changed, message):
    agent_for(stages_of(2)).save_policy(tmp_path / "policy")
    with pytest.raises(UserError, match=f"was trained with {message}"):
        agent_for(stages_of(4, **changed), policy_file=str(tmp_path / "policy"))
