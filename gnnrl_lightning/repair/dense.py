"""The dense network and what repairs need to know of it, each found out once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.moments import Moments, collect_moments
from gnnrl_lightning.repair.refit import Recording, record
from gnnrl_lightning.surgery.layers import Layer, find_layers


class Dense:
    """A dense network, calibration images, and what is computed from both when it is first needed.

    Args:
        graph: The traced network.
        network: The network, trained; it is never changed.
        calibration: Normalised training images `(N, C, H, W)` on the network's device.
        batch_size: Calibration images in a batch.
        dtype: Precision of activations where images pass through a pruned network.
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
        """Moments of what its layers read, by weight: the pass `moments`."""
        return collect_moments(self.network, self.layers, self.batches())

    @cached_property
    def recording(self) -> Recording:
        """What its layers give, as `refit` needs it: the pass `recording`."""
        return record(self.network, self.layers, self.calibration)

    @property
    def device(self) -> torch.device:
        """Where the network and the calibration images are."""
        return self.calibration.device

    def batches(self) -> tuple[Tensor, ...]:
        """The calibration images in batches."""
        return self.calibration.split(self.batch_size)
