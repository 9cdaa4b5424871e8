"""Consumers of pruned channels, re-fitted so that they miss them least.

For the kept inputs S of a weight W with input mean m and covariance C, least squares with a pull towards W gives

    W_S = (W C[:, S] + l W[:, S]) (C[S, S] + l I)^-1,    b_S = b + W m - W_S m[S],

l being `RIDGE` times the mean diagonal of C[S, S]. With S = all it is W. `reconstruct` does it from the dense network's
moments, without another pass over images; `refit` does it layer by layer while the pruned network runs, with what each
layer then really reads, towards what the dense network's layer gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from gnnrl_lightning.graph.axes import Selection
from gnnrl_lightning.graph.walk import Contraction
from gnnrl_lightning.pruning.observe import Call, ContractionObserver, named_weights, sample_patches
from gnnrl_lightning.pruning.statistics import MAX_VECTOR, POSITIONS, Moments
from gnnrl_lightning.pruning.surgery import Cut

RIDGE = 1e-3
"""Pull towards the dense weights, relative to the mean variance of the kept inputs."""

Norms = Mapping[str, Mapping[str, str]]
"""Node of a contraction -> parameters of the norm that alone reads it, by role."""


def solve_kept(weight: Tensor, moments: Moments, kept: Tensor, block: int = 0) -> tuple[Tensor, Tensor]:
    """Least-squares weights for the kept inputs.

    Args:
        weight: Flattened weight `(rows, d)` of one block.
        moments: Moments of its inputs.
        kept: Indices of the kept elements of the input vector `(k,)`.
        block: Block of the moments.

    Returns:
        Weights `(rows, k)` and what is missing on average `(rows,)`.
    """
    mean, covariance = moments.mean[block], moments.covariance[block]
    system = covariance[kept][:, kept]
    pull = RIDGE * system.diagonal().mean().clamp(min=torch.finfo(system.dtype).tiny)
    right = weight @ covariance[:, kept] + pull * weight[:, kept]
    solved = torch.linalg.solve(system + pull * torch.eye(len(kept), device=system.device), right, left=False)
    return solved, weight @ mean - solved @ mean[kept]


def reconstruct(
    dense: nn.Module,
    pruned: nn.Module,
    contractions: Iterable[Contraction],
    cuts: Mapping[str, Cut],
    norms: Norms,
    moments: Mapping[str, Moments],
    selection: Selection,
) -> None:
    """Re-fit every consumer of the pruned network, in place, from the dense network's moments.

    What the refitted weights miss on average goes into the bias, or into the running mean of the batch norm that alone
    reads the outputs; without either it is lost.

    Args:
        dense: The dense network.
        pruned: The pruned network, as surgery left it.
        contractions: Contractions of the trace.
        cuts: How each parameter shrinks.
        norms: Norm behind each contraction.
        moments: Moments of the dense network's inputs, see `collect_moments`.
        selection: The channels that stay.
    """
    consumers = [item for item in contractions if item.weight in moments and _reads_pruned(item, cuts)]
    old, new = (named_weights(net, [item.weight for item in consumers if item.weight]) for net in (dense, pruned))
    tensors = dict(pruned.named_parameters(remove_duplicate=False)) | dict(pruned.named_buffers())
    with torch.no_grad():
        for item in consumers:
            assert item.weight is not None
            shift = _reconstruct_one(
                item, old[item.weight].detach(), new[item.weight], cuts[item.weight], moments[item.weight], selection
            )
            running = norms.get(item.node, {}).get("running_mean")
            if item.bias is not None:
                tensors[item.bias].add_(shift)
            elif running is not None:
                tensors[running].sub_(shift)


def _reads_pruned(contraction: Contraction, cuts: Mapping[str, Cut]) -> bool:
    cut = cuts.get(contraction.weight or "")
    return cut is not None and bool(cut.blocks or (0 if contraction.transposed else 1) in cut.axes)


def _reconstruct_one(
    contraction: Contraction, old: Tensor, new: Tensor, cut: Cut, moments: Moments, selection: Selection
) -> Tensor:
    """Re-fit one weight in place; returns what it misses on average, for each of its outputs."""
    if contraction.transposed:
        old, new = old.transpose(0, 1), new.transpose(0, 1)
        rows_axis, columns = cut.axes.get(1), [cut.axes[0].positions(selection)]
    else:
        rows_axis = cut.axes.get(0)
        columns = [axis.positions(selection) for axis in cut.blocks or (cut.axes[1],)]
    rows = torch.arange(len(old)) if rows_axis is None else rows_axis.positions(selection)
    block_of = rows // (len(old) // len(columns))
    spatial = old[0, 0].numel() // moments.inner
    shift = torch.empty(len(rows), dtype=new.dtype, device=new.device)
    for block, kept in enumerate(columns):
        mine = (block_of == block).nonzero().flatten()
        weight = _flatten(old[rows[mine]], moments.inner, spatial)
        index = (kept[:, None] * moments.inner + torch.arange(moments.inner)).flatten().to(weight.device)
        solved, missing = solve_kept(weight, moments, index, block)
        new[mine] = _unflatten(solved, (len(mine), len(kept), *old.shape[2:]), moments.inner)
        shift[mine] = missing.reshape(len(mine), spatial).sum(1)
    return shift


def _flatten(weight: Tensor, inner: int, spatial: int) -> Tensor:
    """`(rows, C, *kernel)` as `(rows * spatial, C * inner)`: kernel positions are outputs where inner is 1."""
    if inner > 1 or spatial == 1:
        return weight.flatten(1)
    return weight.flatten(2).transpose(1, 2).reshape(-1, weight.shape[1])


def _unflatten(weight: Tensor, shape: tuple[int, ...], inner: int) -> Tensor:
    if inner > 1 or weight.shape[0] == shape[0]:
        return weight.reshape(shape)
    return weight.reshape(shape[0], -1, shape[1]).transpose(1, 2).reshape(shape)


def refit(
    dense: nn.Module,
    pruned: nn.Module,
    contractions: Iterable[Contraction],
    cuts: Mapping[str, Cut],
    selection: Selection,
    images: Tensor,
    per_image: int = POSITIONS,
) -> None:
    """Re-fit every consumer of the pruned network, in place, layer by layer, to what it then really reads.

    The dense network runs once and leaves its layers' outputs at sampled positions; then the pruned network runs
    once, and each layer's weight is replaced by the least-squares fit of the dense outputs on its own inputs just before
    it is used. Put the batch norms in training mode (`fresh_batch_norms`) to re-estimate their statistics on the way.
    Memory grows with the images, which pass in one batch: for CIFAR ResNets about 1 MB an image.

    Source: asymmetric reconstruction as in Zhang et al. (TPAMI 2016), He et al. (ICCV 2017), for channel pruning.

    Args:
        dense: The dense network in evaluation mode.
        pruned: The pruned network.
        contractions: Contractions of the trace; grouped, transposed and very long ones are left as they are.
        cuts: How each parameter shrinks.
        selection: The channels that stay.
        images: Calibration images `(N, C, H, W)`.
        per_image: Positions sampled from each image.
    """
    names = [item.weight for item in contractions if item.weight is not None and _can_refit(item, dense, cuts)]
    targets: dict[str, Tensor] = {}
    seeds = {name: torch.Generator() for name in names}

    def positions(name: str) -> torch.Generator:
        return seeds[name].manual_seed(names.index(name))

    def remember(name: str, call: Call) -> None:
        targets[name] = sample_patches(call, per_image, positions(name)) @ call["weight"].flatten(1).T

    def replace(name: str, call: Call) -> None:
        weight, cut = call["weight"], cuts[name]
        inputs = sample_patches(call, per_image, positions(name))
        rows = cut.axes[0].positions(selection) if 0 in cut.axes else torch.arange(len(weight))
        target = targets.pop(name)[:, rows.to(inputs.device)]
        weight.copy_(_fit(inputs, target, weight.flatten(1)).reshape(weight.shape))

    with torch.no_grad():
        with ContractionObserver(named_weights(dense, names), remember):
            dense(images)
        with ContractionObserver(named_weights(pruned, names), replace):
            pruned(images)


def _can_refit(contraction: Contraction, network: nn.Module, cuts: Mapping[str, Cut]) -> bool:
    if contraction.weight is None or contraction.weight not in cuts or contraction.groups > 1 or contraction.transposed:
        return False
    weight = network.get_parameter(contraction.weight)
    return weight.dim() <= 4 and weight[0].numel() <= MAX_VECTOR


def _fit(inputs: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weights `(rows, d)` that map centred inputs `(n, d)` to centred targets `(n, rows)`, pulled towards `weight`."""
    centred = inputs - inputs.mean(0)
    gram = centred.T @ centred / len(inputs)
    pull = RIDGE * gram.diagonal().mean().clamp(min=torch.finfo(gram.dtype).tiny)
    right = centred.T @ (target - target.mean(0)) / len(inputs) + pull * weight.T
    return torch.linalg.solve(gram + pull * torch.eye(len(gram), device=gram.device), right).T
