"""Block optimal brain surgeon: channels ranked by their readers' error after a least-squares update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.calibration.least_squares import relative_pull
from gnnrl_lightning.calibration.observe import named_tensors
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance.context import ImportanceContext
from gnnrl_lightning.surgery.layers import Layer, to_matrices

AT_ONCE = 64
"""Of a set of n channels, max(1, n / AT_ONCE) are removed at a time."""


EPSILON = 1e-5
"""Constant added to a running variance, so that losses after a dead channel remain finite."""


def surgeon(context: ImportanceContext) -> list[Tensor]:
    """Return the order in which channels are removed; the last one is the most important.

    Channels are removed greedily: each time the one whose removal causes the smallest error in the readers of its
    group, after a least-squares update of their other weights. With P the inverse covariance of a reader's inputs, W
    its weights and q the inputs of one channel, the squared error of its outputs grows by

        loss = tr(W[:, q] P[q, q]^-1 W[:, q]^T),    W -= W[:, q] P[q, q]^-1 P[q, :],    P -= P[:, q] P[q, q]^-1 P[q, :].

    Losses are summed over all readers of the group, each scaled by the batch norm after it. All other groups remain
    dense. The index sets of a group alternate.

    Source: Hassibi and Stork (NeurIPS 1992); for blocks of weights, Frantar and Alistarh (NeurIPS 2022).

    Raises:
        UserError: There are no calibration examples, or no layer with moments reads a group.
    """
    readers = [
        reader
        for name, layer in context.layers.items()
        if layer.blocks and name in context.moments
        for reader in _readers(context, name, layer)
    ]
    orders, start = [], 0
    for group, size in zip(context.graph.groups, context.sizes, strict=True):
        numbers = torch.arange(start, start + size).reshape(group.sets, group.width)
        orders.append(_order(group.name, numbers, readers))
        start += size
    return orders


@dataclass
class _Reader:
    """One block of a layer that reads channels.

    Attributes:
        numbers: Channel of each input element `(d,)`, -1 for fixed ones.
        weight: `(rows, d)`, or any matrix with the same `W^T W`, on which the losses depend.
        inverse: Inverse covariance of the inputs `(d, d)`.
    """

    numbers: Tensor
    weight: Tensor
    inverse: Tensor

    def part(self, channels: Tensor) -> _Reader | None:
        """Return a copy restricted to the elements of these channels, or None if it reads none of them.

        Updates of the restricted weights and inverse covariance do not depend on the other elements.
        """
        mine = torch.isin(self.numbers, channels).nonzero().flatten()
        if not len(mine):
            return None
        weight = self.weight[:, mine]
        if len(weight) > len(mine):
            weight = torch.linalg.qr(weight, mode="r")[1]
        return _Reader(self.numbers[mine], weight, self.inverse[mine][:, mine])

    def columns(self, channels: Tensor) -> Tensor | None:
        """Return the input elements of each given channel `(n, m)`, or None if it reads none of them."""
        here = torch.isin(self.numbers, channels).nonzero().flatten()
        if not len(here):
            return None
        ordered = here[self.numbers[here].argsort(stable=True)]
        return ordered.reshape(len(channels), -1)

    def losses(self, columns: Tensor) -> Tensor:
        """Return the loss of each channel with elements `(n, m)`."""
        inverse = torch.linalg.inv(self.inverse[columns[:, :, None], columns[:, None, :]])
        weight = self.weight[:, columns].transpose(0, 1)
        return (inverse * (weight.transpose(1, 2) @ weight)).sum((1, 2))

    def remove(self, columns: Tensor) -> None:
        """Remove input elements `(m,)` and update the remaining weights."""
        gain = torch.linalg.solve(self.inverse[columns][:, columns], self.inverse[columns])
        self.weight.addmm_(self.weight[:, columns], gain, alpha=-1)
        self.inverse.addmm_(self.inverse[:, columns], gain, alpha=-1)


def _readers(context: ImportanceContext, name: str, layer: Layer) -> list[_Reader]:
    moments = context.moments[name]
    length = moments.mean.shape[1]
    tensors = named_tensors(context.network)
    weight = layer.standard(tensors[name].detach()).double().cpu()
    if {"weight", "running_var"} <= layer.norm.keys():
        scale = tensors[layer.norm["weight"]].detach() * (tensors[layer.norm["running_var"]] + EPSILON).rsqrt()
        weight = weight * scale.double().cpu().reshape(-1, *(1,) * (weight.dim() - 1))
    found = []
    matrices = to_matrices(weight, len(layer.blocks), length)
    for axis, matrix, covariance in zip(layer.blocks, matrices, moments.covariance.double().cpu(), strict=True):
        numbers = axis.channels
        numbers = numbers[:: axis.length // length] if length < axis.length else numbers
        numbers = numbers.repeat_interleave(length // len(numbers))
        variance = covariance.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
        pull = relative_pull(length, moments.samples) * variance
        inverse = torch.linalg.inv(covariance + pull * torch.eye(length, dtype=torch.float64))
        found.append(_Reader(numbers, matrix, inverse))
    return found


def _order(name: str, numbers: Tensor, readers: list[_Reader]) -> Tensor:
    """Return the removal order `(sets, width)` of the channels of one group, given by their numbers."""
    sets, width = numbers.shape
    mine = [part for reader in readers if (part := reader.part(numbers)) is not None]
    columns = [[reader.columns(row) for reader in mine] for row in numbers]
    if not all(any(part is not None for part in parts) for parts in columns):
        raise UserError(f"importance surgeon: no layer with known inputs reads {name}; choose another importance")
    order = torch.full((sets, width), -1, dtype=torch.float64)
    alive = [torch.arange(width) for _ in range(sets)]
    removed = 0
    while removed < width - 1:
        count = min(max(1, (width - removed) // AT_ONCE), width - 1 - removed)
        for row in range(sets):
            read = [(reader, part) for reader, part in zip(mine, columns[row], strict=True) if part is not None]
            losses = torch.stack([reader.losses(part[alive[row]]) for reader, part in read]).sum(0)
            chosen = losses.argsort(stable=True)[:count]
            ranks = alive[row][chosen]
            order[row, ranks] = torch.arange(removed, removed + count, dtype=torch.float64)
            for reader, part in read:
                reader.remove(part[ranks].flatten())
            stays = torch.ones(len(alive[row]), dtype=torch.bool)
            stays[chosen] = False
            alive[row] = alive[row][stays]
        removed += count
    for row in range(sets):
        order[row, alive[row]] = width - 1
    return order
