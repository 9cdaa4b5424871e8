"""Which channels matter: scores of every channel, summed over everything that goes with it.

A criterion is a function `(network, tensors, calibration) -> {name: score of each element}`; the score of a channel is
the sum over all elements of all tensors that are removed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError

Criterion = Callable[[nn.Module, Mapping[str, Tensor], Tensor | None], Mapping[str, Tensor]]
"""`(network, prunable parameters by name, calibration images) -> importance of each element, by name`."""


def l1(network: nn.Module, parameters: Mapping[str, Tensor], calibration: Tensor | None) -> dict[str, Tensor]:
    """Sum of absolute weights (Li et al., ICLR 2017)."""
    return {name: tensor.abs() for name, tensor in parameters.items() if tensor.dim() > 1}


def l2(network: nn.Module, parameters: Mapping[str, Tensor], calibration: Tensor | None) -> dict[str, Tensor]:
    """Sum of squared weights."""
    return {name: tensor.square() for name, tensor in parameters.items() if tensor.dim() > 1}


CRITERIA: dict[str, Criterion] = {"l1": l1, "l2": l2}
"""Name -> criterion. A user's own is registered by adding it, or given as a callable."""


def importance_scores(
    graph: Any, network: nn.Module, importance: str | Criterion, calibration: Tensor | None
) -> list[Tensor]:
    """Score of every channel of every group: `(sets, width)` float64 each.

    Raises:
        UserError: The criterion is unknown.
    """
    if isinstance(importance, str):
        if importance not in CRITERIA:
            raise UserError(f"importance is {importance!r}: expected one of {', '.join(CRITERIA)}, or a callable")
        importance = CRITERIA[importance]
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters() if name in graph.cuts}
    sizes = (graph.widths * graph.sets).tolist()
    total = torch.zeros(sum(sizes), dtype=torch.float64)
    for name, values in importance(network, parameters, calibration).items():
        for dim, axis in graph.cuts[name].axes.items():
            other = [d for d in range(values.dim()) if d != dim]
            axis.add_up(values.double().sum(other) if other else values.double(), total)
    split = total.split(sizes)
    return [part.reshape(sets, -1) for part, sets in zip(split, graph.sets.tolist(), strict=True)]


def keep_best(scores: Tensor, width: int) -> Tensor:
    """Ranks of the `width` highest scores of each index set, ascending: `(sets, width)`; ties keep the first."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :width].sort(1)[0]
