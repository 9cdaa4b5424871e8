import pytest
import torch

from gnnrl_lightning.rl.policies.readout import (
    check_count,
    decision_mean,
    decisions_of,
    mean_over_decisions,
    one_count,
    sum_over_decisions,
    to_decisions,
)
from gnnrl_lightning.rl.state.assemble import join_states, state_from

EDGE = torch.tensor([[0], [1]])
NONE = torch.zeros(4, 0)
"""No decisions at all."""


def ragged():
    """Graphs of 3, 0 and 2 decisions."""
    return join_states(
        [state_from(torch.zeros(3, 1), EDGE), state_from(torch.zeros(4, 1), EDGE, decisions=NONE),
         state_from(torch.zeros(2, 1), EDGE)]
    )  # fmt: skip


def test_sums_and_means_are_those_of_each_graph():
    state, values = ragged(), torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0])
    assert decisions_of(state).tolist() == [3, 0, 2]
    assert sum_over_decisions(values, state).tolist() == [6, 0, 30]
    assert mean_over_decisions(values[:, None], state).flatten().tolist() == [2, 0, 15]


def test_where_graphs_have_equally_many_sums_are_those_of_rows_to_the_last_bit():
    state, rows = state_from(torch.zeros(64, 31, 1), EDGE), torch.randn(64, 31)
    assert torch.equal(sum_over_decisions(rows.flatten(), state), rows.sum(1))


def test_what_a_graph_has_comes_to_its_decisions_and_back_as_the_adjoint():
    state, of_graphs, of_decisions = ragged(), torch.randn(3, 2, requires_grad=True), torch.randn(5, 2)
    spread = to_decisions(of_graphs, state)
    assert torch.equal(spread, of_graphs[[0, 0, 0, 2, 2]])
    (spread * of_decisions).sum().backward()
    torch.testing.assert_close(of_graphs.grad, sum_over_decisions(of_decisions, state))


def test_decisions_read_their_nodes_by_weight():
    weights = torch.tensor([[1.0, 0], [3.0, 0], [0, 1.0]])
    state = state_from(torch.zeros(3, 1), EDGE, decisions=weights)
    assert decision_mean(torch.tensor([[0.0], [4.0], [7.0]]), state).flatten().tolist() == [3, 7]


def test_parts_with_weights_for_each_decision_say_what_they_fit():
    check_count(state_from(torch.zeros(2, 3, 1), EDGE), 3, "the head")
    with pytest.raises(ValueError, match="the head needs graphs with 3 decisions, these have 0, 2, 3: use"):
        check_count(ragged(), 3, "the head")
    assert one_count(3, "the head") == 3
    with pytest.raises(ValueError, match="the head has weights for each decision, but graphs differ"):
        one_count(None, "the head")
