"""From widths to a pruned network that is ready to be scored: choice of channels, surgery, repair."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn

from gnnrl_lightning.graph import ComputationGraph, Plan
from gnnrl_lightning.importance import IMPORTANCES, Calibration, Criterion, Importance, importance_scores, keep_best
from gnnrl_lightning.objective import Classification, Objective
from gnnrl_lightning.repair.dense import Dense
from gnnrl_lightning.repair.table import REPAIRS, Repair
from gnnrl_lightning.trees import Tree, count, tensors


class Pruner(Dense):
    """Prunes one network to any widths, the same way every time.

    Importance scores, input moments and what the dense network's layers give are computed once, when they are first
    needed: train or load the network before.

    Args:
        graph: The traced network.
        network: The dense network; it is never changed.
        calibration: Normalised inputs of training examples on the network's device.
        importance: Which channels stay: a name of `gnnrl_lightning.importance.IMPORTANCES`, an import path, a row, or
            a criterion.
        repair: What is done to the sliced network: a name of `gnnrl_lightning.repair.table.REPAIRS`, an import path, or
            a row.
        batch_size: Calibration examples in a batch.
        dtype: Precision of activations where the repair passes inputs through a candidate.
        objective: Gives the loss to an importance that asks for it; None: classification.

    Raises:
        UserError: An unknown importance or repair.
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
    ) -> None:
        super().__init__(graph, network, calibration, batch_size, dtype)
        self.graph: ComputationGraph = graph
        self.importance, self.repair = importance, repair
        self.objective = objective or Classification()
        self._importance, self._repair = IMPORTANCES.find(importance), REPAIRS.find(repair)

    @cached_property
    def scores(self) -> list[Tensor]:
        """Importance of every channel, `(sets, width)` for each group, on the CPU, where channels are chosen."""
        moments = self.moments if "moments" in self._importance.passes else None
        calibration = Calibration(self.calibration, None, self.objective)
        scores = importance_scores(self.graph, self.network, self.importance, calibration, moments)
        return [score.cpu() for score in scores]

    @property
    def examples(self) -> int:
        """Forward passes of one example that a candidate takes."""
        return count(self.calibration) if self._repair.reads_images else 0

    @property
    def passes(self) -> frozenset[str]:
        """What is found out once for all candidates, in a pass over the calibration examples each."""
        return pruner_passes(self._importance, self._repair)

    def final(self, calibration: Tree, repair: str | Repair) -> Pruner:
        """The same choice of channels, with another repair on other calibration examples, in float32.

        Args:
            calibration: Normalised inputs of training examples on the network's device.
            repair: As in `Pruner`.
        """
        other = Pruner(
            self.graph,
            self.network,
            calibration,
            self.importance,
            repair,
            self.batch_size,
            objective=self.objective,
        )
        other.__dict__["scores"] = self.scores  # in the place of the cached property
        return other

    def plan(self, widths: Tensor) -> Plan:
        """The channels that stay at `widths (G,)`."""
        kept = [keep_best(score, int(width)) for score, width in zip(self.scores, widths, strict=True)]
        return self.graph.plan_from(kept)

    def prune(self, plan: Plan) -> nn.Module:
        """The pruned and repaired network in evaluation mode."""
        pruned = plan.apply(self.network).eval()
        self._repair.apply(self, pruned, plan.selection)
        return pruned


FINAL_EXAMPLES, FINAL_POSITIONS = 1024, 2**24


def default_final_examples(example: Tree) -> int:
    """Training examples for the repair of what is delivered: 1,024, or as many large ones as have 2^24 positions.

    `refit` passes all at once, and so takes memory for every pixel: with ResNet-50 some 300 bytes, 5 GiB for 334 images
    of 224 x 224.

    Args:
        example: Inputs of a network; what follows examples and channels is position.
    """
    positions = max(math.prod(tensor.shape[2:]) for tensor in tensors(example))
    return max(1, min(FINAL_EXAMPLES, FINAL_POSITIONS // positions))


def pruner_passes(importance: str | Importance | Criterion, repair: str | Repair) -> frozenset[str]:
    """Passes over the calibration images that are made once for all candidates.

    Args:
        importance: As in `Pruner`.
        repair: Likewise.

    Returns:
        Names of what is found out in each.
    """
    return frozenset((*IMPORTANCES.find(importance).passes, *REPAIRS.find(repair).passes))
