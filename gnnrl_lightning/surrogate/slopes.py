"""Slopes: how fast a candidate's loss changes with the width of each group, from one backward pass.

A value tells how good a candidate is; its slopes tell in which direction better ones lie. The first-order effect of
removing a channel is the gradient of the loss with respect to a mask on it; a group's effect is the sum of the
magnitudes over its channels. Relative to the loss, it is in the units of the surrogate: a derivative of the logarithm
of the loss by the logarithm of the keep ratio, up to a factor that is nearly the same for all networks.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.candidates.short_finetune import PASSES
from gnnrl_lightning.importance.gradients import NoGradient, mask_gradients
from gnnrl_lightning.surrogate.observations import Slopes
from gnnrl_lightning.trees import Tree, call, count, floats, split

BATCH = 64
"""Examples of one backward pass."""

SMALLEST = 1e-6
"""Lower bound of the loss by which effects are divided."""

SLOPE, THRESHOLD = 0.22, 0.35
"""The log loss falls by `SLOPE * (effect - THRESHOLD)` as the log keep ratio of a group rises by 1."""

BIAS = 0.04, 0.3
"""Standard deviation of the error that all slopes of a group share: a constant, and a share of the slope."""

NOISE = 0.03, 0.15
"""The same for the rest."""


def slopes_from(widths: Tensor, effects: Tensor) -> Slopes:
    """Slopes of a candidate's log loss from the effects of its groups.

    The constants are fitted to random candidates of ResNet-20 at 30 and 50 % of its MACs, where effects and slopes of
    the softened divergence have a correlation of 0.96 and 0.95 (of the plain one 0.93 and 0.90).

    Args:
        widths: The candidate `(G,)`.
        effects: As `EffectMeasure` measures them `(G,)`; 0: not known.
    """
    size = SLOPE * (effects.double() - THRESHOLD).clamp(min=0)
    values = torch.where(effects > 0, -size, torch.nan)
    return Slopes(widths, values, BIAS[0] + BIAS[1] * size, NOISE[0] + NOISE[1] * size)


class EffectMeasure:
    """Measures the effects of the groups of candidates of one network.

    Args:
        pruner: Makes candidates; gives the dense network, the calibration inputs and the objective.
    """

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner

    @property
    def count(self) -> int:
        """Number of calibration examples."""
        return count(self.pruner.calibration)

    @property
    def examples(self) -> int:
        """Cost of a measurement, in forward passes of one example."""
        return PASSES * self.count + self.pruner.examples

    def __call__(self, widths: Tensor) -> Tensor:
        """Effects of the groups of a candidate, which is pruned and repaired.

        Args:
            widths: The candidate `(G,)`.

        Returns:
            `(G,)` float64: sums over the channels of the magnitudes of the first-order changes of the divergence from
            the dense network when they are removed, relative to the divergence. Zeros where no convolution or linear
            layer reads the group, and everywhere if the divergence has no gradients.
        """
        plan = self.pruner.plan(widths)
        network = self.pruner.prune(plan)
        graph, distance = self.pruner.graph, self.pruner.objective.distance
        sizes = (graph.widths * graph.sets).tolist()
        numbers = {
            name: torch.cat([axis.channels[axis.positions(plan.selection)] for axis in layer.blocks])
            for name, layer in self.pruner.layers.items()
            if layer.blocks
        }
        total, divergence = torch.zeros(sum(sizes), dtype=torch.float64), 0.0
        for inputs, reference in self._references:
            seen: list[float] = []

            def loss(outputs: Tree, reference: Tree = reference, seen: list[float] = seen) -> Tensor:
                summed = distance(floats(outputs), reference).sum()
                seen.append(float(summed.detach()))
                return summed

            try:
                total += mask_gradients(network, numbers, len(total), inputs, loss).sum(0)
            except NoGradient:
                return torch.zeros(len(sizes), dtype=torch.float64)
            divergence += sum(seen)
        groups = torch.stack([part.abs().sum() for part in total.split(sizes)])
        return (groups / max(divergence, SMALLEST * self.count)).nan_to_num(0.0, 0.0, 0.0)

    @cached_property
    def _references(self) -> list[tuple[Tree, Tree]]:
        """The calibration inputs and the dense network's outputs, in batches."""
        with torch.no_grad():
            return [
                (inputs, floats(call(self.pruner.network, inputs))) for inputs in split(self.pruner.calibration, BATCH)
            ]
