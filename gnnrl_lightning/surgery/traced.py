"""The part of a traced network that surgery, importance and repairs read; `ComputationGraph` provides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from gnnrl_lightning.cost.products import CostModel
from gnnrl_lightning.surgery.surgery import Cut, Dependents
from gnnrl_lightning.tracing.groups import ChannelGroup
from gnnrl_lightning.tracing.records import Contraction


class Traced(Protocol):
    """Groups, costs and cuts of a traced network; all are described in `gnnrl_lightning.graph.ComputationGraph`."""

    @property
    def groups(self) -> tuple[ChannelGroup, ...]: ...  # noqa: D102
    @property
    def widths(self) -> Tensor: ...  # noqa: D102
    @property
    def sets(self) -> Tensor: ...  # noqa: D102
    @property
    def least(self) -> Tensor: ...  # noqa: D102
    @property
    def cost(self) -> CostModel: ...  # noqa: D102
    @property
    def contractions(self) -> tuple[Contraction, ...]: ...  # noqa: D102
    @property
    def norms(self) -> Mapping[str, Mapping[str, str]]: ...  # noqa: D102
    @property
    def cuts(self) -> Mapping[str, Cut]: ...  # noqa: D102
    @property
    def dependents(self) -> Dependents: ...  # noqa: D102
    def shapes_by_line(self, widths: Tensor) -> Mapping[tuple[str, tuple[int, ...]], set[tuple[int, ...]]]: ...  # noqa: D102
