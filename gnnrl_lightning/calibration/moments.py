"""Means and covariances of the inputs of every contraction, from one streaming pass over calibration examples.

Memory: one `(d, d)` float32 matrix per weight, regardless of the number of examples. d = C_in * kernel if that is at
most `MAX_VECTOR`; otherwise kernel positions (or the positions of a flattened map) share the covariance of the C_in
channels. Weights that read more than `MOST_CHANNELS` channels have no moments. ResNet-56 takes 23 MB, ResNet-50 390 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.observe import (
    Call,
    ContractionObserver,
    forward_form,
    named_weights,
    sample_channels,
    sample_patches,
)
from gnnrl_lightning.networks.modes import eval_mode
from gnnrl_lightning.surgery.layers import Layer
from gnnrl_lightning.trees import Tree, call

MAX_VECTOR = 2304
"""Longest input vector with its own covariance: 256 channels times 3 x 3."""

MOST_CHANNELS = 8192
"""Largest covariance: 256 MiB."""

POSITIONS = 48
"""Positions sampled from each example."""


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the input vectors of one weight.

    Attributes:
        mean: `(blocks, d)`, one block for each group of a convolution.
        covariance: `(blocks, d, d)`.
        samples: Number of input vectors behind the moments.
    """

    mean: Tensor
    covariance: Tensor
    samples: int


@dataclass
class _Sums:
    """Running sums around an initial estimate of the mean, so that float32 suffices."""

    shift: Tensor
    count: int
    first: Tensor
    second: Tensor

    @classmethod
    def start(cls, vectors: Tensor) -> _Sums:
        shift = vectors.mean(1)
        return cls(shift, 0, torch.zeros_like(shift), shift.new_zeros(*shift.shape, shift.shape[-1]))

    def add(self, vectors: Tensor) -> None:
        """Add vectors `(blocks, n, d)`."""
        centred = vectors - self.shift[:, None]
        self.count += vectors.shape[1]
        self.first += centred.sum(1)
        self.second.baddbmm_(centred.transpose(1, 2), centred)

    def moments(self) -> Moments:
        """Return mean and covariance of the added vectors."""
        offset = self.first / self.count
        covariance = self.second / self.count - offset[:, :, None] * offset[:, None, :]
        return Moments(self.shift + offset, covariance, self.count)


def collect_moments(
    network: nn.Module,
    layers: Mapping[str, Layer],
    batches: Iterable[Tree],
    per_example: int = POSITIONS,
    seed: int = 0,
) -> dict[str, Moments]:
    """Collect weight name -> moments of its inputs while the network runs on the calibration examples.

    Args:
        network: The dense network; it runs in evaluation mode and is not changed.
        layers: Layers of the network; depthwise ones are skipped, since they mix no channels.
        batches: Normalised inputs, see `gnnrl_lightning.trees.call`.
        per_example: Number of positions sampled from each example.
        seed: Seed of the sampled positions.
    """
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, _Sums] = {}

    def visit(name: str, call: Call) -> None:
        groups = call.get("groups", 1)
        depthwise = groups > 1 and call["weight"].shape[1] == 1
        vectors = None if depthwise else _vectors(layers[name], call, per_example, generator)
        if vectors is None:
            return
        vectors = vectors.reshape(len(vectors), groups, -1).transpose(0, 1)
        if name not in sums:
            sums[name] = _Sums.start(vectors)
        sums[name].add(vectors)

    with torch.no_grad(), eval_mode(network), ContractionObserver(named_weights(network, layers), visit):
        for batch in batches:
            call(network, batch)
    return {name: total.moments() for name, total in sums.items()}


def _vectors(layer: Layer, call: Call, per_example: int, generator: torch.Generator) -> Tensor | None:
    """Return input vectors `(n, blocks * d)`, or None if they are too long."""
    call = forward_form(call)
    x, weight = call["input"], call["weight"]
    if weight[0].numel() <= MAX_VECTOR:
        return sample_patches(call, per_example, generator)
    flattened = weight.dim() == 2 and x.dim() == 2
    channels = x.shape[-1] // layer.repeats if flattened else weight.shape[1]
    if channels > MOST_CHANNELS:
        return None
    if weight.dim() == 2 and not flattened:
        return sample_patches(call, per_example, generator)
    return sample_channels(x, channels if flattened else x.shape[1], per_example, generator)
