"""Which modules are batch norms."""

from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Modules that normalise by statistics over a batch, with running averages of them."""
