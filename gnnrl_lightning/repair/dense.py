"""The dense network and the statistics of it that repairs need, each computed once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.moments import Moments, collect_moments
from gnnrl_lightning.repair.refit import Recording, record
from gnnrl_lightning.surgery.layers import Layer, find_layers


class Dense:
    """A dense network, calibration images, and lazily computed statistics of both.

    Args:
        graph: The traced network.
        network: The network, trained; it is never changed.
        calibration: Normalised training images `(N, C, H, W)` on the network's device.
        batch_size: Number of calibration images in a batch.
        dtype: Precision of activations in a pruned network's forward passes.
    """

    def __init__(
        self,
        graph: Any,
        network: nn.Module,
        calibration: Tensor,
        batch_size: int = 256,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.graph, self.network, self.calibration = graph, network, calibration
        self.batch_size, self.dtype = batch_size, dtype

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Layers of the dense network by weight."""
        return find_layers(self.graph)

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """Moments of the layers' inputs, by weight (the pass `moments`)."""
        return collect_moments(self.network, self.layers, self.batches())

    @cached_property
    def recording(self) -> Recording:
        """Layer outputs for `refit` (the pass `recording`)."""
        return record(self.network, self.layers, self.calibration)

    @property
    def device(self) -> torch.device:
        """Device of the network and the calibration images."""
        return self.calibration.device

    def batches(self) -> tuple[Tensor, ...]:
        """The calibration images in batches."""
        return self.calibration.split(self.batch_size)
