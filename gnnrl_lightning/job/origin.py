"""The dense network with which a run in stages begins, and what the stages have left of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.speed.latency import Latency


@dataclass(frozen=True)
class Origin:
    """The dense network of a run in stages. Budgets, ratios and figures refer to it, and it is the teacher.

    Args:
        graph: Its graph, with the model of its latency if the budget limits that.
        network: The trained network, on the job's device.
        latency: Its latency, with the measurements behind it; None: the budget does not limit it.
        widths: Widths `(G,)`, in its own groups, of the network that the finished stages have left.
        stages: Records of the finished stages, in plain JSON types.
    """

    graph: ComputationGraph
    network: nn.Module
    latency: Latency | None
    widths: Tensor
    stages: tuple[Mapping[str, Any], ...] = ()

    def after(self, record: Mapping[str, Any]) -> Origin:
        """Return the origin after one more stage, whose record has `widths` in the groups of the dense network."""
        return replace(self, widths=torch.tensor(record["widths"]), stages=(*self.stages, record))

    def widths_of(self, graph: ComputationGraph, widths: Tensor) -> Tensor:
        """Return widths of the network at hand, which has this graph, in the groups of the dense one `(G,)`.

        Groups that are no longer prunable, since one channel is left or none, keep the width that they have.
        """
        given = {group.name: int(width) for group, width in zip(graph.groups, widths, strict=True)}
        kept = zip(self.graph.groups, self.widths.tolist(), strict=True)
        return torch.tensor([given.get(group.name, width) for group, width in kept], dtype=torch.int64)
