import math
from functools import partial

import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.encoders import GCN
from gnnrl_lightning.rl.policies import ActorCritic, Agent, Beta, ClippedGaussian, SquashedGaussian, graph_mean
from gnnrl_lightning.rl.policies.heads import HEADS
from gnnrl_lightning.rl.state.assemble import join_states, reorder_graphs, state_from
from gnnrl_lightning.rl.state.builder import NODE_DIM
from tests.support.fakes import RingTask, small_states

GROUPS = 4


@pytest.mark.parametrize("distribution", ["Beta", "SquashedGaussian"])
@pytest.mark.parametrize("head", list(HEADS))
def test_evaluate_agrees_with_act(head, distribution):
    kinds = {"SquashedGaussian": {"distribution": SquashedGaussian}}
    agent, batch = Agent(NODE_DIM, GROUPS, head=head, **kinds.get(distribution, {})), small_states()
    action, log_prob = agent.act(batch)
    again, value, entropy = agent.evaluate(batch, action)
    assert action.shape == (3 * GROUPS,)
    assert log_prob.shape == value.shape == entropy.shape == (3,)
    torch.testing.assert_close((again - log_prob).exp(), torch.ones(3), atol=1e-4, rtol=0)
    ratios = agent.squash(action)
    assert ratios.min() >= 0 and ratios.max() <= 1
    (again.sum() + value.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in agent.parameters())


def test_first_policy_is_centred_on_the_start():
    agent = Agent(NODE_DIM, GROUPS)
    agent.centre_on(0.3, 0.1)
    mode = agent.squash(agent.mode(small_states()))
    torch.testing.assert_close(mode, torch.full((3 * GROUPS,), 0.3), atol=0.02, rtol=0)


@pytest.mark.parametrize("fixed", [False, True])
def test_the_papers_policy_learns_its_spread_or_keeps_it(fixed):
    """One embedding, hidden layers of 50, 50 and 200, the mean a tanh, clipped to [-1, 1]."""
    agent = Agent(NODE_DIM, GROUPS, "graph", distribution=ClippedGaussian, fixed_spread=fixed)
    layers = [layer.out_features for layer in agent.actor.mlp if isinstance(layer, nn.Linear)]
    assert layers == [50, 50, 200, 2 * GROUPS]
    agent.centre_on(0.3, 0.1)
    batch = small_states()
    with torch.no_grad():
        agent.actor.mlp[-1].bias += 0.5  # of locations and spreads
    normal = agent.distribution(batch)._normal
    expected = torch.full((3 * GROUPS,), 2 * 0.1 * (1 if fixed else math.exp(0.5)))
    torch.testing.assert_close(normal.scale.detach(), expected, rtol=0.02, atol=0)
    assert (normal.mean > math.tanh(math.atanh(2 * 0.3 - 1) + 0.4)).all()
    action, log_prob = agent.act(batch)
    torch.testing.assert_close(agent.evaluate(batch, action)[0], log_prob)
    assert agent.squash(action).min() >= 0 and agent.squash(action).max() <= 1


@pytest.mark.parametrize("kind", [Beta, SquashedGaussian, ClippedGaussian])
def test_first_policy_is_centred_on_the_proposals_of_the_states(kind):
    """Closer to them than 0.5 % it does not go: at 0 and 1 themselves nothing would be learnt."""
    agent, batch = Agent(NODE_DIM, GROUPS, distribution=kind), small_states(2)
    agent.centre_on(0.3, 0.2, 0.04)
    batch.proposal = torch.tensor([0.0, 0.1, 0.5, 1.0, 0.3, 0.7, 0.9, 0.2])
    batch.proposal_step = torch.full((2 * GROUPS,), 1 / 16)
    with torch.no_grad():
        agent.actor.mlp[-1].weight.zero_()
    expected = batch.proposal.clamp(0.005, 0.995)
    torch.testing.assert_close(agent.squash(agent.mode(batch)), expected, atol=1e-5, rtol=0)
    half = torch.full((GROUPS,), 0.5)
    many = small_states(1)
    many.proposal, many.proposal_step = half, torch.tensor([1 / 32, 1 / 16, 1 / 64, 1 / 10])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        distribution = agent.distribution(many)
        drawn = torch.stack([distribution.squash(distribution.sample()) for _ in range(2000)])
    # One channel of sixteen, or of ten, is more than the given spread.
    assert drawn.std(0).tolist() == pytest.approx([0.04, 1 / 16, 0.04, 0.1], rel=0.1)


def test_node_head_fits_another_number_of_decisions():
    agent = Agent(1, 6, head="node", encoder=partial(GCN, hidden=8))
    task = RingTask(nodes=9)
    state = task.graphs(task.reset(2, torch.Generator())[0])
    assert agent.act(state)[0].shape == (18,)


def test_node_head_is_equivariant_and_value_invariant_to_the_order_of_nodes():
    agent, task = Agent(1, 6, head="node", encoder=partial(GCN, hidden=8)), RingTask()
    one = task.graphs(task.reset(1, torch.Generator().manual_seed(0))[0])
    order = torch.randperm(6)
    other = one.clone()
    other.x, other.edge_index = one.x[order], order.argsort()[one.edge_index]
    torch.testing.assert_close(agent.mode(other), agent.mode(one)[order])
    torch.testing.assert_close(agent.critic(other), agent.critic(one))


def test_saved_and_loaded_on_its_own(tmp_path):
    agent, other = Agent(NODE_DIM, GROUPS), Agent(NODE_DIM, GROUPS)
    agent.centre_on(0.7, 0.1)
    torch.save(agent.state_dict(), tmp_path / "agent.pt")
    other.load_state_dict(torch.load(tmp_path / "agent.pt", weights_only=True))
    batch = small_states()
    assert torch.equal(agent.mode(batch), other.mode(batch))
    assert torch.equal(agent.critic(batch), other.critic(batch))


class TwoLayers(nn.Module):
    """An actor of a user's own: two layers on the mean of the node features."""

    def __init__(self, state_dim, action_dim):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(state_dim, 50), nn.Tanh(), nn.Linear(50, 2 * action_dim))

    def forward(self, state):
        return self.layers(graph_mean(state.x, state)).view(-1, 2)


class TanhCritic(nn.Module):
    def __init__(self, state_dim, action_dim):
        super().__init__()
        self.layer = nn.Linear(state_dim, 1)

    def forward(self, state):
        return self.layer(graph_mean(state.x, state)).tanh().squeeze(-1)


def test_actor_and_critic_are_replaceable():
    agent = Agent(NODE_DIM, GROUPS, actor=TwoLayers, critic=TanhCritic)
    assert isinstance(agent.actor, TwoLayers) and isinstance(agent.critic, TanhCritic)
    direct = ActorCritic(TwoLayers(NODE_DIM, GROUPS), TanhCritic(NODE_DIM, GROUPS))
    action, log_prob = direct.act(small_states())
    torch.testing.assert_close(direct.evaluate(small_states(), action)[0].shape, log_prob.shape)


def test_an_actor_that_puts_out_another_number_is_refused():
    agent = Agent(NODE_DIM, GROUPS, actor=lambda features, _: TwoLayers(features, 2 * GROUPS), critic=TanhCritic)
    with pytest.raises(ValueError, match=r"the actor returns \(24, 2\): expected \(12, 2\) or \(12, 3\): location"):
        agent.act(small_states())


def test_unknown_head_is_refused():
    with pytest.raises(UserError, match="expected one of node, identity, graph"):
        Agent(3, 4, head="nodes")


def ragged(features=NODE_DIM):
    """Graphs of 4, 4, 9 and 2 decisions."""
    edge = torch.tensor([[0, 1], [1, 0]])
    return join_states([small_states(1), *(state_from(torch.randn(size, features), edge) for size in (4, 9, 2))])


def test_one_policy_acts_and_is_judged_in_a_batch_of_graphs_with_different_numbers_of_decisions():
    agent, batch = Agent(NODE_DIM, None, head="node"), ragged()
    action, log_prob = agent.act(batch)
    again, value, entropy = agent.evaluate(batch, action)
    assert action.shape == (4 + 4 + 9 + 2,) and log_prob.shape == value.shape == entropy.shape == (4,)
    torch.testing.assert_close(again, log_prob)
    # The log-probability, value and entropy of a graph do not depend on the rest of the batch.
    for number, own in enumerate(action.split([4, 4, 9, 2])):
        alone = agent.evaluate(alone_of(batch, number), own)
        for found, expected in zip((again, value, entropy), alone, strict=True):
            torch.testing.assert_close(found[number], expected[0], atol=1e-5, rtol=1e-5)


def alone_of(batch, number):
    """One graph of a batch: brought to the front, and all else cut off."""
    others = [n for n in range(batch.num_graphs) if n != number]
    order = torch.tensor([number, *others]).argsort()
    moved = reorder_graphs(batch, order)
    nodes, decisions = int((moved.batch == 0).sum()), int((moved.decision_batch == 0).sum())
    edges = int((moved.batch[moved.edge_index[0]] == 0).sum())
    pairs = int((moved.decision_batch[moved.decision_index[1]] == 0).sum())
    moved.x, moved.batch, moved.ptr = moved.x[:nodes], moved.batch[:nodes], moved.ptr[:2]
    moved.edge_index, moved.edge_attr = moved.edge_index[:, :edges], moved.edge_attr[:edges]
    moved.edge_motif = moved.edge_motif[:edges]
    moved.decision_index, moved.decision_weight = moved.decision_index[:, :pairs], moved.decision_weight[:pairs]
    moved.decision_batch = moved.decision_batch[:decisions]
    return moved


@pytest.mark.parametrize("head", ["identity", "graph"])
def test_heads_of_one_network_say_so(head):
    agent, batch = Agent(NODE_DIM, GROUPS, head=head), ragged()
    with pytest.raises(ValueError, match=f"the head '{head}'.* needs graphs with 4 decisions, these have 2, 4, 9"):
        agent.act(batch)
    with pytest.raises(ValueError, match=f"the head '{head}'.* has weights for each decision, but graphs differ"):
        Agent(NODE_DIM, None, head=head)
