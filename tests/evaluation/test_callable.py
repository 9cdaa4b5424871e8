"""A network with two outputs, which no objective supports, pruned by a score function."""

import math
from dataclasses import replace

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.callable import CallableEvaluator, OutputsAlone
from gnnrl_lightning.rl.env.reward import find_reward
from gnnrl_lightning.search.baselines import starting_candidates
from gnnrl_lightning.search.methods import METHODS
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from tests.support.fakes import Detector, boxes_likeness


@pytest.fixture
def pruner():
    torch.manual_seed(0)
    network, inputs = Detector().eval(), torch.randn(16, 3, 8, 8)
    graph = gnnrl_lightning.trace(network, inputs[:1])
    return Pruner(graph, network, inputs, repair="reconstruction", objective=OutputsAlone())


def test_a_candidate_has_its_score_and_is_known_afterwards(pruner):
    score = boxes_likeness(pruner.network)
    evaluate = CallableEvaluator(pruner, score, examples=32)
    widths = torch.tensor([4, 6])
    first = evaluate(widths, "mine")
    expected = score(pruner.prune(pruner.plan(widths)))
    assert first.scores == {"score": pytest.approx(expected)} and first.merit == (first.scores["score"],)
    assert (first.examples, first.seen, first.dropped) == (32, 32, False)
    assert evaluate(widths, "agent") == replace(first, proposer="agent", seconds=0.0, examples=0)
    assert find_reward(None, pruner.objective)(first) == first.merit[0]


def test_a_search_with_a_sensitivity_needs_inputs_alone(pruner):
    """Outputs of any structure are compared, and the best of the search is at least as good as uniform pruning."""
    limits = Budget(macs=0.5).on(pruner.graph)
    evaluate = CallableEvaluator(pruner, boxes_likeness(pruner.network), examples=32)
    problem = SearchProblem(
        pruner.graph,
        limits,
        evaluate,
        30,
        starting_candidates(pruner.graph, limits),
        lambda: SENSITIVITIES["outputs"].make(pruner),
        32,
        pruner,
    )
    METHODS["greedy"].run(problem, 0)
    problem.start()
    ranked = problem.ranked()
    uniform = next(item for item in problem.history if item.proposer == "uniform")
    assert ranked[0].merit >= uniform.merit and bool((problem.sensitivity.measured > 0).any())


def test_what_is_no_score_is_refused(pruner):
    with pytest.raises(UserError, match=r"widths \[4, 6\] is nan: expected a finite number"):
        CallableEvaluator(pruner, lambda network: math.nan)(torch.tensor([4, 6]), "mine")
    with pytest.raises(UserError, match="examples is 0: expected at least 1"):
        CallableEvaluator(pruner, lambda network: 1.0, examples=0)
    taylor = Pruner(pruner.graph, pruner.network, pruner.calibration, "taylor", objective=OutputsAlone())
    with pytest.raises(UserError, match="objective OutputsAlone draws no targets: choose an importance"):
        taylor.plan(torch.tensor([4, 6]))
