"""Search methods, by name or import path.

```
METHODS.register("mine", my_search)                   # (problem, seed): problem.ask(widths, "mine") while problem.left
METHODS.register("narrow", one_shot("narrow", propose))  # (problem) -> widths (G,)
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from gnnrl_lightning.registry import Registry, as_callable
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, Allocation, uniform
from gnnrl_lightning.search.cross_entropy import CrossEntropySearch, ProxySearch
from gnnrl_lightning.search.evolution import Evolution
from gnnrl_lightning.search.gaussian_process import GaussianProcessSearch
from gnnrl_lightning.search.optuna_search import OptunaSearch
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.search.random_search import random_search
from gnnrl_lightning.search.surrogate_search import SurrogateSearch
from gnnrl_lightning.search.threshold import GlobalThreshold
from gnnrl_lightning.search.torch_pruning import TorchPruning

Proposal = Callable[[SearchProblem], Tensor]
"""`(problem) -> widths (G,)` within the budget; deterministic."""


@dataclass(frozen=True)
class Method:
    """A search method.

    The problem charges the method for the candidates that it scores, the sensitivity, and passes over the calibration
    examples. A method raises `gnnrl_lightning.search.problem.NotApplicable` for problems that it does not support.

    Attributes:
        run: `(problem, seed)`; scores candidates while `problem.left`. All randomness derives from the seed.
        seeded: Whether results depend on the seed; if not, one run suffices.
    """

    run: Callable[[SearchProblem, int], None]
    seeded: bool = True


SearchMethod = str | Method | Callable[[SearchProblem, int], None]
"""A method, as it is given: a name in `METHODS`, an import path, a row, or what becomes one."""


def one_shot(name: str, propose: Proposal) -> Method:
    """A method that scores a single candidate and ignores the seed.

    Args:
        name: Proposer of the candidate.
        propose: Returns the candidate.
    """
    return Method(partial(_ask_once, name, propose), seeded=False)


def _ask_once(name: str, propose: Proposal, problem: SearchProblem, seed: int) -> None:
    problem.ask(propose(problem), name)


def _as_method(given: Any) -> Method:
    if isinstance(given, Method):
        return given
    if isinstance(given, nn.Module):
        raise TypeError(f"expected a Method, or a function (problem, seed), not a {type(given).__name__}")
    return Method(as_callable(given, "a Method, or a function (problem, seed)", 2))


SEARCH = "(problem, seed), which asks for candidates while problem.left"
"""What is expected of a search method of the user's own, for messages."""


def run_method(given: Any, problem: SearchProblem, seed: int, option: str = "method") -> None:
    """Search with a method.

    Args:
        given: Name, import path or row.
        problem: The problem.
        seed: All randomness derives from it.
        option: Name of the option, for messages.

    Raises:
        UserError: The method is unknown, or one of the user's own fails.
    """
    method = METHODS.find(given, option)
    with METHODS.calling(method, METHODS.name_of(given), SEARCH):
        method.run(problem, seed)


def _allocated(allocation: Allocation) -> Proposal:
    return lambda problem: allocation(problem.graph, problem.limits, problem.sensitivity)


_PROPOSALS: dict[str, Proposal] = {
    "uniform": lambda problem: uniform(problem.graph, problem.limits),
    "global_l2": GlobalThreshold("l2"),
    "global_taylor": GlobalThreshold("taylor"),
    **{name: _allocated(allocation) for name, allocation in FROM_SENSITIVITY.items()},
    "torch_pruning_uniform": TorchPruning(everywhere=False),
    "torch_pruning_global": TorchPruning(everywhere=True),
}

METHODS: Registry[Method] = Registry("search method", _as_method)
"""Name -> search method."""

for _name, _propose in _PROPOSALS.items():
    METHODS.register(_name, one_shot(_name, _propose))
METHODS.register("random", random_search)
METHODS.register("evolution", Evolution())
METHODS.register("cross_entropy", CrossEntropySearch())
METHODS.register("cross_entropy_proxy", ProxySearch())
METHODS.register("evolution_from_sensitivity", Evolution(from_sensitivity=True, name="evolution_from_sensitivity"))
METHODS.register(
    "cross_entropy_from_sensitivity", CrossEntropySearch(from_sensitivity=True, name="cross_entropy_from_sensitivity")
)
METHODS.register("gaussian_process", GaussianProcessSearch())
METHODS.register("surrogate", SurrogateSearch())
METHODS.register("optuna_tpe", OptunaSearch("tpe", "optuna_tpe"))
METHODS.register("optuna_cma_es", OptunaSearch("cma_es", "optuna_cma_es"))
