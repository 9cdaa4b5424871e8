import logging
from functools import cache, partial

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.encoders import GCN
from gnnrl_lightning.rl.env import Evaluated, VectorPruningEnv
from gnnrl_lightning.rl.env.pool import EnvPool
from gnnrl_lightning.rl.learners import DDPG, GNNRL
from gnnrl_lightning.rl.policies import Agent, DDPGAgent, decisions_of
from gnnrl_lightning.rl.rollout import collect
from tests.rl.learners.test_gnnrl import equal, trainer, weights
from tests.support.fakes import TOP1, Chain, Landscape, RingTask, SaveAt, small_graph

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches .* is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

NODE = partial(Agent, head="node", encoder=partial(GCN, hidden=16, layers=1))
DETERMINISTIC = partial(DDPGAgent, head="node", encoder=partial(GCN, hidden=16, layers=1))


def rings(drawn=None, sizes=(6, 9, 4)):
    return EnvPool({f"ring{size}": RingTask(size) for size in sizes}, drawn)


@cache
def chain_graph():
    torch.manual_seed(0)
    return gnnrl_lightning.trace(Chain([8, 12]), torch.zeros(2, 3, 8, 8))


def pruning(graph, macs, max_steps=1):
    landscape = Landscape(graph, torch.full((len(graph.groups),), 0.7))
    return VectorPruningEnv(graph, Budget(macs=macs).on(graph), Evaluated(landscape, TOP1), max_steps=max_steps)


def networks(max_steps=1):
    """Two networks, of 4 and 2 groups, and two budgets."""
    graphs = {"resnet": small_graph(), "chain": chain_graph()}
    return EnvPool(
        {f"{name}/{macs}": pruning(graph, macs, max_steps) for name, graph in graphs.items() for macs in (0.5, 0.3)}
    )


def test_episodes_are_shared_out_as_evenly_as_can_be():
    pool = rings()
    pool.reset(8, torch.Generator().manual_seed(0))
    assert pool.played.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    sums, counts = pool.sums_of(torch.arange(8.0))
    assert sums.tolist() == [3, 12, 13] and counts.tolist() == [3, 3, 2]


def test_an_episode_is_that_of_its_environment_alone():
    """Observations, states, rewards: as if each environment were played by itself with the same generator."""
    pool, alone = rings(), [RingTask(size) for size in (6, 9, 4)]
    observations, _ = pool.reset(6, torch.Generator().manual_seed(3))
    generator, actions = torch.Generator().manual_seed(3), torch.rand(2 * (6 + 9 + 4))
    state, parts = pool.graphs(observations), actions.split([12, 18, 8])
    _, rewards, done = pool.step(actions)
    for number, (task, part) in enumerate(zip(alone, parts, strict=True)):
        own, _ = task.reset(2, generator)
        expected = task.graphs(own)
        mine = torch.isin(state.batch, torch.tensor([2 * number, 2 * number + 1]))
        assert torch.equal(state.x[mine], expected.x)
        assert torch.equal(rewards[2 * number : 2 * number + 2], task.step(part)[1])
    assert done.all() and pool.evaluations == 6 and pool.evaluations_of.tolist() == [2, 2, 2]


def test_graphs_come_in_the_order_of_the_rows():
    pool = networks()
    observations, _ = pool.reset(8, torch.Generator().manual_seed(0))
    order = torch.tensor([6, 0, 7, 3, 2, 5, 1, 4])
    state, agent = pool.graphs(observations[order]), Agent(pool.state_dim, None, head="node")
    assert decisions_of(state).tolist() == [2, 4, 2, 4, 4, 2, 4, 2]
    actions = agent.mode(state).split(decisions_of(state).tolist())
    for row, own in zip(order.tolist(), actions, strict=True):
        torch.testing.assert_close(agent.mode(pool.graphs(observations[row : row + 1])), own, atol=1e-5, rtol=1e-4)


def test_environments_of_different_lengths_end_on_their_own():
    pool = EnvPool({"one": pruning(small_graph(), 0.5), "five": pruning(chain_graph(), 0.5, max_steps=5)})
    agent = Agent(pool.state_dim, None, head="node")
    agent.centre_on(0.1, 0.01)
    batch, rewards = collect(pool, agent, 4, 0, 1.0, 1.0)
    assert len(batch) == 2 + 2 * 5 and len(batch.actions.values) == 2 * 4 + 10 * 2
    assert pool.evaluations_of.tolist() == [2, 2] and (rewards < 0).all()


def test_a_network_within_its_budget_is_left_alone():
    pool = EnvPool(
        {
            "done": pruning(small_graph(), int(small_graph().cost.macs(small_graph().widths))),
            "half": pruning(chain_graph(), 0.5),
        }
    )
    agent = Agent(pool.state_dim, None, head="node")
    batch, _ = collect(pool, agent, 4, 0, 1.0, 1.0)
    assert len(batch) == 2 and pool.evaluations_of.tolist() == [0, 2]


def test_a_subset_is_drawn_anew_each_time_and_the_seed_decides_it():
    pool, played = rings(drawn=2), []
    for seed in (*range(12), 0):
        pool.reset(4, torch.Generator().manual_seed(seed))
        played.append(tuple(pool.played.tolist()))
    assert set(played) == {(0, 0, 1, 1), (0, 0, 2, 2), (1, 1, 2, 2)} and played[0] == played[-1]


def test_one_number_of_decisions_keeps_the_head_of_one_network():
    pool = EnvPool({str(macs): pruning(small_graph(), macs) for macs in (0.5, 0.3)})
    assert pool.action_dim == 4 and networks().action_dim is None
    batch, _ = collect(pool, Agent(pool.state_dim, pool.action_dim), 4, 0, 1.0, 0.95)
    assert len(batch) == 4


def test_one_policy_learns_from_all_of_them_and_acts_in_another():
    """Rings of 6 and 9 nodes; then one of 12, where the best answer without messages has -1/24."""
    module = GNNRL(rings(sizes=(6, 9)), NODE, episodes_per_iteration=64, minibatches=2, seed=2)
    trainer(40).fit(module)
    task = RingTask(12)
    heights, _ = task.reset(500, torch.Generator().manual_seed(99))
    trained = module.policy
    assert task.step(trained.squash(trained.mode(task.graphs(heights))))[1].mean() > -1 / 24 / 2


@pytest.mark.parametrize("drawn", [None, 2])
@pytest.mark.parametrize("step", [3, 4])
def test_resumes_from_a_checkpoint_bit_by_bit(tmp_path, step, drawn):
    def module(seed=0):
        return GNNRL(rings(drawn), NODE, episodes_per_iteration=8, epochs=2, minibatches=2, target_kl=None, seed=seed)

    whole, begun, resumed, other = module(), module(), module(), module(1)
    trainer(3).fit(whole)
    trainer(2, callbacks=[SaveAt(step, tmp_path / "begun.ckpt")]).fit(begun)
    torch.manual_seed(17)  # nothing may depend on torch's generator
    trainer(3).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))
    assert resumed.evaluations == resumed.evaluations_of.sum() == 24
    trainer(3).fit(other)
    assert not equal(weights(whole), weights(other))


def test_ddpg_resumes_with_rows_of_different_lengths_in_its_replay(tmp_path):
    def module():
        return DDPG(networks(2), DETERMINISTIC, episodes_per_iteration=4, gradient_steps=3, batch_size=8)

    whole, begun, resumed = module(), module(), module()
    trainer(3).fit(whole)
    trainer(2, callbacks=[SaveAt(5, tmp_path / "begun.ckpt")]).fit(begun)
    trainer(3).fit(resumed, ckpt_path=tmp_path / "begun.ckpt", weights_only=True)
    assert equal(weights(whole), weights(resumed))


def test_logs_and_counts_each_environment(tmp_path):
    module = GNNRL(
        rings(), NODE, episodes_per_iteration=8, epochs=1, minibatches=1, proxy=rings(), proxy_warmup=1,
        proxy_between=0, proxy_episodes=6,
    )  # fmt: skip
    assert module.iterations(2) == 3
    trainer(3, logger=CSVLogger(tmp_path, name="run", version="0"), log_every_n_steps=1).fit(module)
    lines = (tmp_path / "run/0/metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    real = [row for row in rows if row["rollout/reward_mean"]]
    assert [float(row["search/evaluations/ring4"]) for row in real] == [2, 4]
    assert module.evaluations_of.tolist() == [6, 6, 4] and module.evaluations == 16
    each = [
        sum(float(row[f"rollout/reward_mean/ring{size}"]) * n for size, n in ((6, 3), (9, 3), (4, 2))) for row in real
    ]
    assert each == pytest.approx([8 * float(row["rollout/reward_mean"]) for row in real])
    assert next(row for row in rows if row["proxy/reward_mean"])["proxy/reward_mean/ring9"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: EnvPool({}), "the pool has no environment"),
        (lambda: rings(drawn=4), "drawn is 4: expected 1 to 3"),
        (
            lambda: EnvPool({"ring": RingTask(), "net": pruning(small_graph(), 0.5)}),
            "differ in their features of a node",
        ),
        (lambda: EnvPool({"pool": rings()}), "environment pool has graphs with different numbers of decisions"),
        (lambda: rings().reset(2, torch.Generator()), "2 episodes are too few for 3 environments"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_settings_are_the_same_in_all():
    first, second = RingTask(), RingTask()
    first.setting = second.setting = {"search.max_steps": "1"}
    assert EnvPool({"a": first, "b": second}).setting == {"search.max_steps": "1"}
    second.setting = {"search.max_steps": "2"}
    with pytest.raises(UserError, match="differ in their setting"):
        EnvPool({"a": first, "b": second})


def test_wrong_numbers_of_actions_are_refused():
    pool = rings()
    pool.reset(3, torch.Generator())
    with pytest.raises(ValueError, match=r"actions have shape \(18,\): expected \(19,\)"):
        pool.step(torch.rand(18))


@pytest.mark.parametrize("learner", [GNNRL, DDPG])
def test_the_head_of_one_network_is_refused_when_the_policy_is_made(learner):
    module = learner(networks())
    with pytest.raises(ValueError, match="graphs differ in their number of decisions: use the head 'node'"):
        module.configure_model()
