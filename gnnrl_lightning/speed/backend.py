"""What a back end is: it runs networks, and says how the table of operators is to be made for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from gnnrl_lightning.cost.latency import Use
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.registry import as_callable
from gnnrl_lightning.speed.operators import Made, operator_uses
from gnnrl_lightning.trees import Tree

Pass = Callable[[], Any]
"""Runs one forward pass."""

Prepared = Callable[[Tree], Pass]
"""`inputs -> Pass`: called anew in each round of a measurement, outside the measured time."""

Prepare = Callable[[Callable[..., Any], Tree, str], Prepared]
"""`(network, inputs, key) -> Prepared`: prepares a network in evaluation mode, or the function of an operator.

Networks with the same key differ in their widths alone. What it returns does not hold the inputs.
"""

POINTS = (1, 4, 8, 16, 24, 32, 48, 64, 96, *(half * 2**power for power in range(6, 14) for half in (2, 3)))
"""Channels of the grids; the dense channels of each network are added."""

FEW_POINTS = (1, 8, 16, 32, *(2**power for power in range(6, 15)))
"""Channels of the grids of back ends in which an operator takes long to prepare."""


class Shaped(Protocol):
    """An operator, apart from its numbers of channels: see `operators.Form` and `joined.Chain`."""

    @property
    def key(self) -> str: ...  # noqa: D102
    def made(self, inputs: int, outputs: int, batch: int) -> Made: ...  # noqa: D102


Cell = tuple[Shaped, int, int]
"""An operator with its input and output channels."""

NETWORK = "network"
"""Key of whole networks."""


PASS = "(network, inputs) -> a function without arguments that runs one forward pass"


def _nothing(precision: str, device: torch.device) -> None:
    """Every installation can run it."""


@dataclass(frozen=True)
class Backend:
    """What runs networks while their latency is measured. With one thread, it computes in the calling thread.

    Attributes:
        opened: `threads -> Prepare`: called before each measurement.
        check: `(precision, device) -> None`: raises `UserError` if it cannot run here: a package is missing, say.
        versions: Names and versions of its packages, on which cached times depend, besides PyTorch's.
        uses: `(graph, network) -> operators`: the rows of its table.
        points: Channels of the grids.
        device: The device that it always runs on; None: that of the network.
        keeps: Whether a network is prepared once for a measurement, or in each round: then few are in memory.
    """

    opened: Callable[[int], Prepare]
    check: Callable[[str, torch.device], None] = _nothing
    versions: Callable[[], Mapping[str, str]] = dict
    uses: Callable[[ComputationGraph, nn.Module], Sequence[tuple[Use, Shaped]]] = operator_uses
    points: tuple[int, ...] = POINTS
    device: torch.device | None = None
    keeps: bool = False


def as_backend(given: Any) -> Backend:
    """Return a back end unchanged, and one for a user's function `(network, inputs) -> forward pass`.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(given, Backend):
        return given
    function = as_callable(given, "a Backend, or a function (network, inputs) -> function", 2)
    return Backend(lambda threads: lambda network, inputs, key: partial(_pass_of, function, network))


def _pass_of(function: Callable[..., Any], network: Callable[..., Any], inputs: Tree) -> Pass:
    """Return the forward pass that a user's function makes of a network.

    Raises:
        UserError: The function fails, or returns no function.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        made = function(network, inputs)
    except UserError:
        raise
    except Exception as error:  # the user's own may raise anything
        raise UserError(f"latency.backend {name} fails: {one_line(error)}; expected {PASS}") from error
    if not callable(made):
        raise UserError(f"latency.backend {name} returns a {type(made).__name__}: expected {PASS}")
    return made
