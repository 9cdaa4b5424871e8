"""Repairs: what is done to a sliced network before it is scored, or fine-tuned and delivered.

```
REPAIRS.register("mine", my_repair)  # then by name in Python and YAML
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from gnnrl_lightning.calibration.precision import activations_in
from gnnrl_lightning.networks.norms import BATCH_NORMS
from gnnrl_lightning.registry import Registry, as_callable
from gnnrl_lightning.repair.batchnorm import predict_batch_norm, reestimate_batch_norm
from gnnrl_lightning.repair.dense import Dense
from gnnrl_lightning.repair.reconstruction import reconstruct
from gnnrl_lightning.repair.refit import refit
from gnnrl_lightning.tracing.axes import Selection


@dataclass(frozen=True)
class Repair:
    """A way to repair a sliced network.

    Attributes:
        apply: Repairs the network in place: `(dense, pruned network, selection)`.
        reads_images: Whether it passes the calibration images through each candidate, which counts for each.
        passes: What it needs to know of the dense network, from a pass over the calibration images each: `moments`,
            `recording`, or a name of its own; each name is paid for once.
    """

    apply: Callable[[Dense, nn.Module, Selection], None]
    reads_images: bool
    passes: tuple[str, ...] = ()


def _slice(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Leave the sliced network as it is."""


def _batch_norm(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Re-estimate the batch norms on the calibration images."""
    with activations_in(dense.dtype, dense.device):
        reestimate_batch_norm(pruned, dense.batches())


def _predict(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Set the batch norms' statistics in closed form: no pass over images."""
    predict_batch_norm(dense.network, pruned, dense.layers, dense.moments, selection)


def _reconstruct(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Re-fit the consumers from the dense network's moments, then predict: no pass over images."""
    reconstruct(dense.network, pruned, dense.layers, dense.moments, selection)
    _predict(dense, pruned, selection)


def _refit(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Re-fit layer by layer on what the pruned network really reads."""
    refit(pruned, dense.layers, selection, dense.recording, dense.dtype)


def _as_repair(given: Any) -> Repair:
    """A row as it is, or one of a function, for which a pass over the images is counted for each candidate."""
    if isinstance(given, Repair):
        return given
    return Repair(as_callable(given, "a Repair, or a function (dense, pruned network, selection)"), reads_images=True)


REPAIRS: Registry[Repair] = Registry("repair", _as_repair)
"""Name -> repair.

On CIFAR-10 with ResNet-56, convolution-1 widths halved, they leave 40, 79, 82, 88 and 90 % top-1 of 93.6 before any
fine-tuning. Where residual streams are narrowed too, only `refit` leaves much: 94 % on training images at half of the
MACs in all groups, where `reconstruction` leaves 62 and `batch_norm` 53.
"""

REPAIRS.register("none", Repair(_slice, reads_images=False))
REPAIRS.register("predicted_batch_norm", Repair(_predict, reads_images=False, passes=("moments",)))
REPAIRS.register("batch_norm", Repair(_batch_norm, reads_images=True))
REPAIRS.register("reconstruction", Repair(_reconstruct, reads_images=False, passes=("moments",)))
REPAIRS.register("refit", Repair(_refit, reads_images=True, passes=("recording",)))


def default_repair(network: nn.Module) -> str:
    """The cheapest repair whose scores tell how good candidates will be once they are fine-tuned.

    As far as was measured: `batch_norm` leaves much less than `refit` does, and its tau with the accuracy after
    fine-tuning lies within the interval of the best score, for a fraction of the time. (If you will not fine-tune,
    `refit` ranks candidates better.) Without batch norms it would leave the sliced network as it is, whose scores tell
    little: then it is `refit`.

    Args:
        network: The dense network.
    """
    norms = (module for module in network.modules() if isinstance(module, BATCH_NORMS))
    return "batch_norm" if any(norm.track_running_stats for norm in norms) else "refit"
