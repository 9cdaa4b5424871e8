"""A plan: the channels of a traced network that are kept, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from gnnrl_lightning.checks import instance
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.surgery.masks import mask_smallest
from gnnrl_lightning.surgery.surgery import NOTHING, Cut, Dependents, mask, prune
from gnnrl_lightning.tracing.axes import Selection

TRACED = "give the network that was traced, or trace this one (a pruned network has channel groups of its own)"


@dataclass(frozen=True)
class Plan:
    """A selection of channels to keep.

    Attributes:
        kept: Group name -> kept indices: `(width,)`, or `(sets, width)` for a group of several index sets.
        widths: The widths `(G,)`.
        selection: The same channels in the form that surgery reads.
        masks: Name of a masked weight -> how many of its parts stay, see `gnnrl_lightning.surgery.masks`.
    """

    kept: dict[str, Tensor]
    widths: Tensor
    _cuts: Mapping[str, Cut]
    selection: Selection
    _dependents: Dependents = NOTHING
    _shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    masks: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        widths = {name: ranks.shape[-1] for name, ranks in self.kept.items()} | dict(self.masks)
        return f"Plan({', '.join(f'{name}: {width}' for name, width in widths.items())})"

    def apply(self, network: nn.Module) -> nn.Module:
        """Return the pruned network, a new module of the same class; the given network is not modified.

        Raises:
            UserError: The network is not the traced one.
        """
        pruned = self.slice(network)
        mask_smallest(pruned, self.masks)
        return pruned

    def slice(self, network: nn.Module) -> nn.Module:
        """Return the network without the removed channels, and without zeros of masks: a repair comes before these.

        Raises:
            UserError: The network is not the traced one.
        """
        check_traced(network, self._shapes)
        return prune(network, self._cuts, self.selection, self._dependents)

    def mask(self, network: nn.Module) -> nn.Module:
        """Return a copy of the dense network whose consumers ignore the removed channels: the reference for tests.

        Raises:
            UserError: The network is not the traced one.
        """
        check_traced(network, self._shapes)
        return mask(network, self._cuts, self.selection, self._dependents)


def shapes_of(network: nn.Module, buffers: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of a network and of some of its buffers, by name; a buffer that it lacks is left out."""
    held = dict(network.named_buffers())
    tensors = {**dict(network.named_parameters()), **{name: held[name] for name in buffers if name in held}}
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_traced(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a network with other parameters than the traced one.

    Args:
        network: The network.
        shapes: Shapes of the traced network's parameters and pruned buffers, see `shapes_of`.

    Raises:
        UserError: It is not a network, one of them is missing or has another shape, or it has a further parameter.
    """
    instance("network", network, nn.Module, "the network that was traced")
    name, found = type(network).__name__, shapes_of(network, shapes)
    for path in [*shapes, *found]:
        if path not in found:
            raise UserError(f"{name} has no {path}, which the traced network has: {TRACED}")
        if path not in shapes:
            raise UserError(f"{name} has {path}, which the traced network does not have: {TRACED}")
        if found[path] != shapes[path]:
            raise UserError(f"{path} of {name} has the shape {found[path]}, unlike the traced network's: {TRACED}")
