import torch

from gnnrl_lightning.env import Evaluated, NegativeCrossEntropy, Proxy
from tests.fakes import Landscape, small_graph


def landscape():
    graph = small_graph()
    return Landscape(graph, torch.full((len(graph.groups),), 0.7))


def test_every_candidate_is_evaluated_and_counted():
    evaluator = landscape()
    score = Evaluated(evaluator, NegativeCrossEntropy(), proposer="me")
    widths = torch.stack([small_graph().widths, small_graph().widths // 2])
    expected = torch.tensor([-(100 - float(evaluator.top1(row))) / 10 for row in widths])
    torch.testing.assert_close(score(widths), expected)
    assert score.evaluations == 2
    assert [proposer for _, proposer in evaluator.calls] == ["me", "me"]


def errors(widths):
    """Error of each group: the square of what it lacks of 40 channels, in tens."""
    return ((40 - widths.double()) / 10).square()


def proxy(true_slopes, offset, noise, evaluations, spread=0.5, groups=6):
    generator = torch.Generator().manual_seed(0)
    known = torch.randint(20, 40, (evaluations, groups), generator=generator)
    rewards = offset - (true_slopes * errors(known)).sum(1)
    rewards += noise * torch.randn(evaluations, generator=generator, dtype=torch.float64)
    return Proxy(errors, lambda: (known, rewards), spread), known, rewards


def test_before_evaluations_it_is_minus_the_sum_of_errors():
    estimate = Proxy(errors, lambda: (torch.zeros(0, 6, dtype=torch.int64), torch.zeros(0)))
    widths = torch.randint(1, 40, (5, 6))
    torch.testing.assert_close(estimate(widths), -errors(widths).sum(1).float())
    assert estimate.evaluations == 0


def test_with_equal_slopes_it_finds_the_line():
    estimate, _, _ = proxy(torch.full((6,), 0.02, dtype=torch.float64), -0.05, 0.0, 20)
    widths = torch.randint(20, 40, (50, 6))
    torch.testing.assert_close(estimate(widths), (-0.05 - 0.02 * errors(widths).sum(1)).float(), atol=1e-4, rtol=0)


def test_it_learns_which_groups_matter_more():
    slopes = torch.tensor([0.03, 0.01, 0.02, 0.02, 0.015, 0.025], dtype=torch.float64)
    one_slope, _, _ = proxy(slopes, -0.05, 0.001, 60, spread=0.0)
    many, _, _ = proxy(slopes, -0.05, 0.001, 60)
    widths = torch.randint(20, 40, (200, 6), generator=torch.Generator().manual_seed(1))
    truth = -0.05 - (slopes * errors(widths)).sum(1)
    wrong, right = ((estimate(widths) - truth).square().mean().sqrt() for estimate in (one_slope, many))
    assert right < 0.002 and right < wrong / 3


def test_it_takes_in_new_evaluations():
    known = torch.randint(20, 40, (12, 6), generator=torch.Generator().manual_seed(0))
    rewards = -0.1 - 0.02 * errors(known).sum(1)
    count = 0
    estimate = Proxy(errors, lambda: (known[:count], rewards[:count]))
    before = estimate(known)
    count = 12
    assert not torch.allclose(before, estimate(known))
    torch.testing.assert_close(estimate(known), rewards.float(), atol=1e-4, rtol=0)
