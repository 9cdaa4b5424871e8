"""Scores of candidates by an arbitrary function of a network, for tasks without an objective (such as detection).

```
def mean_average_precision(network: nn.Module) -> float:  # higher is better; your own function, with your data
    ...

inputs = torch.stack([dataset[i][0] for i in range(256)])  # network inputs without labels
graph = trace(network, inputs[:1])
pruner = Pruner(graph, network, inputs, objective=OutputsAlone())
evaluate = CallableEvaluator(pruner, mean_average_precision)
limits = budget.on(graph)
problem = SearchProblem(graph, limits, evaluate, 100, starting_candidates(graph, limits), pruner=pruner, ...)
```

`gnnrl_lightning.compress_by_score` does all of this in one call.

The inputs serve as the example for the trace, as calibration examples for importance and repair, and, through
`OutputsAlone`, for the sensitivity, which compares outputs with those of the dense network, see `relative_distance`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.errors import UserError, finite_number
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.objective import Figure, Measured, Objective
from gnnrl_lightning.trees import Tree

SCORE = "score"
"""Name of the only score."""


@dataclass(frozen=True)
class OutputsAlone(Objective):
    """An objective without targets: the distance between outputs, and the figure `score`.

    It has no loss, so it supports neither training nor an importance that needs a loss.
    """

    figures: ClassVar[Mapping[str, Figure]] = {SCORE: Figure("score", higher_is_better=True, digits=4)}
    ranking: ClassVar[tuple[str, ...]] = (SCORE,)

    @property
    def reported(self) -> dict[str, Figure]:
        """Only the score: no divergence is measured."""
        return dict(self.figures)

    def loss(self, outputs: Tree, targets: Tree) -> Tensor:
        """Refuse: this objective has no loss.

        Raises:
            UserError: Always.
        """
        raise UserError("a score of networks has no loss: choose an importance that needs none, and train yourself")

    def measure(self, outputs: Tree, targets: Tree) -> Measured:
        """Refuse: outputs cannot be measured without targets.

        Raises:
            UserError: Always.
        """
        raise UserError("a score of networks measures no outputs: the function itself does, call it")


def score_of(score: Callable[[nn.Module], float], network: nn.Module, which: str) -> float:
    """The score of a network.

    Args:
        score: `(network) -> score`.
        network: The network, which the score may change.
        which: What network it is, for messages.

    Raises:
        UserError: The score fails, or is not a finite number.
    """
    return finite_number(lambda: score(network), f"the score of {which}")


class CallableEvaluator:
    """Prunes a candidate, scores it with a function, and caches the result by widths; replaces `Evaluator`.

    Candidates do not race: each is scored once.

    Args:
        pruner: Makes the pruned networks; its objective is `OutputsAlone` if no other applies.
        score: `(network in evaluation mode, on the pruner's device) -> score`, higher is better; it may modify the
            network.
        examples: Number of forward passes of one example per call of the function. It converts the passes of a
            sensitivity or an importance to evaluations.
        costs: Costs of a candidate `(G,)` by metric, see `BoundBudget.costs`; None: MACs and parameters.

    Raises:
        UserError: `examples` is not positive.
    """

    def __init__(
        self,
        pruner: Pruner,
        score: Callable[[nn.Module], float],
        examples: int = 1,
        costs: Callable[[Tensor], dict[str, int | float]] | None = None,
    ) -> None:
        if examples < 1:
            raise UserError(f"examples is {examples}: expected at least 1, those that a call of the score reads")
        self.pruner, self.score, self.examples = pruner, score, examples
        self.costs = costs or pruner.graph.costs
        self._known: dict[tuple[int, ...], Evaluation] = {}

    def __call__(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score the candidate `widths (G,)`.

        Raises:
            UserError: The score fails or is not finite.
        """
        key = tuple(int(width) for width in widths)
        if key in self._known:
            return replace(self._known[key], proposer=proposer, seconds=0.0, examples=0)
        start = time.perf_counter()
        pruned = self.pruner.prune(self.pruner.plan(widths))
        value = score_of(self.score, pruned, f"the candidate with widths {list(key)}")
        evaluation = self._known[key] = Evaluation(
            key,
            self.costs(widths),
            {SCORE: value},
            (value,),
            seconds=time.perf_counter() - start,
            examples=self.pruner.examples + self.examples,
            proposer=proposer,
            seen=self.examples,
        )
        return evaluation
