"""Ridge regression towards the existing weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.calibration.observe import Call, Patches
from gnnrl_lightning.calibration.precision import products_in

RIDGE = 1e-3
"""Ridge coefficient relative to the mean variance of the kept inputs, if there are enough samples."""


ENOUGH = 100
"""Samples per input above which the coefficient is `RIDGE`; with fewer it grows in proportion, against overfitting."""


def relative_pull(inputs: int, samples: int) -> float:
    """Return the ridge coefficient relative to the mean variance, `RIDGE * max(1, ENOUGH * inputs / samples)`."""
    return RIDGE * max(1.0, ENOUGH * inputs / samples)


def solve_ridge(system: Tensor, right: Tensor, prior: Tensor, samples: int) -> Tensor:
    """Return ridge-regression weights, `(right + l prior) (system + l I)^-1`.

    Args:
        system: Covariance of the inputs `(..., k, k)`.
        right: Covariance of outputs and inputs `(..., rows, k)`.
        prior: Weights `(..., rows, k)` towards which the solution is pulled.
        samples: Number of input vectors behind the covariances.

    Returns:
        Weights `(..., rows, k)`; l is `relative_pull` times the mean of the system's diagonal.
    """
    pull = system.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=torch.finfo(system.dtype).eps ** 2)
    pull = relative_pull(system.shape[-1], samples) * pull[..., None, None]
    identity = torch.eye(system.shape[-1], dtype=system.dtype, device=system.device)
    return torch.linalg.solve(system + pull * identity, right + pull * prior, left=False)


LONGEST_GRAM = 4608
"""Longest input vector with a Gram matrix: 512 channels times 3 x 3, 85 MB."""

CHUNK = 2**24
"""Elements of input vectors processed at a time: 64 MB."""


STRIPE = 96
"""Rows of a Gram matrix computed at a time, each from the diagonal on."""

FEW = 256
"""Number of vectors for the initial estimate of their mean."""


@dataclass(frozen=True)
class Fit:
    """A weight in standard form, with mean and variance `(rows,)` of its outputs, without bias."""

    weight: Tensor
    output_mean: Tensor
    output_variance: Tensor


def fit_to_samples(
    call: Call, patches: Patches, values: Tensor, intercept: bool, dtype: torch.dtype = torch.float32
) -> Fit:
    """Fit a layer's weight to target outputs by ridge regression towards its present weight.

    Args:
        call: The layer's call in forward form.
        patches: Sampled positions of the call.
        values: Target outputs at these positions `(n, rows)`.
        intercept: Whether a constant may be added to the outputs.
        dtype: Precision of the products summed in Gram matrices.
    """
    weight, groups = call["weight"], call.get("groups", 1)
    # In the vectors, the channels of a kernel position are contiguous, as in memory.
    prior = weight.flatten(2).transpose(1, 2) if weight.dim() > 2 else weight
    prior = prior.reshape(groups, len(weight) // groups, -1)
    values = values.reshape(len(values), groups, -1).transpose(0, 1)
    if intercept:
        values = values - values.mean(1, keepdim=True)
    if prior.shape[2] > LONGEST_GRAM:
        solved, mean, variance = _fit_samples(call, patches, values, prior, intercept)
    else:
        solved, mean, variance = _fit_gram(call, patches, values, prior, intercept, dtype)
    first = (solved @ mean[:, :, None]).flatten()
    if weight.dim() > 2:
        solved = solved.reshape(len(weight), -1, weight.shape[1]).transpose(1, 2)
    return Fit(solved.reshape(weight.shape), first, variance.flatten())


def _vectors(call: Call, patches: Patches) -> Iterator[Tensor]:
    """Yield input vectors `(blocks, n, d)`, d = kernel * channels, of a few examples at a time, in their precision."""
    x, groups = call["input"], call.get("groups", 1)
    each = patches.positions.shape[1] * call["weight"][0].numel() * groups
    step = max(1, CHUNK // each)
    for start in range(0, len(x), step):
        taps = patches.taps(x, slice(start, start + step))
        yield taps.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).flatten(2)


def _fit_gram(
    call: Call, patches: Patches, values: Tensor, prior: Tensor, intercept: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights `(blocks, rows, d)`, input means `(blocks, d)` and output variances `(blocks, rows)`."""
    blocks, rows, d = prior.shape
    gram, cross = prior.new_zeros(blocks, d, d), prior.new_zeros(blocks, rows + 1, d)
    with_ones = torch.cat([values, values.new_ones(*values.shape[:2], 1)], 2).transpose(1, 2)  # for the vectors' sum
    shift, count = None, 0
    with products_in(dtype):
        for vectors in _vectors(call, patches):
            if shift is None:  # sums around an estimate of the mean: float32 suffices
                shift = vectors[:, :FEW].to(prior.dtype).mean(1) if intercept else prior.new_zeros(blocks, d)
            centred = vectors - shift[:, None]
            _add_gram(gram, centred, STRIPE if dtype == torch.float32 else d)
            cross.baddbmm_(with_ones[:, :, count : count + centred.shape[1]], centred)
            count += centred.shape[1]
    assert shift is not None
    gram = gram.triu_() + gram.triu(1).transpose(1, 2)
    gram, cross, first = gram / count, cross[:, :rows] / count, cross[:, rows] / count
    covariance = gram - first[:, :, None] * first[:, None, :]
    solved = solve_ridge(covariance if intercept else gram, cross, prior, count)
    return solved, shift + first, ((solved @ covariance) * solved).sum(2)


def _add_gram(gram: Tensor, vectors: Tensor, stripe: int) -> None:
    """Add the upper triangle of `vectors^T vectors`, in place; the rest follows by symmetry.

    Args:
        gram: `(blocks, d, d)`.
        vectors: `(blocks, n, d)`.
        stripe: Rows computed at a time; matrix units are fastest with all rows at once.
    """
    for start in range(0, gram.shape[1], stripe):
        rows = vectors[:, :, start : start + stripe].transpose(1, 2)
        gram[:, start : start + stripe, start:].baddbmm_(rows, vectors[:, :, start:])


def _fit_samples(
    call: Call, patches: Patches, values: Tensor, prior: Tensor, intercept: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same for inputs with more elements than samples, using at most `LONGEST_GRAM` samples."""
    vectors = torch.cat(list(_vectors(call, patches)), 1).to(prior.dtype)
    if vectors.shape[1] > LONGEST_GRAM:
        chosen = torch.linspace(0, vectors.shape[1] - 1, LONGEST_GRAM).long().to(vectors.device)
        vectors, values = vectors[:, chosen], values[:, chosen]
    mean = vectors.mean(1)
    centred = vectors - mean[:, None] if intercept else vectors
    kernel = centred @ centred.transpose(1, 2) / centred.shape[1]
    missing = values.transpose(1, 2) - prior @ centred.transpose(1, 2)
    samples, inputs = centred.shape[1:]
    pull = (kernel.diagonal(dim1=1, dim2=2).sum(1) / inputs).clamp(min=torch.finfo(kernel.dtype).eps ** 2)
    pull = relative_pull(inputs, samples) * pull
    system = kernel + pull[:, None, None] * torch.eye(kernel.shape[1], device=kernel.device, dtype=kernel.dtype)
    solved = prior + torch.linalg.solve(system, missing, left=False) @ centred / samples
    return solved, mean, (solved @ (vectors - mean[:, None]).transpose(1, 2)).square().mean(2)
