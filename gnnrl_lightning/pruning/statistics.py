"""Means and covariances of what every contraction reads, from one streaming pass over calibration images.

Memory: one `(d, d)` float32 matrix for each weight, d = C_in * kernel while that is at most `MAX_VECTOR`, else C_in (one
covariance for all kernel positions), however many images there are. ResNet-56 takes 23 MB, ResNet-50 390 MB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnrl_lightning.graph.walk import Contraction
from gnnrl_lightning.pruning.observe import Call, ContractionObserver, named_weights, sample_channels, sample_patches

MAX_VECTOR = 2304
"""Longest input vector with a covariance of its own: 256 channels times 3 x 3."""

POSITIONS = 48
"""Positions sampled from each image."""


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the input vectors of one weight.

    Attributes:
        mean: `(blocks, d)`: one block for each group of a convolution.
        covariance: `(blocks, d, d)`.
        inner: Elements of the vector for each input channel: the kernel's size, or 1.
    """

    mean: Tensor
    covariance: Tensor
    inner: int


def collect_moments(
    network: nn.Module,
    contractions: Iterable[Contraction],
    batches: Iterable[Tensor],
    per_image: int = POSITIONS,
    seed: int = 0,
) -> dict[str, Moments]:
    """Weight name -> moments of what it reads when the network runs on the calibration images.

    Args:
        network: The dense network in evaluation mode.
        contractions: The contractions whose inputs are wanted; those without a weight that is a parameter, and
            depthwise ones, are left out.
        batches: Normalised images `(B, C, H, W)`.
        per_image: Positions sampled from each image.
        seed: Seed of the positions.
    """
    wanted = {item.weight: item for item in contractions if item.weight is not None and item.reads is not None}
    weights = named_weights(network, wanted)
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def visit(name: str, call: Call) -> None:
        vectors = _vectors(wanted[name], call, per_image, generator)
        count, total, squares = sums.get(name, (0, 0.0, 0.0))
        sums[name] = (
            count + vectors.shape[1],
            total + vectors.sum(1),
            squares + vectors.transpose(1, 2) @ vectors,
        )

    with torch.no_grad(), ContractionObserver(weights, visit):
        for batch in batches:
            network(batch)
    moments = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        covariance = squares / count - mean[:, :, None] * mean[:, None, :]
        channels = wanted[name].reads
        assert channels is not None
        moments[name] = Moments(mean, covariance, mean.shape[1] // channels.shape[-1])
    return moments


def _vectors(contraction: Contraction, call: Call, per_image: int, generator: torch.Generator) -> Tensor:
    """Input vectors `(blocks, n, d)`."""
    weight = call["weight"]
    length = weight.shape[1] * weight[0, 0].numel()
    if contraction.transposed or weight.dim() > 4 or length > MAX_VECTOR:
        vectors = sample_channels(call, per_image, generator)
    else:
        vectors = sample_patches(call, per_image, generator)
    return vectors.reshape(len(vectors), contraction.groups, -1).transpose(0, 1)
