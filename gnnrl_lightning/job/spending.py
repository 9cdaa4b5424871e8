"""A search without files: all evaluations of a problem are spent at once, and nothing resumes."""

from __future__ import annotations

from collections.abc import Mapping

from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.agent_training import fit_agent
from gnnrl_lightning.quiet import without_others_warnings
from gnnrl_lightning.rl.environments import Environments
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.range_acquisition import RangeAcquisition
from gnnrl_lightning.search.methods import SearchMethod, run_method
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem
from gnnrl_lightning.training.train import quiet_trainer


def spend(
    problem: SearchProblem, by: GraphLearner | SearchMethod, environments: Environments, seed: int, option: str
) -> Mapping[float, Evaluation]:
    """Search with an agent or a method.

    An agent scores the starting candidates first, and then as many whole iterations as the evaluations allow.

    Args:
        problem: The problem, with all of its evaluations left.
        by: The agent, or the method.
        environments: Makes the environments of the agent; not read by methods.
        seed: Seed of a method; an agent has its own.
        option: What messages call the method.

    Returns:
        Share of the dense MACs -> its best candidate, of a search over a range of budgets; else empty.

    Raises:
        NotApplicable: The evaluations do not suffice, or the method does not support this network.
        UserError: The method is unknown, or one of the user's own fails.
    """
    if not isinstance(by, GraphLearner):
        run_method(by, problem, seed, option)
        return {}
    problem.start(from_sensitivity=environments.measure is not None)
    left = problem.left - environments.reserved
    iterations = left // by.episodes_per_iteration
    if iterations < 1:
        raise NotApplicable(f"has {left} evaluations left, an iteration needs {by.episodes_per_iteration}")
    environments.connect(by, problem)
    fitting = quiet_trainer(max_epochs=by.iterations(iterations), accelerator="cpu", log_every_n_steps=1)
    with without_others_warnings():
        fit_agent(by, fitting)
    return by.evaluate.score_front() if isinstance(by.evaluate, RangeAcquisition) else {}
