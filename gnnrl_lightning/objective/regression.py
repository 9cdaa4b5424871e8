"""Numbers for each example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective.classification import known_targets
from gnnrl_lightning.objective.protocol import Figure, Measured, Objective


@dataclass(frozen=True)
class Regression(Objective):
    """Outputs `(N, ...)` and targets of the same shape; ranked by root mean squared error, then mean absolute error.

    The distance to the dense network's outputs is `relative_distance`.
    """

    figures: ClassVar[Mapping[str, Figure]] = {
        "rmse": Figure("RMSE", digits=4),
        "mean_absolute_error": Figure("mean absolute error", digits=4),
    }
    ranking: ClassVar[tuple[str, ...]] = ("rmse", "mean_absolute_error")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(outputs, targets)

    def measure(self, outputs: Tensor, targets: Tensor) -> Measured:
        """Return minus the mean squared error of each example `(n,)`; sums of squared and absolute errors."""
        error = (outputs.float() - targets.float()).reshape(len(outputs), -1)
        squared = error.square().mean(1)
        return Measured(-squared, {"squared_error": squared.sum(), "absolute_error": error.abs().mean(1).sum()})

    def values(self, means: Mapping[str, Tensor]) -> dict[str, float]:
        """Root mean squared and mean absolute error, in the targets' unit."""
        return {
            "rmse": float(means["squared_error"].sqrt()),
            "mean_absolute_error": float(means["absolute_error"]),
        }

    def draw(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Add normal noise of variance 1 to the outputs: the distribution whose likelihood is the squared error."""
        return outputs + torch.randn(outputs.shape, generator=generator).to(outputs.device)

    def check(self, outputs: Any, targets: Any, data: Any = None) -> None:
        """Refuse targets that are not finite, and outputs of another shape than theirs, which would be broadcast."""
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        if shape != tuple(targets.shape):
            raise UserError(f"the network returns {shape}, targets are {tuple(targets.shape)}: expected the same shape")
        for each in known_targets(data, targets):
            broken = int((~each.isfinite()).sum())
            if broken:
                raise UserError(
                    f"the targets have {broken} NaN or infinite values: expected finite numbers; leave these examples "
                    "out, or give an objective of your own that knows what they mean"
                )
