"""A user's own graph goes through every encoder, head and critic."""

import pytest
import torch
from torch_geometric.data import Data

from gnnrl_lightning.rl.encoders import GAT, GCN, MultiStage
from gnnrl_lightning.rl.policies.actor_critic import Agent
from gnnrl_lightning.rl.policies.heads import HEADS
from gnnrl_lightning.rl.state.assemble import join_states, reorder_graphs, state_from
from gnnrl_lightning.rl.state.builder import EDGE_DIM, NODE_DIM, StateBuilder
from gnnrl_lightning.rl.state.motifs import expanded_motif, motif
from gnnrl_lightning.rl.state.views import hierarchical_graph
from tests.support.fakes import small_graph

PATH = torch.tensor([[0, 1, 2], [1, 2, 3]])
ENCODERS = [GCN, GAT, MultiStage]


def traced_state(count=1):
    graph = small_graph()
    return StateBuilder(graph)(graph.widths.repeat(count, 1), torch.ones(count, 2))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_own_graphs_go_through_encoders_heads_and_critics(encoder, head):
    state = state_from(torch.randn(3, 4, 5), PATH)
    agent = Agent(5, 4, head=head, encoder=encoder)
    action, log_prob = agent.act(state)
    assert encoder(5, hidden=8)(state).shape == (12, 8) and action.shape == (12,)
    again, value, entropy = agent.evaluate(state, action)
    torch.testing.assert_close(again, log_prob)
    assert value.shape == entropy.shape == (3,)


def test_a_state_has_the_fields_of_a_traced_one():
    state, traced = state_from(torch.randn(2, 4, 5), PATH), traced_state(2)
    assert set(state.keys()) == set(traced.keys())
    for name in state.keys():
        if isinstance(state[name], torch.Tensor):
            assert state[name].dtype == traced[name].dtype and state[name].ndim == traced[name].ndim, name
    assert state.num_graphs == 2 and state.decision_batch.tolist() == [0] * 4 + [1] * 4
    assert state.edge_index.tolist() == [[0, 1, 2, 4, 5, 6], [1, 2, 3, 5, 6, 7]]
    assert state.decision_index.tolist() == [list(range(8))] * 2 and state.decision_weight.tolist() == [1] * 8


def test_levels_of_a_traced_network_make_its_state_again():
    levels, traced = hierarchical_graph(small_graph()), traced_state()
    network = levels.network
    weights = torch.zeros(len(network.x), len(levels.groups))
    weights[network.decision_index[0], network.decision_index[1]] = network.decision_weight
    motifs = [levels.motifs[number] for number in network.edge_motif]
    state = state_from(network.x, network.edge_index, network.edge_attr, weights, motifs)
    for name in traced.keys():
        torch.testing.assert_close(state[name], traced[name])


def test_decisions_are_weighted_sets_of_nodes():
    weights = torch.tensor([[1.0, 0], [0, 0], [3, 0], [0, 0]])
    state = state_from(torch.randn(4, 5), PATH, decisions=weights)
    assert state.decision_index.tolist() == [[0, 2], [0, 0]] and state.decision_weight.tolist() == [0.25, 0.75]
    assert state.decision_batch.tolist() == [0, 0]
    assert Agent(5, 2, head="node").mode(state).isfinite().all()


def test_written_out_and_quotient_motifs_make_equal_embeddings():
    encoder, x, attributes = MultiStage(5), torch.randn(4, 5), torch.randn(3, EDGE_DIM)
    embedded = []
    for make in (motif, expanded_motif):
        convolution, norm = Data(**make("conv", 3, 4, kernel=3)), Data(**make("norm", 4, 4))
        state = state_from(x, PATH, attributes, motifs=[convolution, norm, convolution])
        assert state.edge_motif.tolist() == [0, 1, 0]
        embedded.append(encoder(state))
    torch.testing.assert_close(*embedded)


def test_edge_features_of_another_size():
    state = state_from(torch.randn(4, 5), PATH, torch.randn(3, 2))
    assert MultiStage(5, hidden=8, edge_dim=2)(state).shape == (4, 8)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_graphs_that_are_joined_keep_their_embeddings(encoder):
    own = state_from(torch.randn(2, 4, NODE_DIM), PATH)
    states = [own, traced_state(), state_from(torch.randn(2, NODE_DIM), torch.zeros(2, 0, dtype=torch.int64))]
    joined, embed = join_states(states), encoder(NODE_DIM)
    assert joined.num_graphs == 4
    assert joined.decision_batch.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 2
    assert joined.ptr.tolist() == [0, 4, 8, 8 + len(states[1].x), 10 + len(states[1].x)]
    torch.testing.assert_close(embed(joined), torch.cat([embed(state) for state in states]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": torch.zeros(4)}, r"x has shape \(4,\)"),
        ({"edge_index": torch.zeros(3, 2, dtype=torch.int64)}, r"expected int64 \(2, E\)"),
        ({"edge_index": torch.tensor([[0], [4]])}, r"has node 4 or below 0: expected 0 to 3"),
        ({"edge_attr": torch.zeros(2, 5)}, r"edge_attr has shape \(2, 5\): expected \(3, D\)"),
        ({"decisions": torch.zeros(3, 1)}, r"decisions has shape \(3, 1\): expected \(4, A\)"),
        ({"motifs": []}, r"motifs has 0 graphs: expected one for each of the 3 edges"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        state_from(**({"x": torch.zeros(4, 2), "edge_index": PATH} | arguments))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_graphs_in_another_order_are_the_same_graphs(encoder):
    states = [traced_state(2), state_from(torch.randn(3, 4, NODE_DIM), PATH), traced_state()]
    for state in states:
        state.proposal = torch.rand(len(state.decision_batch))
        state.proposal_step = torch.rand(len(state.decision_batch))
    batch, place, embed = join_states(states), torch.tensor([5, 0, 3, 1, 4, 2]), encoder(NODE_DIM)
    moved, h = reorder_graphs(batch, place), embed(batch)
    assert moved.batch.tolist() == sorted(moved.batch.tolist()) and moved.ptr.tolist()[-1] == len(batch.x)
    agent = Agent(NODE_DIM, None, head="node", encoder=lambda _: embed)
    for old, new in enumerate(place.tolist()):
        torch.testing.assert_close(embed(moved)[moved.batch == new], h[batch.batch == old])
        own, now = batch.decision_batch == old, moved.decision_batch == new
        assert torch.equal(batch.proposal[own], moved.proposal[now])
        torch.testing.assert_close(agent.mode(batch)[own], agent.mode(moved)[now])
    back = reorder_graphs(moved, place.argsort())
    for name in batch.keys():
        assert torch.equal(back[name], batch[name]), name


def test_proposals_are_in_all_states_or_in_none():
    with_proposal = traced_state()
    with_proposal.proposal = torch.rand(4)
    with pytest.raises(ValueError, match="some states have the field proposal and others lack it"):
        join_states([with_proposal, traced_state()])
