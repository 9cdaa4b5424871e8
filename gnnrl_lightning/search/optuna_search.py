"""Samplers of Optuna on log keep ratios: the tree-structured Parzen estimator and CMA-ES."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gnnrl_lightning.cost.ranges import positive
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem
from gnnrl_lightning.seeds import derived_seed

DRAWS = 50
"""Draws in a row whose candidates are all known, after which the search ends."""

SMALLEST = 1 / 64
"""Smallest keep ratio that is drawn."""

SPREAD = 0.3
"""Initial standard deviation of CMA-ES, in log keep ratios."""


@dataclass(frozen=True)
class OptunaSearch:
    """A sampler of Optuna proposes log keep ratios, which are projected onto the budget.

    It starts from the same candidates as the other searches that read the sensitivity. If a proposal's candidate has
    been scored, the sampler is told the known reward and draws again, free of charge.

    Args:
        sampler: "tpe" or "cma_es".
        name: Proposer of its candidates.

    Source: https://optuna.org; Bergstra et al., Algorithms for hyper-parameter optimization, 2011; Hansen and
        Ostermeier, Completely derandomized self-adaptation in evolution strategies, 2001.
    """

    sampler: str
    name: str

    def __call__(self, problem: SearchProblem, seed: int) -> None:
        """Score the starting candidates, then the sampler's until no evaluations, or no new candidates, are left.

        Raises:
            NotApplicable: Optuna, or for CMA-ES its package cmaes, is not installed.
        """
        for package in ("optuna", *(("cmaes",) if self.sampler == "cma_es" else ())):
            if find_spec(package) is None:
                raise NotApplicable(f"{package} is not installed: pip install 'gnnrl-lightning[optuna]'")
        import optuna  # pyright: ignore[reportMissingImports]

        problem.start(from_sensitivity=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        ranges = self._ranges(problem, optuna)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # features that Optuna calls experimental
            study = optuna.create_study(direction="maximize", sampler=self._make_sampler(problem, seed, optuna))
            for scored in problem.ranked():
                keep = positive(torch.tensor(scored.widths)) / problem.graph.widths
                values = {name: max(math.log(each), ranges[name].low) for name, each in _named(keep)}
                study.add_trial(optuna.trial.create_trial(params=values, distributions=ranges, value=scored.merit[0]))
            known = 0
            while problem.left and known < DRAWS:
                trial = study.ask(ranges)
                logs = torch.tensor([trial.params[name] for name in ranges], dtype=torch.float64)
                widths = problem.project(problem.graph.widths * logs.exp())
                before = _known(problem, widths)
                known = known + 1 if before is not None else 0
                scored = before or problem.ask(widths, self.name)
                study.tell(trial, scored.merit[0])

    def _ranges(self, problem: SearchProblem, optuna: Any) -> dict[str, Any]:
        """Range of the log keep ratio of each group."""
        low = math.log(SMALLEST)
        return {
            name: optuna.distributions.FloatDistribution(max(low, math.log(least / width)) if width > 1 else low, 0.0)
            for (name, width), (_, least) in zip(
                _named(problem.graph.widths), _named(positive(problem.limits.smallest.clamp(max=1))), strict=True
            )
        }

    def _make_sampler(self, problem: SearchProblem, seed: int, optuna: Any) -> Any:
        own = derived_seed(seed) % 2**32
        if self.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=own, multivariate=True, n_startup_trials=len(problem.ranked()))
        best = torch.tensor(problem.ranked()[0].widths) / problem.graph.widths
        start = {name: math.log(each) for name, each in _named(best.clamp(min=SMALLEST))}
        return optuna.samplers.CmaEsSampler(x0=start, sigma0=SPREAD, seed=own, n_startup_trials=0)


def _named(values: Tensor) -> list[tuple[str, float]]:
    return [(f"group_{number}", value) for number, value in enumerate(values.tolist())]


def _known(problem: SearchProblem, widths: Tensor) -> Evaluation | None:
    """The evaluation of a candidate that has been scored."""
    key = tuple(widths.tolist())
    return next((item for item in problem.history if item.widths == key), None)
