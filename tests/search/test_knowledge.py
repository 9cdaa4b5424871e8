"""What a model-based search knows: slopes at the best candidates, and what they cost."""

import pytest
import torch

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.search.knowledge import MOST_SLOPES, Knowledge
from gnnrl_lightning.search.problem import NotApplicable
from tests.search.test_methods import problem_of, pruner  # noqa: F401  (a fixture)


def knowledge_of(pruner, evaluations=60):  # noqa: F811
    problem = problem_of(pruner, evaluations=evaluations)
    problem.start(from_sensitivity=True)
    return Knowledge(problem, lambda scored: scored.merit[0]), problem


def test_slopes_are_measured_at_uniform_pruning_and_at_each_new_best_candidate(pruner):  # noqa: F811
    knowledge, problem = knowledge_of(pruner)
    before, cost = problem.charged_examples, problem.effect_measure.examples
    knowledge.look()
    best = problem.ranked()[0].widths
    assert set(problem.known_effects) == {best, tuple(problem.starting["uniform"].tolist())}
    count = len(problem.known_effects)
    assert problem.charged_examples == before + count * cost
    knowledge.look()
    assert problem.charged_examples == before + count * cost
    surrogate = knowledge.surrogate
    assert knowledge.surrogate is surrogate
    candidates = problem.project(problem.graph.widths * torch.rand(20, 4, generator=torch.Generator().manual_seed(0)))
    for widths in candidates:
        problem.ask(widths, "test")
    assert knowledge.surrogate is not surrogate
    knowledge.look()
    assert problem.ranked()[0].widths in problem.known_effects
    assert len(problem.known_effects) <= count + 1 <= MOST_SLOPES


def test_nothing_is_measured_when_evaluations_run_out(pruner):  # noqa: F811
    knowledge, problem = knowledge_of(pruner)
    while problem.left > 2:
        problem.ask(problem.starting["uniform"], "test")
    knowledge.look()
    assert not problem.known_effects and problem.left == 2


def test_nothing_is_measured_once_values_tell_as_much(pruner, monkeypatch):  # noqa: F811
    knowledge, problem = knowledge_of(pruner)
    monkeypatch.setattr("gnnrl_lightning.search.knowledge.LAST_SLOPES", len(problem.history) - 1)
    knowledge.look()
    assert not problem.known_effects
    monkeypatch.setattr("gnnrl_lightning.search.knowledge.LAST_SLOPES", len(problem.history))
    knowledge.look()
    assert problem.known_effects


def test_recalled_effects_are_charged_and_not_measured_again(pruner, monkeypatch):  # noqa: F811
    knowledge, problem = knowledge_of(pruner)
    knowledge.look()
    again, resumed = knowledge_of(pruner)
    monkeypatch.setattr(type(resumed.effect_measure), "__call__", lambda *_: pytest.fail("measured again"))
    resumed.recall(problem.known_effects)
    assert resumed.charged_examples == problem.charged_examples
    again.look()
    assert resumed.known_effects.keys() == problem.known_effects.keys()
    rows = problem.project(problem.graph.widths * torch.rand(9, 4, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(knowledge.surrogate.mean(rows), again.surrogate.mean(rows))


def test_a_problem_without_a_network_has_no_effects():
    problem = problem_of(None)
    with pytest.raises(NotApplicable, match="needs the network's weights"):
        problem.effects(problem.graph.widths)
    assert issubclass(NotApplicable, UserError)
