"""Closed-form reconstruction of the consumers of pruned channels from the remaining inputs.

For the kept inputs S of a weight W with input mean m and covariance C, ridge regression towards W gives

    W_S = (W C[:, S] + l W[:, S]) (C[S, S] + l I)^-1,    b_S = b + W m - W_S m[S],

where l is a small fraction of the mean diagonal of C[S, S], see `least_squares.relative_pull`. S = all gives W. The
moments are those of the dense network, so a candidate needs no pass over examples. If no parameter can absorb the shift
of the mean (no bias, no batch norm), second moments replace the covariances. A depthwise convolution mixes no channels,
so there is nothing to fit; `batchnorm.predict_batch_norm` corrects the variance of its inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.least_squares import solve_ridge
from gnnrl_lightning.calibration.moments import Moments
from gnnrl_lightning.calibration.observe import named_tensors, named_weights
from gnnrl_lightning.surgery.layers import Layer, columns, to_matrices, to_weight
from gnnrl_lightning.tracing.axes import Selection


def solve_kept(weight: Tensor, mean: Tensor, covariance: Tensor, kept: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Least-squares weights for the kept inputs.

    Args:
        weight: Matrix `(rows, d)`.
        mean: Mean of its inputs `(d,)`.
        covariance: Their covariance, or second moments, `(d, d)`.
        kept: Indices of the kept inputs `(k,)`.
        samples: Number of input vectors behind the moments.

    Returns:
        Weights `(rows, k)` and the mean residual of each output `(rows,)`.
    """
    if len(kept) == len(mean):
        return weight[:, kept], torch.zeros_like(weight[:, 0])
    if not len(kept):
        return weight[:, kept], weight @ mean
    solved = solve_ridge(covariance[kept][:, kept], weight @ covariance[:, kept], weight[:, kept], samples)
    return solved, weight @ mean - solved @ mean[kept]


def reconstruct(
    dense: nn.Module,
    pruned: nn.Module,
    layers: Mapping[str, Layer],
    moments: Mapping[str, Moments],
    selection: Selection,
) -> None:
    """Refit every consumer of the pruned network, in place, from the dense network's moments.

    The mean residual of the refitted weights is added to the bias, or to the running mean of the batch norm that is
    the only reader of the outputs. Of a layer without inputs, that is its mean output.

    Args:
        dense: The dense network.
        pruned: The pruned network, as returned by surgery.
        layers: Layers of the dense network.
        moments: Moments of their inputs, see `collect_moments`; layers without moments are not changed.
        selection: The kept channels.
    """
    chosen = {name: layer for name, layer in layers.items() if layer.blocks and name in moments}
    old, tensors = named_weights(dense, chosen), named_tensors(pruned)
    with torch.no_grad():
        for name, layer in chosen.items():
            if layer.outputs is not None and not len(layer.outputs.positions(selection)):
                continue
            running = layer.norm.get("running_mean")
            weight = layer.standard(old[name])
            raw = layer.bias is None and running is None
            fitted, shift = fit_to_moments(layer, weight, moments[name], selection, raw)
            if name in tensors:
                tensors[name].copy_(layer.standard(fitted))
            if layer.bias is not None:
                tensors[layer.bias].add_(shift)
            elif running is not None:
                tensors[running].sub_(shift)


def fit_to_moments(
    layer: Layer, weight: Tensor, moments: Moments, selection: Selection, raw: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the refitted weight of one layer in standard form, and the mean residual of each of its outputs.

    Args:
        layer: The layer.
        weight: Its dense weight in standard form.
        moments: Moments of its inputs.
        selection: The kept channels.
        raw: Fit second moments instead of covariances, because no parameter can absorb the shift of the mean.
    """
    length = moments.mean.shape[1]
    rows = layer.rows(selection, len(weight))
    kept = [columns(axis.positions(selection), axis.length, length) for axis in layer.blocks]
    matrices = to_matrices(weight[rows.to(weight.device)], len(kept), length)
    parts, shifts = [], []
    for block, index in enumerate(kept):
        mean, second = moments.mean[block], moments.covariance[block]
        second = second + torch.outer(mean, mean) if raw else second
        solved, missing = solve_kept(matrices[block], mean, second, index.to(weight.device), moments.samples)
        parts.append(solved)
        shifts.append(missing)
    shape = (len(rows), len(layer.blocks[0].positions(selection)), *weight.shape[2:])
    return to_weight(torch.stack(parts), shape), torch.cat(shifts).reshape(len(rows), -1).sum(1)
