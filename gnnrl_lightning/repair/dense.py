"""The dense network and the statistics of it that repairs need, each computed once."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import nn

from gnnrl_lightning.calibration.moments import Moments, collect_moments
from gnnrl_lightning.networks.channels_last import runs_channels_last
from gnnrl_lightning.repair.refit import Recording, positions_for, record
from gnnrl_lightning.surgery.layers import Layer, find_layers
from gnnrl_lightning.surgery.traced import TracedNetwork
from gnnrl_lightning.trees import Tree, channels_last, count, device_of, split


class Dense:
    """A dense network, calibration inputs, and lazily computed statistics of both.

    Args:
        graph: The traced network.
        network: The network, trained; it is never changed.
        calibration: Normalised inputs of training examples on the network's device.
        batch_size: Largest number of calibration examples in a batch.
        dtype: Precision of activations in a pruned network's forward passes.
    """

    def __init__(
        self,
        graph: TracedNetwork,
        network: nn.Module,
        calibration: Tree,
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
    def channels_last(self) -> bool:
        """Whether the dense network and its candidates run with their channels last."""
        return runs_channels_last(self.network, self.calibration)

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """Moments of the layers' inputs, by weight (the pass `moments`)."""
        return collect_moments(self.network, self.layers, self.batches())

    @cached_property
    def recording(self) -> Recording:
        """Layer outputs for `refit` (the pass `recording`)."""
        inputs = channels_last(self.calibration, self.channels_last)
        return record(self.network, self.layers, inputs, positions_for(count(inputs)))

    @property
    def device(self) -> torch.device:
        """Device of the network and the calibration inputs."""
        return device_of(self.calibration)

    def batches(self) -> list[Tree]:
        """The calibration inputs in batches of about the same size: averages over batches weight these equally."""
        examples = count(self.calibration)
        return list(split(self.calibration, math.ceil(examples / math.ceil(examples / self.batch_size))))
