"""Module types of batch norms."""

from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Module types that normalise with batch statistics and keep running averages of them."""
