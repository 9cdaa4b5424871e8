import pytest

from gnnrl_lightning.surrogate.diagnostics import proxy_figures
from tests.support.fakes import scored


def asked(*pairs):
    """Candidates of one group: (width, top-1, proposer)."""
    return [scored((width,), top1, proposer=proposer) for width, top1, proposer in pairs]


def errors(widths):
    return (10.0 - widths).sum(1)


def test_ranking_and_iterations_by_hand():
    """Of the six pairs of distinct candidates five are ranked alike: (5 - 1) / 6."""
    history = asked((1, 50, "uniform"), (2, 70, "agent"), (3, 60, "agent"), (2, 70, "agent"), (4, 90, "agent"))
    figures = proxy_figures(history, errors, "agent", 2, "top1")
    assert figures["tau"] == pytest.approx(4 / 6)
    assert figures["first_iteration"] == 65 and figures["last_iteration"] == 80


def test_where_there_is_nothing_to_rank():
    same = asked((1, 50, "uniform"), (2, 50, "agent"))
    assert proxy_figures(same, errors, "agent", 8, "top1") == {"tau": None, "first_iteration": 50, "last_iteration": 50}
    assert proxy_figures(asked((1, 50, "uniform")), errors, "agent", 8, "top1")["first_iteration"] is None
    flat = asked((1, 50, "uniform"), (2, 60, "uniform"))
    assert proxy_figures(flat, lambda widths: widths.sum(1) * 0.0, "agent", 8, "top1")["tau"] is None
