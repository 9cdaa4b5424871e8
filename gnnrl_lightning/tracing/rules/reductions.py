"""Operators that reduce or normalise over dimensions, and pooling over space."""

from __future__ import annotations

import re
from typing import Any

from gnnrl_lightning.tracing.labels import Value, support
from gnnrl_lightning.tracing.walk import Walk, rule


def _dims(value: Value, dim: Any) -> tuple[int, ...]:
    ndim = len(value.shape)
    if dim is None or dim == [] or dim == ():
        return tuple(range(ndim))
    return tuple(d % ndim for d in ((dim,) if isinstance(dim, int) else dim))


def _over(walk: Walk, x: Value, dims: tuple[int, ...], reason: str) -> Value:
    """Freeze the labels that change along `dims`, and return the others."""
    kept = []
    for labels in x.labels:
        if set(support(labels)) & set(dims):
            walk.freeze(labels, reason)
        else:
            kept.append(labels)
    return Value(x.shape, tuple(kept))


@rule("mean", "sum", "amax", "amin", "var", "std", "logsumexp", "prod", "linalg_vector_norm", "norm", "any", "all",
      kind="pool")  # fmt: skip
def reduce(walk: Walk, x: Value, *args: Any, **kwargs: Any) -> Value:
    """Reduction over dimensions: channels along them are frozen."""
    positional = args[1:] if walk.operator in ("linalg_vector_norm", "norm") else args
    dim = kwargs.get("dim", positional[0] if positional and not isinstance(positional[0], bool) else None)
    dims = _dims(x, dim)
    passed = _over(walk, x, dims, "is reduced over")
    if len(walk.shape) == len(x.shape):
        return Value(walk.shape, passed.labels)
    kept = [d for d in range(len(x.shape)) if d not in dims]
    return Value(walk.shape, tuple(labels.reshape([labels.shape[d] for d in kept]) for labels in passed.labels))


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "sort", "argsort", "glu", kind="other")
def along_dimension(walk: Walk, x: Value, dim: int = -1, *_: Any, **__: Any) -> Value:
    """Operators along one dimension, such as softmax: channels along it are frozen."""
    passed = _over(walk, x, _dims(x, dim), "is combined with the other channels")
    return Value(walk.shape, passed.labels)


@rule("layer_norm", "native_layer_norm", "rms_norm", kind="norm")
def layer_norm(walk: Walk, x: Value, normalized_shape: Any, *affine: Any) -> Any:
    """Statistics over the last dimensions: channels there are frozen."""
    return _normalised(walk, x, range(len(x.shape) - len(normalized_shape), len(x.shape)), affine)


@rule("group_norm", kind="norm")
def group_norm(walk: Walk, x: Value, num_groups: int, *affine: Any) -> Any:
    """Statistics over blocks of channels."""
    return _normalised(walk, x, range(1, len(x.shape)), affine)


@rule("native_group_norm", kind="norm")
def native_group_norm(walk: Walk, x: Value, weight: Any, bias: Any, *_: Any) -> Any:
    """Statistics over blocks of channels."""
    return _normalised(walk, x, range(1, len(x.shape)), (weight, bias))


@rule("instance_norm", kind="norm")
def instance_norm(walk: Walk, x: Value, *affine: Any) -> Any:
    """Statistics over each channel of each example: channels pass, as in batch norm."""
    from gnnrl_lightning.tracing.rules.elementwise import batch_norm

    result = batch_norm(walk, x, *affine)
    return result[0] if isinstance(result, tuple) else result


def _normalised(walk: Walk, x: Value, dims: Any, affine: tuple[Any, ...]) -> Any:
    passed = _over(walk, x, tuple(dims), "is normalised together with the other channels")
    for parameter in affine:
        if isinstance(parameter, Value):
            walk.freeze(parameter, "is normalised together with the other channels")
    return (passed, Value(()), Value(())) if walk.operator.startswith("native_") else passed


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
      "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "_adaptive_avg_pool2d",
      "max_pool2d_with_indices", kind="pool")  # fmt: skip
def pool(walk: Walk, x: Value, *_: Any, **__: Any) -> Any:
    """Pooling over the last dimensions: channels pass."""
    spatial = next(int(digit) for digit in re.findall(r"(\d)d", walk.operator))
    result = _spatial(walk, x, spatial)
    return (result, result) if walk.operator in ("max_pool2d_with_indices", "adaptive_max_pool2d") else result


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
      "_upsample_bilinear2d_aa", "_upsample_nearest_exact2d", "upsample_linear1d", kind="pool")  # fmt: skip
def upsample(walk: Walk, x: Value, *_: Any, **__: Any) -> Value:
    """Interpolation over space: channels pass."""
    return _spatial(walk, x, len(x.shape) - 2)


def _spatial(walk: Walk, x: Value, spatial: int) -> Value:
    dims = tuple(range(len(x.shape) - spatial, len(x.shape)))
    passed = _over(walk, x, dims, "changes along the dimensions that are pooled")
    return Value(walk.shape, passed.labels)
