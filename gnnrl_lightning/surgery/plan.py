"""A plan: the channels of a traced network that are kept, and what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from gnnrl_lightning.surgery.surgery import NOTHING, Cut, Dependents, mask, prune
from gnnrl_lightning.tracing.axes import Selection


@dataclass(frozen=True)
class Plan:
    """A selection of channels to keep.

    Attributes:
        kept: Group name -> kept indices: `(width,)`, or `(sets, width)` for a group of several index sets.
        widths: The widths `(G,)`.
        selection: The same channels in the form that surgery reads.
    """

    kept: dict[str, Tensor]
    widths: Tensor
    _cuts: dict[str, Cut]
    selection: Selection
    _dependents: Dependents = NOTHING

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{name}: {ranks.shape[-1]}' for name, ranks in self.kept.items())})"

    def apply(self, network: nn.Module) -> nn.Module:
        """Return the pruned network, a new module of the same class; the given network is not modified.

        Raises:
            UserError: The network is not the traced one.
        """
        return prune(network, self._cuts, self.selection, self._dependents)

    def mask(self, network: nn.Module) -> nn.Module:
        """Return a copy of the dense network whose consumers ignore the removed channels: the reference for tests.

        Raises:
            UserError: The network is not the traced one.
        """
        return mask(network, self._cuts, self.selection, self._dependents)
