"""Operators over space: pooling, interpolation, sampling, patches. Channels pass."""

from __future__ import annotations

import re
from typing import Any

from gnnrl_lightning.tracing.labels import ZERO, Value, support, vector
from gnnrl_lightning.tracing.rules.elementwise import merge
from gnnrl_lightning.tracing.rules.reductions import blocks, first, over
from gnnrl_lightning.tracing.walk import Walk, rule


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
      "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
      "adaptive_max_pool3d", "_adaptive_avg_pool2d", "max_pool1d_with_indices", "max_pool2d_with_indices",
      "max_pool3d_with_indices", kind="pool")  # fmt: skip
def pool(walk: Walk, x: Value, *_: Any, **__: Any) -> Any:
    """Pooling over the last dimensions: channels pass."""
    spatial = next(int(digit) for digit in re.findall(r"(\d)d", walk.operator))
    result = _local_response(walk, x) or _spatial(walk, x, spatial)
    indices = walk.operator.endswith("with_indices") or walk.operator.startswith("adaptive_max")
    return (result, result) if indices else result


@rule("max_unpool2d", "max_unpool3d", kind="pool")
def unpool(walk: Walk, x: Value, indices: Value, *_: Any, **__: Any) -> Value:
    """Values go back to where they were pooled from: channels pass, with those of their places."""
    return _spatial(walk, Value(x.shape, merge(walk, [x, indices])), len(x.shape) - 2)


def _local_response(walk: Walk, x: Value) -> Value | None:
    """Sums over neighbouring channels in a local response norm: of those that are kept; None: another pooling.

    The norm pads the channels with zeros, so that there are as many sums as channels.
    """
    if not walk.operator.startswith("avg_pool") or len(x.labels) != 1 or x.shape[1] != 1:
        return None
    labels, shape = x.labels[0], walk.shape
    free = labels.flatten() >= 0
    if support(labels) != (2,) or x.shape[3:] != shape[3:] or not bool((labels.flatten()[~free] == ZERO).all()):
        return None
    if int(free.sum()) != shape[2] or shape[2] == x.shape[2]:
        return None
    kept = labels.flatten()[free]
    walk.statistic(walk.call_number("local_response_norm"), 1, kept, "local_response_norm")
    return Value(shape, (vector(kept, len(shape), 2),))


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
      "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "upsample_linear1d", "upsample_trilinear3d",
      "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
      kind="pool")  # fmt: skip
def upsample(walk: Walk, x: Value, *_: Any, **__: Any) -> Value:
    """Interpolation over space: channels pass."""
    return _spatial(walk, x, len(x.shape) - 2)


def _spatial(walk: Walk, x: Value, spatial: int) -> Value:
    """Channels pass; of a linear layer that makes maps, all values of a map go together."""
    dims = range(len(x.shape) - spatial, len(x.shape))
    passed = blocks(walk, x, dims, "changes along the dimensions that are pooled")
    return Value(walk.shape, tuple(first(labels, {*dims}) for labels in passed.labels))


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", kind="pool")
def grid_sample(walk: Walk, x: Value, grid: Value, *_: Any) -> Value:
    """Values at the positions of a grid: channels pass, coordinates stay, or go with the heads that have them."""
    ndim = len(grid.shape)
    found = blocks(walk, grid, range(1, ndim), "is the coordinate of a sample")
    passed = Value(walk.shape, _spatial(walk, x, ndim - 2).labels)
    rows = tuple(vector(labels.flatten(1)[:, 0], ndim, 0) for labels in found.labels)
    return Value(walk.shape, merge(walk, [passed, Value((x.shape[0], *(1,) * (ndim - 1)), rows)])) if rows else passed


@rule("affine_grid_generator", kind="other")
def affine_grid(walk: Walk, theta: Value, *_: Any) -> Value:
    """A grid of coordinates from affine matrices, whose size is given."""
    walk.freeze(theta, "is part of an affine matrix")
    return Value(walk.shape)


@rule("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft", kind="other")
def fourier(walk: Walk, x: Value, length: int | None = None, dim: int = -1, *_: Any, **__: Any) -> Value:
    """Fourier transform along a dimension: other channels pass."""
    return Value(walk.shape, over(walk, x, (dim % len(x.shape),), "is transformed together").labels)


@rule("fft_fft2", "fft_ifft2", "fft_rfft2", "fft_irfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn",
      kind="other")  # fmt: skip
def fourier_of_several(walk: Walk, x: Value, sizes: Any = None, dim: Any = None, *_: Any, **__: Any) -> Value:
    """Fourier transform along several dimensions, the last two or as many as there are sizes, or all."""
    ndim = len(x.shape)
    last = 2 if walk.operator.endswith("2") else ndim if sizes is None else len(sizes)
    dims = range(ndim - last, ndim) if dim is None else [each % ndim for each in dim]
    return Value(walk.shape, over(walk, x, tuple(dims), "is transformed together").labels)


@rule("view_as_complex", kind="shape")
def complex_numbers(walk: Walk, x: Value) -> Value:
    """The last dimension becomes real and imaginary parts, which go together: rotary positions turn pairs."""
    passed = blocks(walk, x, (len(x.shape) - 1,), "is the real or imaginary part of a number")
    return Value(walk.shape, tuple(labels.select(-1, 0) for labels in passed.labels))


@rule("view_as_real", kind="shape")
def real_and_imaginary(walk: Walk, x: Value) -> Value:
    """Real and imaginary parts become the last dimension."""
    return Value(walk.shape, tuple(labels.unsqueeze(-1) for labels in x.labels))


@rule("unfold", kind="shape")
def unfold(walk: Walk, x: Value, dim: int, *_: Any) -> Value:
    """Windows along a dimension, as a new last dimension."""
    passed = over(walk, x, (dim % len(x.shape),), "is cut into windows")
    return Value(walk.shape, tuple(labels.unsqueeze(-1) for labels in passed.labels))


@rule("diff", kind="other")
def differences(walk: Walk, x: Value, n: int = 1, dim: int = -1, *ends: Value | None) -> Value:
    """Differences of neighbours along a dimension: other channels pass."""
    if any(end is not None for end in ends):
        raise NotImplementedError("values before or behind")
    return Value(walk.shape, over(walk, x, (dim % len(x.shape),), "is a difference of neighbours").labels)


@rule("im2col", kind="shape")
def patches(walk: Walk, x: Value, kernel: list[int], *_: Any) -> Value:
    """Patches `(N, C * kernel, L)` of a map: each channel is a block of neighbours."""
    passed = _spatial(walk, x, 2).along(1)
    labels = () if passed is None else (passed.repeat_interleave(kernel[0] * kernel[1]).reshape(1, -1, 1),)
    return Value(walk.shape, labels)


@rule("col2im", kind="shape")
def map_of_patches(walk: Walk, x: Value, size: Any, kernel: list[int], *_: Any) -> Value:
    """A map from its patches, the inverse of `im2col`: the neighbours of a block go together."""
    blocks = x.along(1)
    over(walk, x, (2,), "changes along the patches")
    if blocks is None:
        return Value(walk.shape)
    blocks = blocks.reshape(-1, kernel[0] * kernel[1])
    walk.join(blocks[:, :1], blocks[:, 1:])
    return Value(walk.shape, (blocks[:, 0].reshape(1, -1, 1, 1),))
