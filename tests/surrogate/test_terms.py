import torch

from gnnrl_lightning.surrogate.terms import USUAL, USUAL_COUNT, Standard, Terms
from tests.support.fakes import random_sensitivity, small_graph

GRAPH = small_graph()


def test_terms_are_those_of_the_docstring():
    sensitivity = random_sensitivity(GRAPH)
    terms = Terms(GRAPH.widths, sensitivity.of_groups)
    widths = torch.tensor([[8, 12, 24, 8], [16, 24, 24, 32]])
    made = terms(widths)
    assert made.shape == (2, terms.count) and terms.count == 2 + 3 * 4 and made.dtype == torch.float64
    keep = (widths / GRAPH.widths).double()
    losses = sensitivity.of_groups(widths)[0]
    torch.testing.assert_close(made[:, 2:6], keep.log())
    torch.testing.assert_close(made[:, 6:10], keep)
    torch.testing.assert_close(made[0, 1], losses.sum().log())
    torch.testing.assert_close(made[0, 10:14], (losses / losses.sum()).sqrt())
    assert made.isfinite().all()  # also of the dense network, whose losses are zero


def test_terms_of_many_candidates_have_their_own_units_and_of_none_the_usual_ones():
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([1.0, *range(1, 13)], dtype=torch.float64)
    made = torch.cat([torch.ones(5000, 1), 3 + size * torch.randn(5000, 13, generator=generator)], 1).double()
    phi, x = Standard.of(made, 4)(made)
    torch.testing.assert_close(x.std(0), torch.ones(13).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(x.mean(0), torch.zeros(13).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(phi[:, 1], made[:, 1] - made[:, 1].mean())  # a coefficient of the log loss has units
    assert torch.equal(phi[:, 0], made[:, 0]) and torch.equal(phi[:, 2:], x[:, 1:])
    nothing = Standard.of(made[:0], 4)
    assert nothing.size.tolist() == [USUAL[0], *[USUAL[1]] * 4, *[USUAL[2]] * 4, *[USUAL[3]] * 4]
    assert nothing.centre.tolist() == [0] * 13


def test_a_few_candidates_that_are_alike_change_the_usual_units_a_little():
    made = torch.zeros(USUAL_COUNT, 14, dtype=torch.float64)
    same = Standard.of(made, 4)
    torch.testing.assert_close(same.size, Standard.of(made[:0], 4).size * 0.5**0.5)
