"""From widths to a pruned network that is ready to be scored: choice of channels, surgery, repair."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor, nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.pruning.batchnorm import predict_batch_norm, reestimate_batch_norm
from gnnrl_lightning.pruning.importance import Criterion, check_importance, importance_scores, keep_best
from gnnrl_lightning.pruning.layers import Layer, find_layers
from gnnrl_lightning.pruning.reconstruction import reconstruct
from gnnrl_lightning.pruning.refit import Recording, record, refit
from gnnrl_lightning.pruning.statistics import Moments, collect_moments
from gnnrl_lightning.traced import ComputationGraph, Plan


class Pruner:
    """Prunes one network to any widths, the same way every time.

    Importance scores, input moments and what the dense network's layers give are computed once, when they are first
    needed: train or load the network before.

    Args:
        graph: The traced network.
        network: The dense network; it is never changed.
        calibration: Normalised training images `(N, C, H, W)` on the network's device.
        importance: Name of a criterion, or a callable, see `pruning.importance`.
        repair: What is done to the sliced network, a key of `REPAIRS`.
        batch_size: Calibration images in a batch.

    Raises:
        UserError: An unknown criterion or repair.
    """

    def __init__(
        self,
        graph: ComputationGraph,
        network: nn.Module,
        calibration: Tensor,
        importance: str | Criterion = "l2",
        repair: str = "batch_norm",
        batch_size: int = 256,
    ) -> None:
        check_importance(importance)
        if repair not in REPAIRS:
            raise UserError(f"repair is {repair!r}: expected one of {', '.join(REPAIRS)}")
        self.graph = graph
        self.network = network
        self.calibration = calibration
        self.importance = importance
        self.repair = repair
        self.batch_size = batch_size

    @cached_property
    def scores(self) -> list[Tensor]:
        """Importance of every channel, `(sets, width)` for each group."""
        moments = self.moments if self.importance == "surgeon" else None
        return importance_scores(self.graph, self.network, self.importance, self.calibration, moments)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Layers of the dense network by weight."""
        return find_layers(self.graph)

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """Moments of what the dense network's layers read, by weight."""
        return collect_moments(self.network, self.layers, self.batches())

    @cached_property
    def recording(self) -> Recording:
        """What the dense network's layers give, as `refit` needs it."""
        return record(self.network, self.layers, self.calibration)

    def batches(self) -> tuple[Tensor, ...]:
        """The calibration images in batches."""
        return self.calibration.split(self.batch_size)

    def plan(self, widths: Tensor) -> Plan:
        """The channels that stay at `widths (G,)`."""
        kept = [keep_best(score, int(width)) for score, width in zip(self.scores, widths, strict=True)]
        return self.graph.plan_from(kept)

    def prune(self, plan: Plan) -> nn.Module:
        """The pruned and repaired network in evaluation mode."""
        pruned = plan.apply(self.network).eval()
        REPAIRS[self.repair](self, pruned, plan)
        return pruned


def _slice(pruner: Pruner, pruned: nn.Module, plan: Plan) -> None:
    """Leave the sliced network as it is."""


def _batch_norm(pruner: Pruner, pruned: nn.Module, plan: Plan) -> None:
    """Re-estimate the batch norms on the calibration images."""
    reestimate_batch_norm(pruned, pruner.batches())


def _predict(pruner: Pruner, pruned: nn.Module, plan: Plan) -> None:
    """Set the batch norms' statistics in closed form: no pass over images."""
    predict_batch_norm(pruner.network, pruned, pruner.layers, pruner.moments, plan.selection)


def _reconstruct(pruner: Pruner, pruned: nn.Module, plan: Plan) -> None:
    """Re-fit the consumers from the dense network's moments, then predict: no pass over images."""
    reconstruct(pruner.network, pruned, pruner.layers, pruner.moments, plan.selection)
    _predict(pruner, pruned, plan)


def _refit(pruner: Pruner, pruned: nn.Module, plan: Plan) -> None:
    """Re-fit layer by layer on what the pruned network really reads."""
    refit(pruned, pruner.layers, plan.selection, pruner.recording)


Repair = Callable[[Pruner, nn.Module, Plan], None]

REPAIRS: dict[str, Repair] = {
    "none": _slice,
    "predicted_batch_norm": _predict,
    "batch_norm": _batch_norm,
    "reconstruction": _reconstruct,
    "refit": _refit,
}
"""Name -> what is done to a sliced network, in place.

On CIFAR-10 with ResNet-56, convolution-1 widths halved, they leave 40, 79, 82, 88 and 91 % top-1 of 93.6 before any
fine-tuning. Only `batch_norm` and `refit` read images for each candidate.
"""

READ_MOMENTS = ("predicted_batch_norm", "reconstruction")
"""Repairs that read the moments of the layers' inputs."""


def reads_moments(importance: str | Criterion, repair: str) -> bool:
    """Whether a pruner collects the moments for its own work, so that tables have them for nothing."""
    return repair in READ_MOMENTS or importance == "surgeon"
