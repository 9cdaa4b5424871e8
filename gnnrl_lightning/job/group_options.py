"""Options for single layers: those to keep, limits on the widths of the others, and masked weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from gnnrl_lightning.checks import shown
from gnnrl_lightning.cost.ranges import GroupLimit
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.tracer import trace
from gnnrl_lightning.trees import Tree


@dataclass(frozen=True)
class GroupOptions:
    """The parts of a network that may be pruned.

    Args:
        keep: Layers to leave unchanged in all dimensions, so that their inputs and outputs keep all channels: names
            of modules or parameters, globs (`layer1.*`), or import paths of module types (`torch.nn.ConvTranspose2d`).
        limits: Lowest and highest width by name of a group, name of a module that produces its channels, or glob; each
            a share of the dense width or a number of channels, for example `{"layer3.*": {min: 25%, max: 48}}`.
        masks: Linear layers whose smallest weights may be zero, besides channels: names of modules, globs, or import
            paths of module types (`torch.nn.Linear`). `budget.nonzero` limits the parameters that stay, and the agent
            chooses a share for each layer, see `gnnrl_lightning.surgery.masks`.
    """

    keep: Sequence[str] = ()
    limits: Mapping[str, GroupLimit] = field(default_factory=dict)
    masks: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse a single name in place of a list."""
        for name in ("keep", "masks"):
            given = getattr(self, name)
            if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
                example = f", [{given}]" if isinstance(given, str) and given.isprintable() else ""
                raise UserError(f"groups.{name} is {shown(given)}: expected a list of names{example}")
        if not isinstance(self.limits, Mapping):
            raise UserError(f"groups.limits is {shown(self.limits)}: expected {{group: {{min: ..., max: ...}}}}")

    def trace(self, network: nn.Module, example: Tree) -> ComputationGraph:
        """Trace the network's computational graph, with these layers kept and these limits.

        Args:
            network: The dense network.
            example: Its normalised input, for instance an image `(1, C, H, W)`.
        """
        return trace(network, example, keep=self.keep, limits=self.limits, masks=self.masks)
