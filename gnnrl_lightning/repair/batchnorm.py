"""Batch-norm statistics of a pruned network, re-estimated on calibration examples or in closed form.

Pruning shifts the statistics of all later layers; with the dense network's statistics, a pruned network collapses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.moments import Moments
from gnnrl_lightning.calibration.observe import named_tensors
from gnnrl_lightning.networks.modes import eval_mode
from gnnrl_lightning.networks.norms import BATCH_NORMS
from gnnrl_lightning.surgery.layers import Layer, columns, to_matrices
from gnnrl_lightning.surgery.vanished import ConstantNorm
from gnnrl_lightning.tracing.axes import Selection
from gnnrl_lightning.trees import Tree, call


def reestimate_batch_norm(network: nn.Module, batches: Iterable[Tree]) -> None:
    """Replace the running statistics of every batch norm by their averages over the given batches, in place.

    Only the batch norms run in training mode; dropout is off. The modules' modes are restored afterwards. A norm that
    reads a constant keeps its variance.

    Args:
        network: The pruned network.
        batches: Normalised inputs, see `gnnrl_lightning.trees.call`, on the network's device; B > 1.
    """
    norms = [module for module in network.modules() if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    constant = [module for module in network.modules() if isinstance(module, ConstantNorm)]
    if not norms and not constant:
        return
    momenta = [norm.momentum for norm in norms]
    hooks = [norm.register_forward_pre_hook(_Averaging()) for norm in norms]
    centring = [norm.register_forward_pre_hook(_centre) for norm in constant]
    try:
        with eval_mode(network), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.train()
            for batch in batches:
                call(network, batch)
    finally:
        for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
            norm.momentum = momentum
            hook.remove()
        for hook in centring:
            hook.remove()


def _centre(norm: ConstantNorm, inputs: tuple[Tensor, ...]) -> None:
    """Make the constant that a norm reads its running mean: its output is then its bias, the mean over examples."""
    norm.running_mean.copy_(norm.constant(inputs[0]))


class _Averaging:
    """A forward pre-hook that weights all calls of a batch norm equally.

    PyTorch's own cumulative average (`momentum=None`) reads the number of calls from the device each time.
    """

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, norm: Any, inputs: Any) -> None:
        self.calls += 1
        norm.momentum = 1 / self.calls


def predict_batch_norm(
    dense: nn.Module,
    pruned: nn.Module,
    layers: Mapping[str, Layer],
    moments: Mapping[str, Moments],
    selection: Selection,
) -> None:
    """Set the statistics of every batch norm after a consumer of pruned channels in closed form, in place.

    With the kept inputs S, mean m and covariance C of the inputs, the outputs of a layer have

        mean = W_S m_S + b,    variance = diag(W_S C[S, S] W_S^T),

    relative to the same values of the dense layer and its running statistics, so that S = all changes nothing. Changes
    in earlier layers are ignored: the inputs are those of the dense network. Statistics after a depthwise convolution
    are unchanged, as are those after a layer without inputs.

    Args:
        dense: The dense network.
        pruned: The pruned network, sliced or reconstructed.
        layers: Layers of the dense network.
        moments: Moments of their inputs.
        selection: The kept channels.
    """
    old, new = named_tensors(dense), named_tensors(pruned)
    chosen = {
        name: layer
        for name, layer in layers.items()
        if layer.blocks and name in moments and name in new and {"running_mean", "running_var"} <= layer.norm.keys()
    }
    with torch.no_grad():
        for name, layer in chosen.items():
            rows = layer.rows(selection, len(layer.standard(old[name]))).to(old[name].device)
            mean, variance = _output_moments(layer, old[name], old.get(layer.bias or ""), moments[name], None)
            kept = _output_moments(layer, new[name], new.get(layer.bias or ""), moments[name], selection)
            running = layer.norm["running_mean"], layer.norm["running_var"]
            new[running[0]].copy_(old[running[0]][rows] + kept[0] - mean[rows])
            tiny = torch.finfo(variance.dtype).tiny
            new[running[1]].copy_(old[running[1]][rows] * kept[1] / variance[rows].clamp(min=tiny))


def _output_moments(
    layer: Layer, weight: Tensor, bias: Tensor | None, moments: Moments, selection: Selection | None
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each output of a layer; kernel positions with separate rows count as independent."""
    weight = layer.standard(weight)
    length = moments.mean.shape[1]
    mean, covariance = moments.mean, moments.covariance
    if selection is not None:
        kept = [columns(axis.positions(selection), axis.length, length).to(mean.device) for axis in layer.blocks]
        mean = torch.stack([row[index] for row, index in zip(mean, kept, strict=True)])
        covariance = torch.stack([c[index][:, index] for c, index in zip(covariance, kept, strict=True)])
    matrices = to_matrices(weight, len(mean), mean.shape[1])
    first = torch.einsum("brd,bd->br", matrices, mean).reshape(len(weight), -1).sum(1)
    second = ((matrices @ covariance) * matrices).sum(2).reshape(len(weight), -1).sum(1)
    return first if bias is None else first + bias, second
