"""Exact MACs and parameters as functions of the widths.

The cost of an operator is a constant times the product of the sizes of its dimensions, and every size is linear in the
widths: `cost = sum_k factor_k * prod_d (constant_kd + sum_g count_kdg * width_g)`. A batch of candidates takes a few
tensor products. Reference: `torch.utils.flop_counter.FlopCounterMode` halved, on a meta-device copy of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from gnnrl_lightning.tracing.axes import Axis

PARTS = 64
"""Parts of a masked weight, all but one of which may be zero, the smallest elements first."""

Count = TypeVar("Count", int, Tensor)


def zeros(elements: Count, kept: Count) -> Count:
    """Number of elements of a masked weight that are zero, rounded down.

    Args:
        elements: Number of its elements; numbers, or int64 tensors.
        kept: How many of the `PARTS` parts stay.
    """
    return elements * (PARTS - kept) // PARTS


Size = tuple[int, dict[int, int]]
"""A size that is linear in the widths: a constant, and a count for each group."""


def axis_size(axis: Axis | None, length: int) -> Size:
    """The size of a dimension of dense `length` with the channel layout `axis` (None: all channels are fixed)."""
    return (length, {}) if axis is None else (axis.fixed, axis.counts)


@dataclass(frozen=True)
class Products:
    """Rows `factor * prod_d (constant_d + counts_d . widths)`, evaluated for batches of widths.

    Attributes:
        factor: `(rows,)` int64.
        constant: `(rows, dims)` float64.
        counts: `(rows, dims, G)` float64.
    """

    factor: Tensor
    constant: Tensor
    counts: Tensor

    @classmethod
    def build(cls, rows: Sequence[tuple[int, Sequence[Size]]], groups: int) -> Products:
        """Build the tensors from rows `(factor, sizes)`."""
        dims = max((len(sizes) for _, sizes in rows), default=0)
        constant = torch.ones(len(rows), dims, dtype=torch.float64)
        counts = torch.zeros(len(rows), dims, groups, dtype=torch.float64)
        for i, (_, sizes) in enumerate(rows):
            for d, (fixed, linear) in enumerate(sizes):
                constant[i, d] = fixed
                for group, count in linear.items():
                    counts[i, d, group] = count
        return cls(torch.tensor([factor for factor, _ in rows], dtype=torch.int64), constant, counts)

    def __call__(self, widths: Tensor) -> Tensor:
        """Values `(B, rows)` int64 at `widths (B, G)`; sizes below 2^53 are exact in float64."""
        rows, dims, groups = self.counts.shape
        flat = widths.double() @ self.counts.reshape(rows * dims, groups).T
        sizes = (flat.reshape(len(widths), rows, dims) + self.constant).long()
        return self.factor * sizes.prod(-1)


class CostModel:
    """MACs and parameters of any candidate.

    Args:
        operators: For each operator with MACs, its index among the graph's operators and its row.
        parameters: For each parameter, the index of its operator (-1: none) and its row.
        n_operators: Number of operators of the graph.
        groups: Number of groups.
        masked: For each masked weight, its group and its row.
    """

    def __init__(
        self,
        operators: Sequence[tuple[int, tuple[int, Sequence[Size]]]],
        parameters: Sequence[tuple[int, tuple[int, Sequence[Size]]]],
        n_operators: int,
        groups: int,
        masked: Sequence[tuple[int, tuple[int, Sequence[Size]]]] = (),
    ) -> None:
        self._macs = Products.build([row for _, row in operators], groups)
        self._params = Products.build([row for _, row in parameters], groups)
        self._macs_of = torch.tensor([index for index, _ in operators], dtype=torch.int64)
        self._params_of = torch.tensor([index for index, _ in parameters], dtype=torch.int64)
        self._masked = Products.build([row for _, row in masked], groups)
        self._masks = torch.tensor([group for group, _ in masked], dtype=torch.int64)
        self._n_operators = n_operators

    def macs(self, widths: Tensor) -> Tensor:
        """Multiply-accumulates for one example.

        Args:
            widths: Widths `(..., G)`, integers.

        Returns:
            int64 `(...)`.
        """
        return self._total(self._macs, widths)

    def params(self, widths: Tensor) -> Tensor:
        """Number of parameters at `widths (..., G)`: int64 `(...)`."""
        return self._total(self._params, widths)

    def nonzero(self, widths: Tensor) -> Tensor:
        """Number of parameters that no mask sets to zero at `widths (..., G)`: int64 `(...)`."""
        widths = torch.as_tensor(widths)
        flat = widths.reshape(widths.shape[:-1].numel(), widths.shape[-1])
        masked = zeros(self._masked(flat), flat[:, self._masks]).sum(-1)
        return self.params(widths) - masked.reshape(widths.shape[:-1])

    def operator_macs(self, widths: Tensor) -> Tensor:
        """MACs of each operator of the graph `(B, n_operators)` at `widths (B, G)`."""
        return self._spread(self._macs(widths), self._macs_of)

    def operator_params(self, widths: Tensor) -> Tensor:
        """Number of parameters read by each operator of the graph `(B, n_operators)` at `widths (B, G)`."""
        return self._spread(self._params(widths), self._params_of)

    @staticmethod
    def _total(products: Products, widths: Tensor) -> Tensor:
        widths = torch.as_tensor(widths)
        return products(widths.reshape(widths.shape[:-1].numel(), widths.shape[-1])).sum(-1).reshape(widths.shape[:-1])

    def _spread(self, values: Tensor, index: Tensor) -> Tensor:
        result = torch.zeros(len(values), self._n_operators + 1, dtype=torch.int64)
        return result.index_add_(1, index % (self._n_operators + 1), values)[:, : self._n_operators]
