import torch

from gnnrl_lightning.surrogate.terms import Terms, neighbours
from tests.support.fakes import random_sensitivity, small_graph


def test_neighbours_are_groups_with_a_layer_between_them():
    """The residual stream is read by both inner layers and the last one, which the linear layer alone reads."""
    names = [group.name for group in small_graph().groups]
    assert names == ["stem", "inner.0", "inner.1", "last"]
    assert neighbours(small_graph()).T.tolist() == [[0, 1], [0, 2], [0, 3]]


def test_terms_are_those_of_the_docstring():
    graph = small_graph()
    sensitivity = random_sensitivity(graph)
    terms = Terms(graph, sensitivity.of_groups)
    widths = torch.tensor([[8, 12, 24, 8], [16, 24, 24, 32]])
    made = terms(widths)
    assert made.shape == (2, terms.count) and terms.count == 2 + 3 * 4 + 3 and made.dtype == torch.float64
    x = (widths / graph.widths).double().log()
    losses = sensitivity.of_groups(widths)[0]
    torch.testing.assert_close(made[:, 2:6], x)
    torch.testing.assert_close(made[:, 6:10], x.square())
    torch.testing.assert_close(made[0, 1], losses.sum().log())
    torch.testing.assert_close(made[0, 10:14], (losses / losses.sum()).sqrt())
    torch.testing.assert_close(made[0, 14:], x[0, 0] * x[0, 1:])
    assert made.isfinite().all()  # also of the dense network, whose losses are zero
