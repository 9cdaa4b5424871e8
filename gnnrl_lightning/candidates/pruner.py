"""Making a candidate from widths: selection of channels, surgery, and repair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.moments import POSITIONS
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.importance import IMPORTANCES, Calibration, Criterion, Importance, importance_scores, keep_best
from gnnrl_lightning.objective import Classification, Objective
from gnnrl_lightning.repair.dense import Dense
from gnnrl_lightning.repair.table import REPAIRS, Repair, apply_repair
from gnnrl_lightning.surgery.masks import mask_smallest
from gnnrl_lightning.surgery.plan import Plan
from gnnrl_lightning.trees import Tree, count


class Pruner(Dense):
    """Prunes a network to any widths, deterministically.

    Importance scores, moments of layer inputs and layer outputs of the dense network are computed lazily and cached:
    train or load the network first.

    Args:
        graph: The traced network.
        network: The dense network; never modified.
        calibration: Normalised inputs of training examples on the network's device.
        importance: Criterion that selects the channels: a name of `gnnrl_lightning.importance.IMPORTANCES`, an import
            path, a row, or a criterion.
        repair: Repair of the sliced network: a name of `gnnrl_lightning.repair.table.REPAIRS`, an import path, or a
            row.
        batch_size: Largest number of calibration examples in a batch.
        dtype: Precision of activations in forward passes of the repair.
        objective: Provides the loss for importance criteria that need it; None: classification.
        scores: Importance of every channel, see `Pruner.scores`, if it is known already; None: the criterion is asked.

    Raises:
        UserError: The importance or repair is unknown.
    """

    def __init__(
        self,
        graph: ComputationGraph,
        network: nn.Module,
        calibration: Tree,
        importance: str | Importance | Criterion = "l2",
        repair: str | Repair = "batch_norm",
        batch_size: int = 256,
        dtype: torch.dtype = torch.float32,
        objective: Objective | None = None,
        scores: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__(graph, network, calibration, batch_size, dtype)
        self.graph: ComputationGraph = graph
        self._given = importance, repair
        self.objective = objective or Classification()
        self._importance, self._repair = IMPORTANCES.find(importance), REPAIRS.find(repair)
        self._given_scores = scores

    @property
    def importance(self) -> str | Importance | Criterion:
        """The criterion as it was given; for another one, make another pruner."""
        return self._given[0]

    @property
    def repair(self) -> str | Repair:
        """The repair as it was given; for another one, see `final`."""
        return self._given[1]

    @cached_property
    def scores(self) -> Sequence[Tensor]:
        """Importance of every channel, `(sets, width)` for each group, on the CPU."""
        if self._given_scores is not None:
            return self._given_scores
        moments = self.moments if "moments" in self._importance.passes else None
        calibration = Calibration(self.calibration, None, self.objective)
        scores = importance_scores(self.graph, self.network, self.importance, calibration, moments)
        return [score.cpu() for score in scores]

    @property
    def examples(self) -> int:
        """Number of forward passes of one example per candidate."""
        return count(self.calibration) if self._repair.reads_examples else 0

    @property
    def passes(self) -> frozenset[str]:
        """Names of the passes over the calibration examples that are made once for all candidates."""
        return pruner_passes(self._importance, self._repair)

    def final(self, calibration: Tree, repair: str | Repair) -> Pruner:
        """The same selection of channels with another repair on other calibration examples, in float32.

        Args:
            calibration: Normalised inputs of training examples on the network's device.
            repair: Repair, as in `Pruner`.
        """
        return Pruner(
            self.graph,
            self.network,
            calibration,
            self.importance,
            repair,
            self.batch_size,
            objective=self.objective,
            scores=self.scores,
        )

    def plan(self, widths: Tensor) -> Plan:
        """Select the channels for `widths (G,)`."""
        kept = [keep_best(score, int(width)) for score, width in zip(self.scores, widths, strict=True)]
        return self.graph.plan_from(kept)

    def prune(self, plan: Plan) -> nn.Module:
        """Return the pruned and repaired network in evaluation mode."""
        return self.repaired(plan, self._repair)

    def repaired(self, plan: Plan, repair: Repair) -> nn.Module:
        """Return the pruned network after a repair, in evaluation mode; masks come last."""
        pruned = plan.slice(self.network).eval()
        apply_repair(repair, self, pruned, plan.selection)
        mask_smallest(pruned, plan.masks)
        return pruned


FEWEST_EXAMPLES, MOST_EXAMPLES = 64, 256
"""Training examples for the repair of candidates."""

SAMPLES_PER_INPUT, SHARE = 5, 0.9
"""Samples for each element of a layer's input vectors, and the share of the layers that have as many."""


def default_calibration_examples(graph: ComputationGraph) -> int:
    """Number of training examples for the repair of candidates, 64 to 256.

    In nine of ten layers, five sampled positions for each element of the input vectors, if 256 examples suffice: 64 for
    ResNet-20 and -56, of which a search with more evaluations finds better candidates, and 256 for VGG-16, whose layers
    have more inputs.

    Args:
        graph: The traced network.
    """
    needed = []
    for operator in graph.operators:
        if operator.kind in ("conv", "linear") and operator.inputs:  # without inputs, it reads parameters alone
            read, made = (graph.feature_maps[place] for place in (operator.inputs[0], operator.output))
            channels = math.prod(read.shape) / read.positions
            needed.append(channels / operator.groups * math.prod(operator.kernel) / min(POSITIONS, made.positions))
    if not needed:
        return MOST_EXAMPLES
    most = SAMPLES_PER_INPUT * torch.tensor(needed, dtype=torch.float64).quantile(SHARE)
    return min(MOST_EXAMPLES, max(FEWEST_EXAMPLES, math.ceil(float(most))))


FINAL_EXAMPLES, FINAL_MEMORY = 4096, 3 * 2**30
"""Most training examples for the repair of the delivered network, and the peak memory of their feature maps, bytes."""


def default_final_examples(graph: ComputationGraph) -> int:
    """Number of training examples for the repair of the delivered network: 4,096, or fewer if they are large.

    `refit` passes all examples at once: as many as keep the peak memory of their feature maps within 3 GiB, 334 images
    of 224 x 224 for ResNet-50. With what operators and the recording need, it takes about twice as much.

    Args:
        graph: The traced network.
    """
    peak = int(graph.cost_of("activations")(graph.widths))
    return max(1, min(FINAL_EXAMPLES, FINAL_MEMORY // peak))


def pruner_passes(importance: str | Importance | Criterion, repair: str | Repair) -> frozenset[str]:
    """Passes over the calibration examples that are made once for all candidates.

    Args:
        importance: Importance, as in `Pruner`.
        repair: Repair, as in `Pruner`.

    Returns:
        Names of the results of the passes.
    """
    return frozenset((*IMPORTANCES.find(importance).passes, *REPAIRS.find(repair).passes))
