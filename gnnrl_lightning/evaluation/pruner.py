"""From widths to a pruned network that is ready to be scored: choice of channels, surgery, repair."""

from __future__ import annotations

from torch import Tensor, nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.pruning.batchnorm import reestimate_batch_norm
from gnnrl_lightning.pruning.importance import CRITERIA, Criterion, importance_scores, keep_best
from gnnrl_lightning.traced import ComputationGraph, Plan


class Pruner:
    """Prunes one network to any widths, the same way every time.

    Importance scores are computed once, when they are first needed: train or load the network before that.

    Args:
        graph: The traced network.
        network: The dense network; it is never changed.
        calibration: Normalised training images `(N, C, H, W)` on the network's device.
        importance: Name of a criterion, or a callable, see `pruning.importance`.
        batch_size: Calibration images in a batch.
    """

    def __init__(
        self,
        graph: ComputationGraph,
        network: nn.Module,
        calibration: Tensor,
        importance: str | Criterion = "l2",
        batch_size: int = 256,
    ) -> None:
        if isinstance(importance, str) and importance not in CRITERIA:
            raise UserError(f"importance is {importance!r}: expected one of {', '.join(CRITERIA)}, or a callable")
        self.graph = graph
        self.network = network
        self.calibration = calibration
        self.importance = importance
        self.batch_size = batch_size
        self._scores: list[Tensor] | None = None

    @property
    def scores(self) -> list[Tensor]:
        """Importance of every channel, `(sets, width)` for each group."""
        if self._scores is None:
            self._scores = importance_scores(self.graph, self.network, self.importance, self.calibration)
        return self._scores

    def plan(self, widths: Tensor) -> Plan:
        """The channels that stay at `widths (G,)`."""
        kept = [keep_best(score, int(width)) for score, width in zip(self.scores, widths, strict=True)]
        return self.graph.plan_from(kept)

    def prune(self, plan: Plan) -> nn.Module:
        """The pruned network in evaluation mode, batch-norm statistics re-estimated."""
        pruned = plan.apply(self.network).eval()
        reestimate_batch_norm(pruned, self.calibration.split(self.batch_size))
        return pruned
