import sys
from functools import partial
from types import ModuleType

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.compression import Compression, SearchOptions
from gnnrl_lightning.job.prediction import as_json, predict, proposal
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.policies import Agent, save_policy
from gnnrl_lightning.training.finetune import TrainingOptions

NODE = partial(Agent, head="node")


class Layers(torch.nn.Sequential):
    """So many hidden layers of 16 on the pixels of a digit."""

    def __init__(self, hidden):
        layers = [torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU()]
        for _ in range(hidden - 1):
            layers += [torch.nn.Linear(16, 16), torch.nn.ReLU()]
        super().__init__(*layers, torch.nn.Linear(16, 10))


@pytest.fixture
def compression_of(monkeypatch, tmp_path):
    module = ModuleType("hidden_layers")
    module.Layers = Layers
    monkeypatch.setitem(sys.modules, "hidden_layers", module)

    def make(hidden, **search):
        task = Task(NetworkSpec("hidden_layers.Layers", {"hidden": hidden}), Digits(), seed=1)
        options = SearchOptions(**{"calibration_images": 32} | search)
        compression = Compression(task, Budget(macs=0.5), options, TrainingOptions(epochs=3))
        compression.train_dense(RunFolder.create(tmp_path, f"layers{hidden}"))
        return compression

    return make


def agent_for(compression, **settings):
    agent = GNNRL(actor_critic=NODE, **settings)
    compression.prepare(agent)
    return agent


def test_predictions_are_maximal_within_their_budgets(compression_of):
    compression = compression_of(2)
    agent = agent_for(compression)
    found = predict(compression, agent, [0.3, 0.6])
    cost, dense = compression.graph.cost, float(compression.graph.cost.macs(compression.graph.widths))
    for share, item in zip((0.3, 0.6), found, strict=True):
        widths = torch.tensor(list(item.widths.values()))
        assert item.macs_budget == share and item.ratios["macs_ratio"] == float(cost.macs(widths)) / dense <= share
        wider = widths + torch.eye(2, dtype=torch.int64)
        limits = Budget(macs=share).on(compression.graph)
        assert not limits.met(wider).any()
        assert torch.equal(proposal(compression, agent, limits), widths)  # nothing random in it
        assert 0 <= item.top1_search <= 100
    assert list(found[0].widths) == [group.name for group in compression.graph.groups]
    written = as_json(compression, found)["predictions"][1]
    assert list(written) == ["macs_budget", "macs_ratio", "params_ratio", "top1_search", "widths"]
    assert written["macs_budget"] == 0.6 and written["macs_ratio"] == found[1].ratios["macs_ratio"]


def test_predictions_are_scored_on_the_whole_search_split(compression_of):
    """Also where one is far behind the one before, and candidates of a search race."""
    compression = compression_of(2)
    assert compression.problem._evaluate.evaluator.error == compression.search.racing_error
    compression.task.data.eval_batch_size = 20
    for error, seen in ((compression.search.drop_error, 40), (None, 287)):
        evaluator = compression.make_evaluator(error, compression.final_pruner())
        found = [evaluator(widths, "policy") for widths in (compression.graph.widths, compression.graph.smallest)]
        assert [item.seen for item in found] == [287, seen]
    for item in predict(compression, agent_for(compression), [0.9, 0.1]):
        assert item.top1_search == evaluator(torch.tensor(list(item.widths.values())), "policy").top1


def test_a_policy_of_one_network_serves_another(compression_of, tmp_path):
    source, target = compression_of(2), compression_of(4)
    save_policy(agent_for(source, seed=5).actor_critic, tmp_path / "policy")
    reader = agent_for(target, policy=str(tmp_path / "policy"))
    assert len(predict(target, reader, [0.5])[0].widths) == 4


def test_what_cannot_be_predicted_is_refused(compression_of):
    compression = compression_of(2)
    agent = agent_for(compression)
    with pytest.raises(UserError, match="predict has no budgets"):
        predict(compression, agent, [])
    with pytest.raises(UserError, match="cannot be reached"):
        predict(compression, agent, [0.5, 1e-6])
    with pytest.raises(UserError, match=r"budgets has 1e\+06: expected shares of the dense MACs"):
        predict(compression, agent, [0.5, 1e6])
    with pytest.raises(UserError, match=r"budgets has 1: expected shares of the dense MACs, above 0 and below 1"):
        predict(compression, agent, [1.0])


def test_the_dense_network_meets_its_own_budget(compression_of):
    compression = compression_of(2)
    graph = compression.graph
    limits = Budget(macs=int(graph.cost.macs(graph.widths))).on(graph)
    assert proposal(compression, agent_for(compression), limits).tolist() == [16, 16]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"proposal": None}, "search.proposal dynamic_programming, here it is None"),
        ({"table": "reconstruction"}, "search.table outputs, here it is reconstruction"),
        ({"max_steps": 3}, "search.max_steps 1, here it is 3"),
    ],
)
def test_a_policy_is_not_applied_in_another_setting(compression_of, tmp_path, changed, message):
    agent_for(compression_of(2)).save_policy(tmp_path / "policy")
    with pytest.raises(UserError, match=f"was trained with {message}"):
        agent_for(compression_of(4, **changed), policy=str(tmp_path / "policy"))
