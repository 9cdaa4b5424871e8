from functools import partial

import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.rl.encoders import GCN
from gnnrl_lightning.rl.policies import DDPGActor, DDPGAgent, QCritic, graph_mean
from gnnrl_lightning.rl.policies.deterministic import CRITICS, joined
from gnnrl_lightning.rl.policies.heads import NodeActor
from gnnrl_lightning.rl.state.assemble import join_states, state_from
from gnnrl_lightning.rl.state.builder import NODE_DIM
from tests.support.fakes import RingTask, small_states

GROUPS = 4


@pytest.mark.parametrize("head", list(CRITICS))
def test_shapes_bounds_and_gradients(head):
    agent, batch = DDPGAgent(NODE_DIM, GROUPS, head=head), small_states()
    actions = agent.actor(batch)
    assert actions.shape == (3 * GROUPS,) and 0 < actions.min() and actions.max() < 1
    values = agent.critic(batch, actions)
    assert values.shape == (3,)
    values.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in agent.parameters())
    assert torch.equal(agent.mode(batch), actions.detach())


def test_first_policy_is_centred_on_the_start():
    agent = DDPGAgent(NODE_DIM, GROUPS)
    agent.centre_on(0.3, 0.1)
    torch.testing.assert_close(agent.mode(small_states()), torch.full((3 * GROUPS,), 0.3), atol=0.02, rtol=0)


def test_first_policy_is_centred_on_the_proposals_of_the_states():
    agent, batch = DDPGAgent(NODE_DIM, GROUPS), small_states(2)
    batch.proposal = torch.tensor([0.0, 0.1, 0.5, 1.0, 0.3, 0.7, 0.9, 0.2])
    with torch.no_grad():
        agent.actor.head.mlp[-1].weight.zero_()
    torch.testing.assert_close(agent.mode(batch), batch.proposal.clamp(0.005, 0.995))


def test_actions_stand_at_the_nodes_of_their_decisions():
    task = RingTask()
    state = task.graphs(task.reset(2, torch.Generator().manual_seed(0))[0])
    actions = torch.rand(12)
    with_actions = joined(state, actions)
    assert torch.equal(with_actions.x[:, :1], state.x) and torch.equal(with_actions.x[:, 1], actions)
    assert state.x.shape == (12, 1)  # left as it was
    # A node that two decisions share by weights 1 and 3, and one that has none.
    state = small_states(1)
    state.decision_index = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 3]])
    state.decision_weight = torch.tensor([1.0, 3.0, 1.0, 1.0])
    column = joined(state, torch.tensor([0.2, 0.6, 0.1, 0.9])).x[:, -1]
    torch.testing.assert_close(column[:4], torch.tensor([0.5, 0.1, 0.9, 0.0]))


def test_critic_tells_every_action_apart():
    critic, state = QCritic(NODE_DIM, GROUPS), small_states(1)
    actions = torch.full((GROUPS,), 0.5, requires_grad=True)
    critic(state, actions).sum().backward()
    assert (actions.grad != 0).all() and len(actions.grad.unique()) == GROUPS


def test_node_head_fits_another_number_of_decisions():
    agent = DDPGAgent(1, 6, head="node", encoder=partial(GCN, hidden=8))
    task = RingTask(nodes=9)
    state = task.graphs(task.reset(2, torch.Generator())[0])
    assert agent.critic(state, agent.actor(state)).shape == (2,)


def test_actors_of_the_stochastic_policy_serve_too():
    """The first number of a decision is its location, and the second is not looked at."""
    head, batch = NodeActor(NODE_DIM, GROUPS), small_states()
    torch.testing.assert_close(DDPGActor(head)(batch), head(batch)[..., 0].sigmoid())
    agent = DDPGAgent(NODE_DIM, GROUPS, actor=NodeActor)
    assert type(agent.actor.head) is NodeActor and agent.mode(batch).shape == (3 * GROUPS,)


class FlatCritic(nn.Module):
    """A critic of a user's own, without a graph encoder."""

    def __init__(self, state_dim, action_dim):
        super().__init__()
        self.layer = nn.Linear(state_dim + action_dim, 1)

    def forward(self, state, actions):
        return self.layer(torch.cat([graph_mean(state.x, state), actions.view(state.num_graphs, -1)], dim=1)).squeeze(
            -1
        )


def test_critic_is_replaceable():
    agent, batch = DDPGAgent(NODE_DIM, GROUPS, critic=FlatCritic), small_states()
    assert agent.critic(batch, agent.actor(batch)).shape == (3,)


def test_saved_and_loaded_on_its_own(tmp_path):
    agent, other = DDPGAgent(NODE_DIM, GROUPS), DDPGAgent(NODE_DIM, GROUPS)
    agent.centre_on(0.7, 0.1)
    torch.save(agent.state_dict(), tmp_path / "agent.pt")
    other.load_state_dict(torch.load(tmp_path / "agent.pt", weights_only=True))
    batch = small_states()
    assert torch.equal(agent.mode(batch), other.mode(batch))


def test_unknown_head_is_refused():
    with pytest.raises(UserError, match="expected one of node, identity, graph"):
        DDPGAgent(3, 4, head="nodes")


def test_one_policy_serves_graphs_with_different_numbers_of_decisions():
    """Values in a batch equal those of single graphs."""
    agent, edge = DDPGAgent(1, None, head="node", encoder=partial(GCN, hidden=8)), torch.tensor([[0, 1], [1, 0]])
    states = [state_from(torch.randn(size, 1), edge) for size in (6, 3)]
    batch = join_states(states)
    actions = agent.actor(batch)
    assert actions.shape == (9,)
    alone = [agent.critic(state, own)[0] for state, own in zip(states, actions.split([6, 3]), strict=True)]
    torch.testing.assert_close(agent.critic(batch, actions), torch.stack(alone))
    with pytest.raises(ValueError, match=r"the head 'identity'.* needs graphs with 6 decisions, these have 3, 6"):
        DDPGAgent(1, 6, encoder=partial(GCN, hidden=8)).actor(batch)
