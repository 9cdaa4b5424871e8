"""Regions of an exported graph: operators that call a graph of their own.

`with torch.autocast(...)` and `with torch.enable_grad()` become such operators. They compute what their graph computes,
so it takes their place. Others, such as `torch.cond`, choose between graphs or repeat one.
"""

from __future__ import annotations

from typing import Any

from torch.fx import Graph, GraphModule, Node

ENTERED = {"wrap_with_autocast": 4, "wrap_with_set_grad_enabled": 1}
"""Name of an operator that only calls a graph -> position of the graph in its arguments; operands follow."""


def regions(graph: Graph) -> list[Node]:
    """Return the operators of a graph that call a graph of their own."""
    return [
        node
        for node in graph.nodes
        if node.op == "call_function" and any(argument.op == "get_attr" for argument in node.all_input_nodes)
    ]


def enter_regions(owner: GraphModule) -> bool:
    """Put the operators of regions in the place of the regions; return whether there were any.

    Args:
        owner: A graph and the graphs that it calls; it is modified.
    """
    found = [node for node in regions(owner.graph) if region_name(node) in ENTERED]
    for node in found:
        place = ENTERED[region_name(node)]
        called: Any = node.args[place]
        inner = getattr(owner, called.target)
        enter_regions(inner)
        given: Any = dict(zip(inner.graph.find_nodes(op="placeholder"), node.args[place + 1 :], strict=True))
        with owner.graph.inserting_before(node):
            outputs: Any = owner.graph.graph_copy(inner.graph, given)
        for user in list(node.users):
            user.replace_all_uses_with(outputs[user.args[1]])  # its outputs are a tuple: users pick one
            owner.graph.erase_node(user)
        owner.graph.erase_node(node)
    return bool(found)


def region_name(node: Node) -> str:
    """Name of the operator that calls a region."""
    return getattr(node.target, "__name__", str(node.target))
