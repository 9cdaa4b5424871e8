"""Variations of the best candidates, where groups may go and where they stay."""

import pytest
import torch

from gnnrl_lightning import Budget, trace
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.search.surrogate_search import SurrogateSearch
from gnnrl_lightning.search.variations import first_count, first_variations, parents_among, variations
from tests.support.fakes import Landscape, random_sensitivity
from tests.support.networks_branches import Residual


def problem_at(min_width, macs=0.6, evaluations=40, sensitivity=False):
    graph = trace(Residual(), torch.zeros(1, 3, 10, 10))
    limits = Budget(macs=macs, min_width=min_width).on(graph)
    evaluate = Landscape(graph, torch.full((len(graph.groups),), 0.7))
    make = (lambda: random_sensitivity(graph)) if sensitivity else None
    problem = SearchProblem(graph, limits, evaluate, evaluations, starting_candidates(graph, limits), make)
    if not sensitivity:
        problem.start()
    return problem


def best_of(problem):
    return torch.tensor(problem.ranked()[0].widths)


def sets_of(widths):
    return {tuple(row) for row in (widths == 0).tolist()}


def test_half_of_the_variations_have_another_set_of_groups():
    problem = problem_at(0)
    removable = problem.limits.allowed.removable
    known = sets_of(torch.tensor([item.widths for item in problem.history]))
    found = variations(problem, 6, 400, torch.Generator().manual_seed(0))
    assert bool(problem.limits.met(found).all())
    others = [tuple(row) not in known for row in (found == 0).tolist()]
    assert 0.2 < sum(others) / len(others) < 0.7
    assert bool((found[:, removable] == 0).any(0).all())  # each of them goes
    # One that comes back is not as narrow as possible.
    lacking = problem.graph.widths.clone()
    lacking[removable.nonzero()[0]] = 0
    problem.ask(problem.project(lacking), "test")
    back = variations(problem, 1, 400, torch.Generator().manual_seed(1))[:, removable.nonzero()[0, 0]]
    assert int((back > 0).sum()) > 5 and int(back[back > 0].max()) > int(problem.graph.widths.min()) // 2


def test_no_group_goes_where_all_stay():
    problem = problem_at(1)
    generator = torch.Generator().manual_seed(0)
    assert int(variations(problem, 6, 400, generator).min()) == 1
    assert int(first_variations(problem, best_of(problem), 8, 0.3, generator).min()) >= 1


@pytest.mark.parametrize(("evaluations", "count"), [(20, 3), (40, 6), (60, 10), (200, 12)])
def test_a_sixth_of_few_evaluations_is_for_first_variations_where_groups_may_go(evaluations, count):
    assert first_count(problem_at(0, evaluations=evaluations)) == count
    assert first_count(problem_at(1, evaluations=evaluations)) == 0


@pytest.mark.parametrize(("min_width", "random", "varied"), [(0, None, 2), (1, None, 0), (1, 2, 2)])
def test_a_search_by_the_surrogate_first_varies_as_the_agent_does(monkeypatch, min_width, random, varied):
    monkeypatch.setattr(SurrogateSearch, "improve", lambda *_: None)
    monkeypatch.setattr("gnnrl_lightning.search.variations.FIRST", 2)
    problem = problem_at(min_width, sensitivity=True)
    SurrogateSearch(random=random)(problem, 0)
    assert sum(item.proposer == "surrogate" for item in problem.history) == varied


def test_first_variations_keep_the_set_of_groups():
    problem = problem_at(0, macs=0.3)
    lacking = problem.graph.widths.clone()
    lacking[problem.limits.allowed.removable.nonzero()[0]] = 0
    problem.history.clear()
    asked = problem.ask(problem.project(lacking), "test")
    found = first_variations(problem, best_of(problem), 8, 0.3, torch.Generator().manual_seed(0))
    assert len(found) > 2 and sets_of(found) == sets_of(torch.tensor([asked.widths]))


@pytest.mark.parametrize(
    ("count", "expected"), [(4, [0, 1, 3, 4]), (2, [0, 3]), (1, [0]), (9, [0, 1, 2, 5, 6, 7, 8, 3, 4])]
)
def test_parents_differ_in_their_sets_of_groups(count, expected):
    """The last set is not among the best third."""
    ranked = torch.tensor([[4, 0, 3], [3, 0, 3], [4, 0, 2], [4, 2, 0], [4, 2, 2], *[[3, 2, 0]] * 9, [0, 2, 2]])
    assert parents_among(ranked, count).tolist() == expected


def test_parents_are_the_best_ones_if_no_group_is_absent():
    assert parents_among(torch.arange(1, 13).view(6, 2), 4).tolist() == [0, 1, 2, 3]
