"""Batch-norm statistics of a pruned network, re-estimated on calibration images.

Pruning shifts the statistics of everything downstream; with the dense network's statistics a pruned network collapses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def fresh_batch_norms(network: nn.Module) -> Iterator[None]:
    """Within this context every forward pass adds to the batch norms' statistics, which start afresh.

    Only the batch norms run in training mode: dropout stays off. Afterwards the training mode is as it was.

    Args:
        network: The pruned network.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training


def reestimate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by their averages over the given batches, in place.

    Args:
        network: The pruned network; its training mode is left as it was.
        batches: Normalised images `(B, C, H, W)` on the network's device; B > 1.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return
    with fresh_batch_norms(network), torch.no_grad():
        for batch in batches:
            network(batch)
