"""Every way to choose widths by name; a method of your own is one more line.

ONE_SHOT["mine"] = lambda problem: problem.project(problem.graph.widths)
ITERATIVE["mine"] = my_search  # (problem, seed): calls problem.ask(widths, "mine") while problem.left
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from gnnrl_lightning.search.baselines import FROM_TABLE, TableBaseline, uniform
from gnnrl_lightning.search.cross_entropy import CrossEntropySearch, ProxySearch
from gnnrl_lightning.search.evolution import Evolution
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.search.random_search import random_search
from gnnrl_lightning.search.threshold import GlobalThreshold
from gnnrl_lightning.search.torch_pruning import TorchPruning

Proposal = Callable[[SearchProblem], Tensor]
"""`(problem) -> widths (G,)` within the budget: the same ones every time, scored once."""

Method = Callable[[SearchProblem, int], None]
"""`(problem, seed)`: asks for candidates while `problem.left`; everything random derives from the seed."""


def _from_table(baseline: TableBaseline, problem: SearchProblem) -> Tensor:
    return baseline(problem.graph, problem.limits, problem.table)


ONE_SHOT: dict[str, Proposal] = {
    "uniform": lambda problem: uniform(problem.graph, problem.limits),
    "global_l2": GlobalThreshold("l2"),
    "global_taylor": GlobalThreshold("taylor"),
    **{name: partial(_from_table, baseline) for name, baseline in FROM_TABLE.items()},
    "torch_pruning_uniform": TorchPruning(everywhere=False),
    "torch_pruning_global": TorchPruning(everywhere=True),
}
"""Name -> the one candidate of a method without chance."""

ITERATIVE: dict[str, Method] = {
    "random": random_search,
    "evolution": Evolution(),
    "cross_entropy": CrossEntropySearch(),
    "cross_entropy_proxy": ProxySearch(),
    "evolution_from_table": Evolution(from_table=True, name="evolution_from_table"),
    "cross_entropy_from_table": CrossEntropySearch(from_table=True, name="cross_entropy_from_table"),
}
"""Name -> search that depends on a seed."""


def run_method(name: str, problem: SearchProblem, seed: int) -> None:
    """Let a method spend its evaluations.

    Args:
        name: A name of `ONE_SHOT` or `ITERATIVE`.
        problem: What it works on.
        seed: Of everything random.

    Raises:
        NotApplicable: The method cannot do this problem.
    """
    if name in ONE_SHOT:
        problem.ask(ONE_SHOT[name](problem), name)
    else:
        ITERATIVE[name](problem, seed)
