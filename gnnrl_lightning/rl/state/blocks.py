"""The block level of a traced network: feature maps grouped by the network's modules."""

from __future__ import annotations

from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.tracing.topology import Operator

Path = tuple[str, ...]


def block_names(graph: ComputationGraph) -> list[str]:
    """The block of each feature map, derived from the module paths of the operators.

    A block is an outermost module, other than the network itself, that joins feature maps in its own forward:
    residual blocks, inception modules, dense blocks. If one module of a container is a block, its siblings are blocks
    too (the first block of a MobileNet has no shortcut). Other operators form a block if several of them belong to the
    same child of the network. Single operators, and operators of the network's own forward, join the block of the
    feature map that they read. Each input is a block of its own.

    Args:
        graph: The traced network.

    Returns:
        One name for each feature map: a module path, or the name of an input.
    """
    paths = [_path(operator.name) for operator in graph.operators]
    joins = {path for path, operator in zip(paths, graph.operators, strict=True) if path and _joins(operator)}
    outermost = {path for path in joins if not any(path[:depth] in joins for depth in range(1, len(path)))}
    containers = {path[:-1] for path in outermost if len(path) > 1}
    found = [_within(path, outermost, containers) for path in paths]
    outside = [path[0] for path, block in zip(paths, found, strict=True) if not block and path]
    names = [feature_map.name for feature_map in graph.feature_maps]
    loose: set[int] = set()  # maps whose block may grow
    for path, block, operator in zip(paths, found, graph.operators, strict=True):
        output = operator.output
        reads = next((i for i in operator.inputs if i in loose), None)
        if block:
            names[output] = ".".join(block)
            continue
        loose.add(output)
        if path and outside.count(path[0]) > 1:
            names[output] = path[0]
        elif reads is not None:
            names[output] = names[reads]
        else:
            names[output] = path[0] if path else names[output]
    return names


def _path(name: str) -> Path:
    module = name.rpartition(":")[0]
    return tuple(module.split(".")) if module else ()


def _joins(operator: Operator) -> bool:
    return len(set(operator.inputs)) > 1


def _within(path: Path, outermost: set[Path], containers: set[Path]) -> Path:
    """The block that contains a module; () if there is none."""
    for depth in range(1, len(path) + 1):
        part = path[:depth]
        if part in outermost or (part[:-1] in containers and part not in containers):
            return part
    return ()
