"""What follows the layers of a network: batch norms that alone read them, and writes into their outputs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from gnnrl_lightning.tracing.records import Step
from gnnrl_lightning.tracing.walk import Walk

VIEWS = ("shape", "alias")
"""Kinds of operators that may share memory with their inputs without writing into it."""


def norms_by_path(walk: Walk) -> dict[str, str]:
    """Return path of a layer -> path of the batch norm that is its only reader, and reads nothing else.

    Args:
        walk: The finished walk.
    """
    weights = Counter(item.weight for item in walk.contractions)
    readers = Counter(norm.get("running_mean") for norm in walk.norms.values())
    found = {}
    for item in walk.contractions:
        mean = walk.norms.get(item.node, {}).get("running_mean")
        if item.weight is not None and weights[item.weight] == 1 and mean is not None and readers[mean] == 1:
            found[item.weight.rpartition(".")[0]] = mean.rpartition(".")[0]
    return found


def readers_of_norms(walk: Walk) -> dict[str, tuple[str, ...]]:
    """Return path of a norm -> paths of the layers that read it, of norms that nothing else reads.

    Between them there may be activations.

    Args:
        walk: The finished walk.
    """
    readers: dict[str, list[Step]] = defaultdict(list)
    for step in walk.steps:
        for name in step.inputs:
            readers[name].append(step)
    layers = {item.node: item.weight.rpartition(".")[0] for item in walk.contractions if item.weight is not None}
    calls = Counter(step.module for step in walk.steps if step.kind == "norm")
    found = {}
    for step in walk.steps:
        if step.kind == "norm" and calls[step.module] == 1 and step.node not in walk.results:
            seen, waiting, paths = {step.node}, [step.node], list[str]()
            while waiting:
                for reader in readers[waiting.pop()]:
                    if reader.node in layers:
                        paths.append(layers[reader.node])
                    elif reader.kind in ("activation", "alias") and reader.node not in seen | {*walk.results}:
                        seen.add(reader.node)
                        waiting.append(reader.node)
                    elif reader.node not in seen:
                        paths.append("")
            if paths and "" not in paths:
                found[step.module] = tuple(paths)
    return found


def written_modules(steps: Sequence[Step]) -> frozenset[str]:
    """Return the paths of the modules into whose outputs later operators write.

    Args:
        steps: The operators of a walk in order, of which those that write in place share memory with what they write.
    """
    makers: dict[int, str] = {}
    found = set()
    for step in steps:
        if step.kind in VIEWS:
            continue
        if step.storage in makers:
            found.add(makers[step.storage])
        else:
            makers[step.storage] = step.module
    return frozenset(found)
