"""Repairs of a sliced network, applied before it is scored, or fine-tuned and delivered.

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
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.registry import Registry, as_callable
from gnnrl_lightning.repair.batchnorm import predict_batch_norm, reestimate_batch_norm
from gnnrl_lightning.repair.dense import Dense
from gnnrl_lightning.repair.reconstruction import reconstruct
from gnnrl_lightning.repair.refit import refit
from gnnrl_lightning.tracing.axes import Selection


@dataclass(frozen=True)
class Repair:
    """A repair of a sliced network.

    Attributes:
        apply: `(dense, pruned network, selection)`, repairs the pruned network in place.
        reads_examples: Whether it passes the calibration examples through each candidate; each of these passes counts.
        passes: Results that it needs from passes of the dense network over the calibration examples: `moments`,
            `recording`, or other names; each name counts once.
    """

    apply: Callable[[Dense, nn.Module, Selection], None]
    reads_examples: bool
    passes: tuple[str, ...] = ()


EXPECTED = "(dense, pruned network, selection), which repairs the pruned network in place"
"""What is expected of a repair of the user's own, for messages."""


def _slice(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Do not repair the sliced network."""


def _batch_norm(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Re-estimate the batch norms on the calibration examples."""
    with activations_in(dense.dtype, dense.device):
        reestimate_batch_norm(pruned, dense.batches())


def _predict(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Set the batch norms' statistics in closed form: no pass over examples."""
    predict_batch_norm(dense.network, pruned, dense.layers, dense.moments, selection)


def _reconstruct(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Refit the consumers from the dense network's moments, then predict batch norms: no pass over examples."""
    reconstruct(dense.network, pruned, dense.layers, dense.moments, selection)
    _predict(dense, pruned, selection)


def _refit(dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Refit layer by layer to the pruned network's actual inputs."""
    refit(pruned, dense.layers, selection, dense.recording, dense.dtype)


def _as_repair(given: Any) -> Repair:
    """Return a row unchanged, or make a row from a function, which counts one pass over the examples per candidate."""
    if isinstance(given, Repair):
        return given
    return Repair(as_callable(given, f"a Repair, or a function {EXPECTED}", 3), reads_examples=True)


REPAIRS: Registry[Repair] = Registry("repair", _as_repair)
"""Name -> repair.

On CIFAR-10 with ResNet-56 (93.6 % top-1) and halved convolution-1 widths, the rows below reach 40, 79, 82, 88 and 90 %
top-1 in this order, before fine-tuning. If residual streams are pruned too, only `refit` retains most of the accuracy:
94 % on training images at half of the MACs in all groups, compared with 62 % for `reconstruction` and 53 % for
`batch_norm`.
"""

REPAIRS.register("none", Repair(_slice, reads_examples=False))
REPAIRS.register("predicted_batch_norm", Repair(_predict, reads_examples=False, passes=("moments",)))
REPAIRS.register("batch_norm", Repair(_batch_norm, reads_examples=True))
REPAIRS.register("reconstruction", Repair(_reconstruct, reads_examples=False, passes=("moments",)))
REPAIRS.register("refit", Repair(_refit, reads_examples=True, passes=("recording",)))


def apply_repair(repair: Repair, dense: Dense, pruned: nn.Module, selection: Selection) -> None:
    """Repair a sliced network in place; it is in evaluation mode afterwards.

    Args:
        repair: The repair.
        dense: The dense network, with what the repair reads.
        pruned: The sliced network.
        selection: The channels that it keeps.

    Raises:
        UserError: A repair of the user's own fails, or returns another network in place of changing this one.
    """
    name = Registry.name_of(repair.apply)
    with REPAIRS.calling(repair, name, EXPECTED):
        found: Any = repair.apply(dense, pruned, selection)
    if found is not None and found is not pruned:
        raise UserError(f"repair {name} returns a {type(found).__name__}, which nothing reads: expected {EXPECTED}")
    pruned.eval()
