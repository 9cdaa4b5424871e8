"""Peak memory of the feature maps."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gnnrl_lightning.cost.products import Products
from gnnrl_lightning.tracing.topology import FeatureMap, Operator

BYTES = 4
"""Bytes of an element in float32."""


class Scheduled(Protocol):
    """The operators and feature maps of a traced network, see `gnnrl_lightning.graph.ComputationGraph`."""

    @property
    def widths(self) -> Tensor: ...  # noqa: D102
    @property
    def operators(self) -> tuple[Operator, ...]: ...  # noqa: D102
    @property
    def feature_maps(self) -> tuple[FeatureMap, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def elements(self) -> Products: ...  # noqa: D102


class PeakActivations:
    """Bytes of the largest set of simultaneously live feature maps, for one example in float32.

    Operators run sequentially, in the order of the trace. A feature map is live from the operator that computes it to
    its last reader; inputs are live from the beginning, outputs to the end. Views and in-place results share the memory
    of their base map, which is live as long as any of them. Workspaces of operators and parameters are not counted.

        peak = 4 bytes * max_t sum_{m alive at t} elements_m(widths)

    Args:
        graph: The traced network.
    """

    def __init__(self, graph: Scheduled) -> None:
        self._elements, self.alive = graph.elements, alive_maps(graph)
        dense = self._elements(graph.widths[None])[0].tolist()
        # The last map that covers the whole memory has the correct channels; a buffer of zeros has none.
        whole = {item.base: n for n, item in enumerate(graph.feature_maps) if dense[n] == dense[item.base]}
        self._whole = torch.tensor([whole[item.base] for item in graph.feature_maps])

    def __call__(self, widths: Tensor) -> Tensor:
        """Bytes `(...)` int64 at `widths (..., G)`."""
        widths = torch.as_tensor(widths)
        elements = self._elements(widths.reshape(widths.shape[:-1].numel(), widths.shape[-1]))
        peak = (elements[:, self._whole].double() @ self.alive.double()).amax(-1)
        return BYTES * peak.long().reshape(widths.shape[:-1])


def peak_activations(graph: Scheduled) -> PeakActivations:
    """Peak memory of the feature maps of a traced network, see `PeakActivations`."""
    return PeakActivations(graph)


def alive_maps(graph: Scheduled) -> Tensor:
    """Which feature maps are live while each operator runs.

    Args:
        graph: The traced network.

    Returns:
        bool `(n_maps, n_operators)`; maps that share the memory of an earlier map count as not live. A network without
        operators has one column, for its inputs.
    """
    base = [feature_map.base for feature_map in graph.feature_maps]
    made = {operator.output: time for time, operator in enumerate(graph.operators)}
    last: dict[int, int] = {}
    for time, operator in enumerate(graph.operators):
        last |= dict.fromkeys((base[used] for used in (*operator.inputs, operator.output)), time)
    moments = max(len(graph.operators), 1)
    last |= {base[number]: moments - 1 for number in graph.outputs}
    alive = torch.zeros(len(base), moments, dtype=torch.bool)
    for number, end in last.items():
        alive[number, made.get(number, 0) : end + 1] = True
    return alive
