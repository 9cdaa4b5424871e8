from functools import partial

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.encoders import GCN
from gnnrl_lightning.rl.env import Evaluated, VectorPruningEnv
from gnnrl_lightning.rl.policies import Agent
from gnnrl_lightning.rl.ragged import Ragged
from gnnrl_lightning.rl.rollout import RolloutLoader, Transitions, collect, play
from gnnrl_lightning.seeds import derived_seed
from tests.support.fakes import TOP1, Landscape, RingTask, small_graph


def ring_agent():
    return Agent(1, 6, encoder=partial(GCN, hidden=8))


def pruning():
    graph = small_graph()
    score = Evaluated(Landscape(graph, torch.full((4,), 0.7)), TOP1)
    env = VectorPruningEnv(graph, Budget(macs=0.5).on(graph), score)
    agent = Agent(env.state_dim, env.action_dim)
    agent.centre_on(0.6, 0.3)
    return env, agent


def transitions(count):
    rows = torch.arange(float(count))
    actions = Ragged(rows, torch.ones(count, dtype=torch.int64))
    return Transitions(rows[:, None], actions, rows, rows, rows, rows, torch.tensor(1.0))


def test_seeds_differ_in_every_place_and_are_stable():
    seeds = {derived_seed(s, i, r, p) for s in range(3) for i in range(5) for r in range(2) for p in range(2)}
    assert len(seeds) == 60
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_first_ratio_is_one():
    env, agent = pruning()
    batch, _ = collect(env, agent, 6, 0, 1.0, 0.95)
    log_prob, value, _ = agent.evaluate(env.graphs(batch.observations), batch.actions.values)
    torch.testing.assert_close((log_prob - batch.log_probs).exp(), torch.ones(len(batch)), atol=1e-4, rtol=0)
    torch.testing.assert_close(value, batch.values, atol=1e-5, rtol=0)


def test_collect_plays_whole_episodes_and_rewards_their_ends():
    env, agent = pruning()
    batch, rewards = collect(env, agent, 6, 0, 1.0, 1.0)
    assert env.evaluations == 6 == len(rewards)
    left = batch.observations[:, -1]
    assert (left == 1).sum() == 6  # each episode has one first step
    assert 6 < len(batch) <= 30
    # With gamma and lambda 1 the target of every step is the reward of its episode's end.
    torch.testing.assert_close(batch.returns[:6], rewards)
    assert batch.advantages.mean().abs() < 1e-5


def test_collect_is_decided_by_its_seed_and_leaves_the_generator_alone():
    agent = ring_agent()
    state = torch.get_rng_state()
    first, again, other = (collect(RingTask(), agent, 4, seed, 1.0, 0.95)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.actions.values, again.actions.values) and torch.equal(
        first.observations, again.observations
    )
    assert not torch.equal(first.actions.values, other.actions.values)


def test_the_noise_of_actions_is_not_what_the_environment_draws():
    """Each of both takes as many uniform numbers."""
    env = RingTask()
    steps = play(env, lambda state: (torch.rand(len(state.x)), {"heights": state.x.view(-1, 6)}), 50, 7)
    assert steps["heights"].shape == (1, 50, 6)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        noise = torch.rand(300)
    assert not torch.isin(steps["heights"], noise).any()


def test_a_policy_that_has_diverged_is_told():
    """Samples of a Beta distribution whose parameters are NaN are numbers."""
    env, agent = pruning()
    for parameter in agent.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(UserError, match="the policy has diverged"):
        collect(env, agent, 2, 0, 1.0, 0.95)
    assert env.evaluations == 0


def test_an_environment_with_nothing_to_do_is_refused():
    graph = small_graph()
    limits = Budget(macs=int(graph.cost.macs(graph.widths))).on(graph)
    env = VectorPruningEnv(graph, limits, Evaluated(Landscape(graph, torch.ones(4)), TOP1))
    with pytest.raises(UserError, match="give a smaller budget"):
        collect(env, Agent(env.state_dim, 4), 2, 0, 1.0, 0.95)


@pytest.mark.parametrize("counts", [(7, 7), (5, 23), (1, 12), (2, 3)])
def test_two_ranks_use_every_transition_equally_often_and_weigh_it_alike(counts):
    """Whatever the lengths of episodes, the loaders agree in length, and each transition counts the same."""
    epochs, minibatches, total = 3, 4, sum(counts)
    for rank, count in enumerate(counts):
        loader = RolloutLoader(
            lambda _, n=count: transitions(n), lambda: 0, epochs, minibatches,
            rank=rank, world_size=2, reduce=lambda x: torch.tensor(float(total)) if x.ndim == 0 else x,
        )  # fmt: skip
        assert len(loader) == epochs * minibatches
        batches = list(loader)
        assert len(batches) == len(loader)
        uses, weights = torch.zeros(count), torch.zeros(count)
        for batch in batches:
            rows = batch.actions.values.long()
            uses[rows] += batch.weight > 0
            weights[rows] += batch.weight / len(batch)
        assert uses.tolist() == [epochs] * count
        # A process's mean over minibatches, then the mean over both processes, is the mean over all transitions.
        torch.testing.assert_close(weights / len(loader) / 2, torch.full((count,), 1 / total))


def test_each_epoch_has_an_order_of_its_own_that_the_iteration_decides():
    def order(iteration):
        loader = RolloutLoader(lambda _: transitions(8), lambda: iteration, 2, 1)
        return [batch.actions.values.tolist() for batch in loader]

    first, second = order(0)
    assert first != second and sorted(first) == sorted(second)
    assert order(0) == [first, second] and order(1) != [first, second]


def test_a_stopped_iteration_goes_on_where_it_was():
    collected = []

    def gather(iteration):
        collected.append(iteration)
        return transitions(6)

    whole = [batch.actions.values for batch in RolloutLoader(gather, lambda: 4, 2, 3)]
    first = RolloutLoader(gather, lambda: 4, 2, 3)
    batches = iter(first)
    begun = [next(batches).actions.values for _ in range(2)]
    second = RolloutLoader(gather, lambda: 4, 2, 3)
    second.load_state_dict(first.state_dict())
    collected.clear()
    rest = [batch.actions.values for batch in second]
    assert collected == []
    assert all(torch.equal(a, b) for a, b in zip(whole, begun + rest, strict=True))
    assert second.state_dict() == {}
    assert len(list(second)) == 6 and collected == [4]
