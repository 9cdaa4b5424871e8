"""Evaluation as in the published GNN-RL code: masks on the weights, at the full cost of the dense network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from gnnrl_lightning import ComputationGraph
from gnnrl_lightning.data import ImageSet

BATCH = 256


def masked(graph: ComputationGraph, network: nn.Module, widths: Tensor) -> nn.Module:
    """A copy of the network in which the filters with the smallest l2 norms are masked.

    Args:
        graph: The traced network.
        network: The dense network.
        widths: Width of each group `(G,)`.
    """
    copied = copy.deepcopy(network).eval()
    for group, width in zip(graph.groups, widths.tolist(), strict=True):
        for member in group.members:
            path, _, parameter = member.parameter.rpartition(".")
            module = copied.get_submodule(path)
            if member.role == "output" and parameter == "weight" and isinstance(module, nn.Conv2d):
                if not prune.is_pruned(module):
                    prune.ln_structured(module, "weight", amount=group.width - width, n=2, dim=0)
    return copied


def evaluate(
    graph: ComputationGraph,
    network: nn.Module,
    widths: Tensor,
    images: ImageSet,
    normalize: Callable[[Tensor], Tensor],
) -> float:
    """Top-1 of a candidate in percent, on the network's device: float32, channels first, batches of 256."""
    candidate, correct = masked(graph, network, widths), 0
    device = next(network.parameters()).device
    with torch.no_grad():
        for pixels, labels in zip(images.images.split(BATCH), images.labels.split(BATCH), strict=True):
            correct += int((candidate(normalize(pixels.to(device))).argmax(1) == labels.to(device)).sum())
    return 100 * correct / len(images)
