import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.rl.env import Evaluated, VectorPruningEnv
from gnnrl_lightning.rl.env.reward import FigureReward
from tests.support.fakes import TOP1, small_graph, small_landscape

HALF = Budget(macs=0.5)
ALL = Budget(macs=int(small_graph().cost.macs(small_graph().widths)))


def vector(budget=HALF, reward=TOP1, **settings):
    graph = small_graph()
    return VectorPruningEnv(graph, budget.on(graph), Evaluated(small_landscape(), reward), **settings)


def test_first_step_prunes_by_the_ratios():
    env, dense = vector(max_ratio_per_step=0.3), small_graph().widths
    env.reset(2)
    _, rewards, done = env.step(torch.tensor([0.0] * 4 + [0.5] * 4))
    assert torch.equal(env.widths[0], dense)
    assert torch.equal(env.widths[1], (dense * 0.85).round().long())
    assert rewards.tolist() == [0, 0] and not done.any()


@pytest.mark.parametrize("settings", [{"max_steps": 1}, {"max_steps": 4}, {"max_steps": 2, "penalty": -5.0}])
@pytest.mark.parametrize("action", [0.0, 0.3, 1.0])
def test_widths_keep_to_the_limits_of_groups(action, settings):
    """From the first step on, whatever the action; a dense network above them is not finished at the start."""
    graph = small_graph().limited({"outer.*": {"min": 10, "max": "75%"}, "inner.1": {"max": 15}, "last": {"min": 16}})
    env = VectorPruningEnv(graph, ALL.on(graph), Evaluated(small_landscape(), TOP1), **settings)
    _, done = env.reset(2)
    assert not done.any()
    while not done.all():
        _, _, done = env.step(torch.full((8,), action))
        assert (env.widths >= torch.tensor([10, 1, 1, 16])).all()
        assert (env.widths <= torch.tensor([12, 24, 15, 32])).all()


@pytest.mark.parametrize("action", [0.0, 0.2, 0.6, 1.0])
def test_the_end_is_on_the_budget_and_nothing_could_be_wider(action):
    env, graph = vector(), small_graph()
    env.reset(1)
    steps, done, rewards = 0, torch.tensor([False]), torch.zeros(1)
    while not done:
        assert rewards == 0
        _, rewards, done = env.step(torch.full((4,), action))
        steps += 1
    assert steps <= 5
    widths = env.widths[0]
    assert HALF.on(graph).met(widths[None])
    wider = widths + torch.eye(4, dtype=torch.int64)
    assert not (HALF.on(graph).met(wider) & (wider <= graph.widths).all(1)).any()
    assert rewards.item() == pytest.approx(env.score.evaluator.top1(widths).item() / 100 - 1)
    assert env.score.evaluator.calls == [(tuple(widths.tolist()), "agent")]
    assert env.evaluations == 1


def test_episodes_of_a_batch_end_on_their_own():
    env = vector()
    env.reset(2)
    actions = torch.tensor([1.0] * 4 + [0.1] * 4)
    lengths, total, done = torch.zeros(2), torch.zeros(2), torch.zeros(2, dtype=torch.bool)
    while not done.all():
        lengths += ~done
        _, rewards, done = env.step(actions)
        total += rewards
    # 30 % a step leaves 0.49 of the MACs of a layer between two groups; 3 % a step never reaches one half.
    assert lengths.tolist() == [1, 5] or lengths.tolist() == [2, 5]
    assert len(env.score.evaluator.calls) == 2
    single = vector()
    for row in range(2):
        single.reset(1)
        reward, finished = 0.0, False
        while not finished:
            _, rewards, over = single.step(actions.view(2, 4)[row])
            reward, finished = reward + rewards.item(), bool(over)
        assert torch.equal(single.widths[0], env.widths[row])
        assert reward == pytest.approx(total[row].item())


def test_a_network_within_budget_ends_at_reset():
    env = vector(ALL)
    _, done = env.reset(3)
    assert done.all()
    _, rewards, done = env.step(torch.ones(12))
    assert done.all() and rewards.tolist() == [0, 0, 0] and env.evaluations == 0


def test_one_step_reaches_every_width_and_starts_at_the_uniform_pruning():
    env, graph = vector(max_steps=1), small_graph()
    assert env.max_ratio == 1
    keep = 1 - env.initial_action
    assert HALF.on(graph).met((graph.widths * keep).round().long()[None])
    assert not HALF.on(graph).met((graph.widths * (keep + 0.05)).round().long()[None])
    env.reset(1)
    _, _, done = env.step(torch.full((4,), env.initial_action))
    shares = env.widths[0] / graph.widths
    assert done and (shares >= keep - 0.05).all()


@pytest.mark.parametrize(("macs", "steps"), [(0.8, 1), (0.5, 2), (0.3, 4)])
def test_steps_of_the_initial_action_meet_the_budget(macs, steps):
    # Uniform pruning keeps about sqrt(macs): 0.89 in one step, 0.70 in two of 0.84, 0.54 in four of 0.86;
    # a step of the first policy takes at most 0.6 * 0.3.
    env = vector(Budget(macs=macs), max_steps=5)
    assert env.initial_action <= 0.6
    env.reset(1)
    taken = 1
    while not env.step(torch.full((4,), env.initial_action))[2]:
        taken += 1
    assert steps <= taken <= steps + 1  # widths are rounded on the way


@pytest.mark.parametrize("max_steps", [1, 5])
def test_the_proposed_actions_lead_to_the_proposed_widths(max_steps):
    """One step can reach any width; with several, each removes at most 30 % of the remaining channels."""
    graph, asked = small_graph(), []
    target = HALF.on(graph).project(graph.widths * torch.tensor([0.5, 1.0, 0.8, 0.9]))

    def proposals(limits):
        asked.append(limits)
        return target.float().expand(len(limits), -1)

    env = vector(max_steps=max_steps, proposals=proposals)
    observations, done = env.reset(2)
    for _ in range(max_steps):
        state = env.graphs(observations)
        expected = ((1 - target / env.widths) / env.max_ratio).clamp(0, 1)
        torch.testing.assert_close(state.proposal, expected.flatten())
        one = env.widths - state.proposal_step.view(2, -1) * env.max_ratio * env.widths  # a channel fewer
        torch.testing.assert_close(one, env.widths - 1.0)
        observations, _, done = env.step(state.proposal)
        if done.all():
            break
    assert done.all() and torch.equal(env.widths, target.expand(2, -1))
    assert torch.equal(asked[0], torch.full((2,), 0.5))
    assert "proposal" not in vector().graphs(vector().reset(1)[0])


def test_proposals_far_below_the_budget_are_filled_up():
    env = vector(max_steps=1)
    env.reset(1)
    env.step(torch.full((4,), 0.95))
    cost = small_graph().cost
    kept = cost.macs(env.widths[0]) / cost.macs(small_graph().widths)
    assert 0.48 < kept <= 0.5


def test_observations_tell_widths_limits_and_steps_left():
    env = vector(Budget(macs=0.5, params=0.6))
    observations, _ = env.reset(2)
    assert observations[0].tolist() == pytest.approx([*small_graph().widths.tolist(), 0.5, 0.6, 1.0])
    observations, _, _ = env.step(torch.full((8,), 0.1))
    assert observations[1, -1] == pytest.approx(0.8)
    state = env.graphs(observations)
    assert state.x.shape == (2 * vector().builder.num_nodes, env.state_dim)
    assert state.x[0, 24:26].tolist() == pytest.approx([0.5, 0.6])


def test_reward_may_be_another():
    env = vector(max_steps=1, reward=FigureReward("cross_entropy", Classification.figures["cross_entropy"]))
    env.reset(1)
    _, rewards, _ = env.step(torch.full((4,), 0.3))
    top1 = env.score.evaluator.top1(env.widths[0]).item()
    assert rewards.item() == pytest.approx(-(100 - top1) / 10)


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match="max_steps is 0"):
        vector(max_steps=0)
    with pytest.raises(UserError, match=r"max_ratio_per_step is 1\.5"):
        vector(max_ratio_per_step=1.5)
    with pytest.raises(UserError, match="cannot be reached"):
        vector(Budget(macs=1e-6))
    env = vector()
    env.reset(1)
    with pytest.raises(ValueError, match="NaN"):
        env.step(torch.full((4,), torch.nan))


def test_episodes_may_have_budgets_of_their_own():
    env, graph = vector(macs_range=(0.3, 0.8)), small_graph()
    observations, _ = env.reset(64, torch.Generator().manual_seed(0))
    limits = observations[:, -3]
    assert 0.3 <= limits.min() < 0.4 and 0.7 < limits.max() <= 0.8 and len(limits.unique()) == 64
    done = torch.zeros(64, dtype=torch.bool)
    while not done.all():
        _, _, done = env.step(torch.full((256,), 0.4))
    kept = graph.cost.macs(env.widths) / graph.cost.macs(graph.widths)
    assert (kept <= limits + 1e-6).all() and (kept > limits - 0.1).all()
    with pytest.raises(UserError, match="macs_range is"):
        vector(macs_range=(0.8, 0.3))
    with pytest.raises(UserError, match="cannot be reached"):
        vector(macs_range=(1e-6, 0.5))


def test_without_projection_candidates_over_the_budget_are_punished():
    """The paper's variant: candidates over the budget are not scored, and those within it are not changed."""
    env, graph = vector(max_steps=2, penalty=-100.0), small_graph()
    env.reset(2)
    actions = torch.tensor([0.1] * 4 + [1.0] * 4)
    _, first, done = env.step(actions)
    _, second, done = env.step(actions)
    assert done.all() and env.evaluations == 1
    met = HALF.on(graph).met(env.widths)
    assert met.tolist() == [False, True]
    assert (first + second)[0] == -100
    assert torch.equal(env.widths[0], (((graph.widths * 0.97).round()) * 0.97).round().long())
    assert (first + second)[1] == pytest.approx(env.score.evaluator.top1(env.widths[1]).item() / 100 - 1)


def test_without_a_score_only_what_exceeds_the_budget_has_a_reward():
    env = VectorPruningEnv(small_graph(), HALF.on(small_graph()), None, max_steps=1, penalty=-100.0)
    env.reset(2)
    assert env.step(torch.tensor([0.0, 0.9]).repeat_interleave(4))[1].tolist() == [-100.0, 0.0]


def test_without_a_score_episodes_end_alike_and_rewards_are_zero():
    scored, silent = vector(), VectorPruningEnv(small_graph(), HALF.on(small_graph()), None)
    for env in (scored, silent):
        env.reset(2)
        done = torch.tensor([False])
        while not done.all():
            _, rewards, done = env.step(torch.tensor([0.3] * 4 + [0.6] * 4))
    assert torch.equal(scored.widths, silent.widths)
    assert rewards.tolist() == [0, 0] and silent.evaluations == 0
