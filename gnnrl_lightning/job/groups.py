"""What the user says about single layers: which stay as they are, and how wide the others may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from gnnrl_lightning.cost.ranges import GroupLimit
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph, trace


@dataclass(frozen=True)
class GroupOptions:
    """What may be pruned of a network.

    Args:
        keep: Layers that stay exactly as they are, in all dimensions: names of modules or parameters, globs over these
            (`layer1.*`), or import paths of module types (`torch.nn.ConvTranspose2d`). What they read and make is kept.
        limits: Lowest and highest width by name of a group, or of a module that makes channels of it, or glob; for
            example `{"layer3.*": {min: 25%, max: 48}}`, each a share of the dense width or channels.
    """

    keep: Sequence[str] = ()
    limits: Mapping[str, GroupLimit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse one name where a list of them is expected."""
        if isinstance(self.keep, str):
            raise UserError(f"groups.keep is {self.keep!r}: expected a list of names, [{self.keep}]")

    def trace(self, network: nn.Module, example: Tensor) -> ComputationGraph:
        """The network's computational graph, with what is kept and limited.

        Args:
            network: The dense network.
            example: An image that it takes, `(1, C, H, W)`.
        """
        return trace(network, example, keep=self.keep, limits=self.limits)
