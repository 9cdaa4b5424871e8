"""Memory of the feature maps that are alive at once."""

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
    """Bytes of the largest set of feature maps that is alive at once, for a batch of one in float32.

    The operators run one after the other, in the order in which they were traced. A feature map takes memory from the
    operator that makes it to its last reader; the network's inputs from the beginning, its outputs to the end. Views
    and what is written in place share the memory of the map that they come from, which lives as long as any of them.
    Operators' own workspace and parameters are not counted.

        peak = 4 bytes * max_t sum_{m alive at t} elements_m(widths)

    Args:
        graph: The traced network.
    """

    def __init__(self, graph: Scheduled) -> None:
        self._elements, self.alive = graph.elements, alive_maps(graph)
        dense = self._elements(graph.widths[None])[0].tolist()
        # The last map of the whole memory knows best what is in it: a buffer of zeros knows nothing of its channels.
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
    """Which feature maps take memory while each operator runs.

    Args:
        graph: The traced network.

    Returns:
        bool `(n_maps, n_operators)`; maps that share the memory of an earlier one have none of their own. A network
        without operators has one column, for its inputs.
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
