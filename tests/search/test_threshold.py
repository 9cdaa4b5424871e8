"""A global threshold, by hand."""

import torch

import gnnrl_lightning
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.search.threshold import widths_above_threshold
from tests.support.fakes import Chain


def chain():
    """27 a + 9 a b + 10 b MACs at the widths a, b."""
    return gnnrl_lightning.trace(Chain((4, 4)), torch.zeros(1, 3, 1, 1))


def test_by_hand():
    """Scores over their means: 1.6 1.2 0.8 0.4 and 2.5 1 0.3 0.2; without 0.2 to 0.4 (3, 2) is left: 155 MACs."""
    scores = [torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[3.0, 2.0, 25.0, 10.0]])]
    assert widths_above_threshold(Budget(macs=155.0).on(chain()), scores).tolist() == [3, 2]


def test_the_scale_of_a_group_does_not_matter():
    scores = [torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.tensor([[3.0, 2.0, 25.0, 10.0]])]
    scaled = [scores[0] * 1000, scores[1]]
    for limit in (60.0, 100.0, 155.0, 200.0):
        limits = Budget(macs=limit).on(chain())
        assert torch.equal(widths_above_threshold(limits, scores), widths_above_threshold(limits, scaled))


def test_every_group_keeps_its_lowest_width():
    scores = [torch.tensor([[1.0, 1.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.0, 0.0]])]
    widths = widths_above_threshold(Budget(macs=0.4, min_width=2).on(chain()), scores)
    assert widths.min() >= 2 and int(chain().cost.macs(widths)) <= 116
