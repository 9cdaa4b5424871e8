"""Physical pruning by precomputed slices.

Every parameter and buffer with prunable channels has one `Axis` per dimension; pruning takes a few index operations
per tensor. The pruned network is a structural copy of the user's: the modules are copied, the pruned tensors replace
the dense ones wherever these occur, and size attributes of modules are updated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter

import torch
from torch import Tensor, nn

from gnnrl_lightning.networks.attention import MultiheadAttention, fit_attention, is_replaced, unfuse
from gnnrl_lightning.surgery.reference import summarise_kept
from gnnrl_lightning.surgery.vanished import STANDING_IN, replace_vanished
from gnnrl_lightning.tracing.axes import Axis, Selection
from gnnrl_lightning.tracing.numbers import set_number
from gnnrl_lightning.tracing.program.copies import structural_copy
from gnnrl_lightning.tracing.records import ModuleSize, Statistic

SIZES: dict[type[nn.Module], tuple[tuple[str, str, int], ...]] = {
    nn.Linear: (("out_features", "weight", 0), ("in_features", "weight", 1)),
    nn.Bilinear: (("out_features", "weight", 0), ("in1_features", "weight", 1), ("in2_features", "weight", 2)),
    nn.Embedding: (("num_embeddings", "weight", 0), ("embedding_dim", "weight", 1)),
    nn.modules.batchnorm._NormBase: (("num_features", "running_mean", 0), ("num_features", "weight", 0)),
    nn.PReLU: (("num_parameters", "weight", 0),),
    nn.Transformer: (("d_model", "encoder.layers.0.linear1.weight", 1),),
}
"""Module type -> (attribute, parameter, dimension): attributes of a module that record sizes of its parameters."""


@dataclass(frozen=True)
class Cut:
    """How one parameter or buffer is pruned.

    Attributes:
        axes: Axis of each prunable dimension.
        blocks: For the weight of a grouped convolution: one axis per block, along dimension 1.
        reads: Dimensions along which channels are read; masking sets pruned channels to zero along these.
        gather: For an index buffer: axis of the channels that it indexes; pruning renumbers its entries.
        zero: For an index buffer: position of a channel that is always zero, or -1.
    """

    axes: Mapping[int, Axis]
    blocks: tuple[Axis, ...] = ()
    reads: tuple[int, ...] = ()
    gather: Axis | None = None
    zero: int = -1


@dataclass(frozen=True)
class Dependents:
    """What depends on the kept channels beside parameters and buffers, each with the layout of its channels.

    Attributes:
        sizes: Numbers that modules hold.
        summaries: Operators that summarise channels; a masked network computes them from the kept ones.
        norms: Path of a layer -> path of the batch norm that is its only reader, and reads nothing else.
        readers: Path of a norm -> paths of the layers that alone read it.
        written: Paths of the modules into whose outputs the network's code writes.
    """

    sizes: tuple[tuple[ModuleSize, Axis], ...] = ()
    summaries: tuple[tuple[Statistic, Axis], ...] = ()
    norms: Mapping[str, str] = field(default_factory=dict)
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    written: frozenset[str] = frozenset()


NOTHING = Dependents()
"""For networks whose modules hold no sizes and that summarise no channels."""


def prune_tensor(tensor: Tensor, cut: Cut, positions: Mapping[Axis, Tensor]) -> Tensor:
    """Return the kept part of a tensor; `positions` are the kept positions of each axis."""
    if cut.gather is not None:
        tensor = _renumber(tensor, cut, positions[cut.gather])
    rows = positions[cut.axes[0]] if 0 in cut.axes else None
    if cut.blocks:
        return _prune_blocks(tensor, cut, rows, positions)
    if rows is not None and 1 in cut.axes:
        columns = positions[cut.axes[1]]
        tensor = tensor.index_select(0, rows.to(tensor.device)).index_select(1, columns.to(tensor.device))
    for dim, axis in cut.axes.items():
        if rows is None or 1 not in cut.axes or dim > 1:
            tensor = tensor.index_select(dim, positions[axis].to(tensor.device))
    return tensor


def _renumber(index: Tensor, cut: Cut, kept: Tensor) -> Tensor:
    """Renumber index entries to the new positions of kept channels; entries of pruned ones read the zero channel."""
    assert cut.gather is not None
    place = torch.full((cut.gather.length,), -1, dtype=index.dtype, device=kept.device)
    place[kept] = torch.arange(len(kept), dtype=index.dtype, device=kept.device)
    if cut.zero >= 0:
        place = torch.where(place < 0, place[cut.zero], place)
    return place.to(index.device)[index]


def _prune_blocks(tensor: Tensor, cut: Cut, rows: Tensor | None, positions: Mapping[Axis, Tensor]) -> Tensor:
    """Prune the weight of a grouped convolution: each block of filters keeps its own input channels."""
    device = positions[cut.blocks[0]].device
    rows = torch.arange(len(tensor), device=device) if rows is None else rows
    columns = torch.stack([positions[axis] for axis in cut.blocks])[rows // (len(tensor) // len(cut.blocks))]
    columns = columns.to(tensor.device).reshape(*columns.shape, *(1,) * (tensor.dim() - 2))
    taken = tensor.index_select(0, rows.to(tensor.device))
    return taken.gather(1, columns.expand(-1, -1, *tensor.shape[2:]))


def mask_tensor(tensor: Tensor, cut: Cut, positions: Mapping[Axis, Tensor]) -> Tensor:
    """Return the dense tensor with zeros wherever it reads a pruned channel."""
    result = tensor.clone()
    if cut.gather is not None and cut.zero >= 0:
        stays = torch.zeros(cut.gather.length, dtype=torch.bool)
        stays[positions[cut.gather]] = True
        return torch.where(stays.to(tensor.device)[tensor], tensor, cut.zero)
    for dim in cut.reads:
        if dim in cut.axes:
            gone = _gone(positions[cut.axes[dim]], tensor.shape[dim])
            result.index_fill_(dim, gone.to(tensor.device), 0)
    block = len(tensor) // max(len(cut.blocks), 1)
    for i, axis in enumerate(cut.blocks):
        gone = _gone(positions[axis], tensor.shape[1]).to(tensor.device)
        result[i * block : (i + 1) * block].index_fill_(1, gone, 0)
    return result


def _gone(kept: Tensor, length: int) -> Tensor:
    stays = torch.zeros(length, dtype=torch.bool)
    stays[kept] = True
    return (~stays).nonzero().flatten()


def update_sizes(network: nn.Module) -> None:
    """Set the size attributes of modules (`out_channels`, `groups`, ...) from the shapes of their tensors."""
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            _update_convolution(module)
        for kind, rows in SIZES.items():
            if isinstance(module, kind):
                for attribute, name, dim in rows:
                    tensor = _find(module, name)
                    if isinstance(tensor, Tensor):
                        setattr(module, attribute, tensor.shape[dim])


def _find(module: nn.Module, name: str) -> object:
    """Return what a module or one of its parts holds under a name, or None."""
    try:
        return attrgetter(name)(module)
    except AttributeError:
        return None


def _update_convolution(module: nn.modules.conv._ConvNd) -> None:
    outputs, inputs = (1, 0) if module.transposed else (0, 1)
    weight = module.weight
    if module.groups > 1 and module.groups == module.in_channels:
        multiplier = 1 if module.transposed else module.out_channels // module.groups
        module.groups = weight.shape[0] // multiplier
    module.out_channels = weight.shape[outputs] * (module.groups if module.transposed else 1)
    module.in_channels = weight.shape[inputs] * (1 if module.transposed else module.groups)


def prune(
    network: nn.Module, cuts: Mapping[str, Cut], selection: Selection, dependents: Dependents = NOTHING
) -> nn.Module:
    """Return a pruned network of the same class; the given one is not changed.

    Args:
        network: The dense network.
        cuts: How each parameter and buffer is pruned.
        selection: The kept channels.
        dependents: What else depends on the kept channels.
    """
    tensors = _dense(network, cuts)
    home = {tensor.device for tensor in tensors.values()}
    device = home.pop() if len(home) == 1 else torch.device("cpu")  # each set of positions is moved there once
    positions = {axis: axis.positions(selection).to(device) for axis in _axes(cuts)}
    with torch.no_grad():
        replaced = {name: prune_tensor(tensors[name], cut, positions) for name, cut in cuts.items()}
    pruned = structural_copy(network, replaced)
    update_sizes(pruned)
    for held, axis in dependents.sizes:
        set_number(pruned.get_submodule(held.module), held.keys, len(axis.positions(selection)) // held.unit)
    for module in pruned.modules():
        if is_replaced(module):
            fit_attention(module)
    if any(not ranks.shape[1] for ranks in selection.kept):
        replace_vanished(pruned, dependents.norms, dependents.readers, dependents.written)
    unfuse(pruned, (MultiheadAttention, *STANDING_IN))
    return pruned


def mask(
    network: nn.Module, cuts: Mapping[str, Cut], selection: Selection, dependents: Dependents = NOTHING
) -> nn.Module:
    """Return a copy of the dense network whose consumers ignore the pruned channels: the reference for `prune`."""
    axes = _axes(cuts) | {axis for _, axis in dependents.summaries}
    positions = {axis: axis.positions(selection) for axis in axes}
    tensors = _dense(network, cuts)
    with torch.no_grad():
        replaced = {name: mask_tensor(tensors[name], cut, positions) for name, cut in cuts.items()}
    masked = structural_copy(network, replaced)
    summarise_kept(masked, [(item, positions[axis]) for item, axis in dependents.summaries])
    return masked


def _dense(network: nn.Module, cuts: Mapping[str, Cut]) -> dict[str, Tensor]:
    """The parameters and buffers that are pruned."""
    return {path: attrgetter(path)(network).detach() for path in cuts}


def _axes(cuts: Mapping[str, Cut]) -> set[Axis]:
    found = set()
    for cut in cuts.values():
        found.update(cut.axes.values(), cut.blocks)
        if cut.gather is not None:
            found.add(cut.gather)
    return found
