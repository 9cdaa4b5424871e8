"""Operators of PyTorch that are composed of other operators, such as `rot90` of `flip` and `transpose`.

`torch.export` leaves many of them whole. Those without a rule are replaced by what they are composed of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._C import DispatchKey
from torch._decomp import get_decompositions
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

INNER = "inner"
"""Key in the meta data of operators that are part of a composite: the user's code does not call them by their names."""


def enter_composites(graph: Graph, whole: Callable[[Any], bool]) -> None:
    """Put the operators of which others are composed in their place.

    Args:
        graph: A graph of operators; it is modified.
        whole: Whether an operator is left as it is.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and node.all_input_nodes and not whole(node.target) and _is_composed(node.target):
            inner = _composed(node).graph
            made = [item for item in inner.nodes if item.op == "call_function"]
            if any(item.op == "get_attr" for item in inner.nodes):  # a constant, which belongs to the inner graph
                continue
            given: Any = dict(zip(inner.find_nodes(op="placeholder"), node.all_input_nodes, strict=True))
            with graph.inserting_before(node):
                outputs: Any = graph.graph_copy(inner, given)
            for item in made:
                given[item].meta = {**node.meta, "val": item.meta.get("val"), INNER: True}
            _replace(graph, node, outputs)


def _is_composed(target: Any) -> bool:
    """Whether an operator is composed of others, and writes into none of its operands."""
    if not isinstance(target, OpOverload) or target._schema.is_mutable:
        return False
    implicit = target.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)
    return implicit or bool(get_decompositions([target]))


def _composed(node: Node) -> GraphModule:
    """Return the graph of what an operator calls, whose inputs are the tensors that the node reads."""
    names, target = node.all_input_nodes, node.target

    def called(*given: Any) -> Any:
        values = dict(zip(names, given, strict=True))
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        return target(*args, **kwargs)  # type: ignore[operator]

    table: Any = get_decompositions([target])  # type: ignore[list-item]
    return make_fx(called, decomposition_table=table)(*(name.meta["val"] for name in names))


def _replace(graph: Graph, node: Node, outputs: Any) -> None:
    """Let what reads an operator's output read these ones; of several outputs, users pick one."""
    if isinstance(outputs, (tuple, list)):
        for user in list(node.users):
            user.replace_all_uses_with(outputs[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
    else:
        node.replace_all_uses_with(outputs)
    graph.erase_node(node)
