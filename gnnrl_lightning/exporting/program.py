"""Networks as exported programs, for any batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks import check_runs
from gnnrl_lightning.tracing.program.checks import as_inputs
from gnnrl_lightning.tracing.program.copies import shared_copy
from gnnrl_lightning.tracing.program.export import exported_program
from gnnrl_lightning.trees import Tree, count, map_tensors, take

ANY = "any"
"""Note `batch` of programs for any batch size."""

Made = TypeVar("Made")

_MADE: ContextVar[dict[Any, Any] | None] = ContextVar("exported", default=None)


@contextmanager
def exported_once() -> Iterator[None]:
    """Export each network once for each batch size within this block, in which networks must not change."""
    token = _MADE.set({})
    try:
        yield
    finally:
        _MADE.reset(token)


def once(make: Callable[[nn.Module, Tree], Made], network: nn.Module, example: Tree) -> Made:
    """Return `make(network, example)`, which is kept within `exported_once`.

    Args:
        make: Exports a network; it reads nothing of the example but types and shapes.
        network: The network.
        example: One batch of inputs.
    """
    known, key = _MADE.get(), (make, id(network), count(example))
    if known is None:
        return make(network, example)
    if key not in known:
        known[key] = network, make(network, example)  # the network, so that no other one gets its id
    return known[key][1]


def check_outputs(network: nn.Module, example: Tree) -> None:
    """Refuse a network whose outputs an exported program cannot have.

    Args:
        network: The network.
        example: Inputs, on the network's device.

    Raises:
        UserError: It returns an object of a class that PyTorch does not know how to take apart.
    """
    for leaf in tree_leaves(check_runs(network, example)):
        if not isinstance(leaf, (Tensor, bool, int, float, str, type(None))):
            kind = type(leaf).__name__
            raise UserError(
                f"{type(network).__name__} returns a {kind}, which no exported program can: expected tensors in "
                f"tuples, lists or dictionaries; else call torch.export.register_dataclass({kind}, "
                f"serialized_type_name={kind!r}), or write weights alone (delivery.formats: [weights])"
            )


def exported(network: nn.Module, example: Tree) -> tuple[ExportedProgram, dict[str, Any]]:
    """Export the network with `torch.export`, for any batch size if its code allows it.

    Args:
        network: The network.
        example: One batch of inputs.

    Returns:
        The program, and the note `batch`: `ANY`, or the size that it is fixed at.
    """
    return once(_exported, network, example)


def _exported(network: nn.Module, example: Tree) -> tuple[ExportedProgram, dict[str, Any]]:
    # Batch 1 would be specialised, so twice the first example: the values do not matter.
    pair = as_inputs(take(example, torch.zeros(2, dtype=torch.int64)))
    free_batch = map_tensors(lambda tensor: {0: torch.export.Dim.AUTO}, pair)
    # Each export gets a copy of its own: the network's code may keep the tensors of a pass, which have no values.
    try:
        program = exported_program(shared_copy(network), pair, dynamic_shapes=free_batch)
    except (RuntimeError, ValueError, AssertionError):
        program = None  # code that fixes its batch cannot be traced for others
    free = program is not None and bool(program.range_constraints)
    if program is None or not free:
        program = exported_program(shared_copy(network), as_inputs(example))
    program.graph.eliminate_dead_code(lambda node: node.is_impure() and not _is_empty(node))
    program.graph_module.recompile()
    return program, {"batch": ANY if free else f"fixed at {count(example)}"}


def _is_empty(node: Node) -> bool:
    """Whether an operator computes a tensor without elements, even if it writes in place."""
    value = node.meta.get("val")
    return node.op == "call_function" and isinstance(value, torch.Tensor) and 0 in value.shape
