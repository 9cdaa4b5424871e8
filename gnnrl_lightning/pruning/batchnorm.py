"""Batch-norm statistics of a pruned network, re-estimated on calibration images.

Pruning shifts the statistics of everything downstream; with the dense network's statistics a pruned network collapses.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def reestimate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by their averages over the given batches, in place.

    Only the batch norms run in training mode: dropout stays off.

    Args:
        network: The pruned network; its training mode is left as it was.
        batches: Normalised images `(B, C, H, W)` on the network's device; B > 1.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    try:
        with torch.no_grad():
            for batch in batches:
                network(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
