"""Rewriting of in-place writes through views, for a walk with one value per node.

`z[:, :4] = y` writes into a slice of z, which changes z for all later readers. `torch.export` can functionalise such
programs, but that takes longer than the export itself, and its operators are no longer those that the code calls.
Writes into slices and single indices are therefore rewritten here: readers of z after the write read
`slice_scatter(z, y, ...)` or `select_scatter(z, y, ...)` instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

SCATTERS: dict[Any, torch._ops.OpOverload] = {
    torch.ops.aten.slice.Tensor: torch.ops.aten.slice_scatter.default,
    torch.ops.aten.select.int: torch.ops.aten.select_scatter.default,
}
"""View of a part of a tensor -> operator that writes into this part."""


def replace_slice_writes(graph: Graph) -> bool:
    """Replace every in-place write into slices or indices of a tensor by an operator that returns the whole tensor.

    In-place operators on whole tensors (`relu_`, `add_`) remain.

    Returns:
        Whether the graph has no writes through views any more. If there is one of another kind, the graph is unchanged.
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    writes = [(node, target) for node in graph.nodes if (target := _written(node)) is not None]
    if not all(_is_plain(node, target, position) for node, target in writes):
        return False
    for node, target in writes:
        _scatter(graph, node, target, position)
    return True


def _written(node: Node) -> Node | None:
    """Return the tensor that an in-place operator modifies if it is a view or has one, else None."""
    if not (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable):
        return None
    for argument, formal in zip(node.args, node.target._schema.arguments, strict=False):
        if formal.alias_info and formal.alias_info.is_write and isinstance(argument, Node):
            if not _is_private(argument) or any(_is_view(user) for user in argument.users if user is not node):
                return argument
    return None


def _is_plain(write: Node, target: Node, position: dict[Node, int]) -> bool:
    """Whether a write goes to an intermediate tensor through slices and indices, and no older view is read later."""
    while target.target in SCATTERS and len(target.users) == 1:
        target = target.args[0]  # type: ignore[assignment]
    if target.op != "call_function" or _is_alias(target) or write.users:
        return False
    older = [user for user in target.users if _is_alias(user) and position[user] < position[write]]
    return all(_last_read(alias, position) <= position[write] for alias in older)


def _last_read(alias: Node, position: dict[Node, int]) -> int:
    """Return the position of the last operator that reads a view, or a tensor that shares its memory."""
    later = (max(position[user], _last_read(user, position) if _is_alias(user) else 0) for user in alias.users)
    return max(later, default=0)


def _scatter(graph: Graph, write: Node, target: Node, position: dict[Node, int]) -> None:
    """Redirect the readers after a write to the tensor that includes the written values."""
    whole = write
    while target.target in SCATTERS:
        source = target.args[0]
        assert isinstance(source, Node)
        with graph.inserting_after(whole):
            whole = graph.call_function(SCATTERS[target.target], (source, whole, *target.args[1:]), target.kwargs)
        whole.meta = write.meta | {"val": source.meta["val"]}
        position[whole] = position[write]
        target = source
    if whole is not write:
        target.replace_all_uses_with(whole, delete_user_cb=lambda user: position[user] > position[write])


def _is_private(node: Node) -> bool:
    """Whether writes into a tensor affect no other tensor: it is not a view, or it is the only reader of its base."""
    while _is_view(node):
        base = node.args[0]
        if not isinstance(base, Node) or len(base.users) > 1 or base.op != "call_function":
            return False
        node = base
    return True


def _is_mutable(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_view(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.op == "call_function"
    return not _is_mutable(node) and any(item.alias_info is not None for item in node.target._schema.returns)


def _is_alias(node: Node) -> bool:
    """Whether a result shares the memory of an operand."""
    return _is_view(node) or _is_mutable(node)
