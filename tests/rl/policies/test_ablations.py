import pytest
import torch

from gnnrl_lightning.rl.encoders import MultiStage
from gnnrl_lightning.rl.policies import AblatedAgent, Agent
from gnnrl_lightning.rl.policies.ablations import ABLATIONS, constant_state, no_messages, shuffled_edges
from gnnrl_lightning.rl.state.assemble import join_states, state_from
from gnnrl_lightning.rl.state.builder import NODE_DIM, StateBuilder
from tests.support.fakes import small_graph


def state(count=3):
    dense = small_graph().widths
    widths = (torch.rand(count, len(dense)) * dense).long().clamp(min=1)
    return StateBuilder(small_graph())(widths, torch.tensor([0.5, 1.0]).expand(count, 2))


@pytest.mark.parametrize("change", ABLATIONS.values())
def test_the_state_itself_is_left_as_it_is(change):
    one = state()
    before = {key: value.clone() for key, value in one.items() if isinstance(value, torch.Tensor)}
    change(one)
    assert all(torch.equal(one[key], value) for key, value in before.items())


def test_without_messages_a_node_sees_itself_alone():
    encoder, batch = MultiStage(NODE_DIM, 16), state(1)
    changed = batch.clone()
    changed.x = batch.x.clone()
    changed.x[0] += 1
    first, second = encoder(no_messages(batch)), encoder(no_messages(changed))
    assert torch.equal(first[1:], second[1:]) and not torch.equal(first[0], second[0])
    assert not torch.equal(encoder(batch)[1:], encoder(changed)[1:])


def test_edges_are_exchanged_in_every_graph_alike():
    batch, nodes = state(2), StateBuilder(small_graph()).num_nodes
    before, after = batch.edge_index, shuffled_edges(batch).edge_index
    half = before.shape[1] // 2
    assert torch.equal(after[:, half:], after[:, :half] + nodes)
    assert torch.equal(after[0], before[0]) and not torch.equal(after[1], before[1])
    assert torch.equal(after[1].sort()[0], before[1].sort()[0])


def test_a_constant_state_tells_neither_widths_nor_budget():
    first, second = constant_state(state(1)), constant_state(state(1))
    for key in ("x", "edge_attr", "edge_index"):
        assert torch.equal(first[key], second[key])


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablated_agents_act_and_learn(ablation):
    torch.manual_seed(0)
    agent, batch = AblatedAgent(NODE_DIM, 4, ablation), state()
    actions, log_prob = agent.act(batch)
    again, value, entropy = agent.evaluate(batch, actions)
    torch.testing.assert_close(again, log_prob)
    (again.sum() + value.sum() + entropy.sum()).backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in agent.parameters())
    torch.manual_seed(0)
    whole = Agent(NODE_DIM, 4)
    assert not torch.allclose(whole.critic(batch), agent.critic(batch))


def test_unknown_ablations_are_refused():
    with pytest.raises(ValueError, match="ablation is 'all'"):
        AblatedAgent(NODE_DIM, 4, "all")


def test_edges_are_exchanged_within_each_graph_of_a_batch_of_different_ones():
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    states = [state_from(torch.zeros(4, NODE_DIM), edges), state(1), state_from(torch.zeros(4, NODE_DIM), edges)]
    batch = join_states(states)
    after = shuffled_edges(batch)
    assert torch.equal(after.batch[after.edge_index[0]], after.batch[after.edge_index[1]])
    alone = join_states([shuffled_edges(one) for one in states])
    assert torch.equal(after.edge_index, alone.edge_index)
