"""The evaluation budget of a search, and its costs."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, STARTING, starting_candidates
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem
from tests.support.fakes import Landscape, random_sensitivity, small_graph

LIMITS = Budget(macs=0.5).on(small_graph())


def problem(evaluations=20, sensitivity=None, evaluation_examples=100, pruner=None):
    graph = small_graph()
    landscape = Landscape(graph, torch.full((len(graph.groups),), 0.7))
    starting = starting_candidates(graph, LIMITS)
    make = None if sensitivity is None else lambda: sensitivity
    return SearchProblem(graph, LIMITS, landscape, evaluations, starting, make, evaluation_examples, pruner)


def test_every_question_counts_known_candidates_too():
    search = problem()
    for _ in range(2):
        search.ask(search.starting["uniform"], "mine")
    assert (search.spent, search.left, len(search.history)) == (2, 18, 2)
    assert search._evaluate.calls[0] == (tuple(search.starting["uniform"].tolist()), "mine")


def test_starting_candidates_are_scored_first_and_count():
    search = problem()
    search.start()
    assert search.spent == len(STARTING) == 4
    assert [proposer for _, proposer in search._evaluate.calls] == list(STARTING)
    assert not search.reads_sensitivity


def test_a_table_adds_starting_candidates_and_is_paid_for_once():
    """301 images on a holdout of 100 cost 4 evaluations."""
    search = problem(sensitivity=random_sensitivity(small_graph(), examples=301))
    assert search.spent == 0
    search.start(from_sensitivity=True)
    assert search.spent == 4 + len(STARTING) + len(FROM_SENSITIVITY)
    assert search.sensitivity is search.sensitivity and search.spent == 4 + len(STARTING) + len(FROM_SENSITIVITY)
    assert [proposer for _, proposer in search._evaluate.calls][-2:] == ["greedy", "dynamic_programming"]
    assert search.charged_examples == 301 and search.reads_sensitivity


def test_images_that_are_read_once_are_added_up_and_paid_for_once():
    """Two passes over 40 calibration images and a sensitivity of 301, on a holdout of 100: 4 evaluations."""
    table = dataclasses.replace(random_sensitivity(small_graph(), examples=301), passes=("moments",))
    search = problem(sensitivity=table, pruner=SimpleNamespace(passes={"recording"}, calibration=torch.zeros(40)))
    assert search.spent == 0
    for _ in range(2):
        search.ask(search.starting["uniform"], "mine")
    assert search.spent == 1 + 2 and search.charged_examples == 40
    search.sensitivity  # noqa: B018
    assert search.spent == 4 + 2 and search.charged_examples == 381
    search.calibrate("moments")
    search.calibrate("taylor")
    assert search.spent == 5 + 2 and search.charged_examples == 421


def test_a_table_from_statistics_that_took_no_image_is_free():
    search = problem(sensitivity=random_sensitivity(small_graph(), examples=0))
    assert search.sensitivity.examples == 0 and search.spent == 0


def test_what_cannot_be_paid_for_is_refused():
    with pytest.raises(NotApplicable, match=r"passes of 301 examples \(100 cost one evaluation\), but only 3 of 3 "):
        problem(3, random_sensitivity(small_graph(), examples=301)).sensitivity  # noqa: B018
    with pytest.raises(NotApplicable, match="none is measured"):
        problem().sensitivity  # noqa: B018
    with pytest.raises(NotApplicable, match="has 3 evaluations left, the starting candidates need 4"):
        problem(3).start()
    with pytest.raises(NotApplicable, match="has no pruner"):
        problem().network  # noqa: B018


def test_more_questions_than_evaluations_are_an_error():
    search = problem(1)
    search.ask(search.starting["uniform"], "mine")
    with pytest.raises(UserError, match=r"mine asks for more than its 1 evaluations: expected no more than"):
        search.ask(search.starting["uniform"], "mine")


def test_candidates_over_the_budget_are_an_error():
    search = problem()
    with pytest.raises(UserError, match=r"mine proposes .* expected widths that problem.project gives"):
        search.ask(search.graph.widths, "mine")
    assert search.spent == 0


@pytest.mark.parametrize(
    ("widths", "what"),
    [
        ([8, 8, 8, 8], "list"),
        (torch.ones(4), r"torch.float32 \(4,\)"),
        (torch.ones(3, dtype=torch.int64), r"torch.int64 \(3,\)"),
        (torch.ones(1, 4, dtype=torch.int64), r"torch.int64 \(1, 4\)"),
    ],
)
def test_what_is_no_candidate_is_an_error(widths, what):
    search = problem()
    with pytest.raises(UserError, match=rf"^mine proposes {what}: expected .* int64 tensor of shape \(4,\), such as"):
        search.ask(widths, "mine")
    assert search.spent == 0 and search.history == []


def test_a_search_may_be_allowed_to_evaluate_beyond_its_budget():
    """Its own proposals and the starting candidates still meet the budget."""
    search = problem()
    above = Budget(macs=0.7).on(search.graph).project(search.graph.widths)
    search.allow(0.7)
    search.ask(above, "mine")
    assert search.spent == 1 and search.history[0].widths == tuple(above.tolist())
    with pytest.raises(UserError, match="does not meet the budget"):
        search.ask(Budget(macs=0.8).on(search.graph).project(search.graph.widths), "mine")
    assert torch.equal(search.project(search.graph.widths), search.starting["uniform"])
    search.allow(0.3)  # never less than the budget itself
    search.ask(search.starting["uniform"], "mine")
    with pytest.raises(UserError, match="does not meet the budget"):
        search.ask(above, "mine")


def test_ranked_has_each_candidate_once():
    search = problem()
    search.start()
    search.start()
    ranked = search.ranked()
    assert len(ranked) == len({scored.widths for scored in ranked}) == len({s.widths for s in search.history})
    assert ranked[0].merit[0] == max(scored.merit[0] for scored in search.history)
    assert [s.merit[0] for s in ranked] == sorted((s.merit[0] for s in ranked), reverse=True)


def test_new_candidates_come_first_and_each_once():
    search = problem()
    old = search.starting["uniform"]
    search.ask(old, "mine")
    first, second = search.starting["tapered_up"], search.starting["tapered_down"]
    rows = torch.stack([old, first, first, second])
    assert torch.equal(search.new(rows, 2), torch.stack([first, second]))
    assert len(search.new(rows, 3)) == 3 and len(search.new(rows, 9)) == 4
