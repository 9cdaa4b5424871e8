"""Layers inside a module that make channels, and what they are like with one channel more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.labels import Value, support
from gnnrl_lightning.tracing.sizes.resize import Resize
from gnnrl_lightning.tracing.walk import Walk

EMBEDDINGS = ("embedding", "embedding_bag")
"""Operators that look up rows of a weight, whose second dimension are the channels."""

Layer = tuple[str, int, Tensor]
"""Path inside the module, the dimension of the channels in the output, counted from the last, and their labels."""


def layers_in(walk: Walk, module: str) -> Iterator[Layer]:
    """Yield the layers inside a module.

    Args:
        walk: The walk.
        module: Path of the module.
    """
    prefix = f"{module}." if module else ""
    outputs = {step.node: step.output for step in walk.steps}
    made = [(item.weight, item.node, item.writes) for item in walk.contractions if item.weight is not None]
    made += [
        (step.parameters[0], step.node, walk.parameters[step.parameters[0]].along(1))
        for step in walk.steps
        if step.operator in EMBEDDINGS and step.parameters
    ]
    for weight, node, writes in made:
        path = weight.rpartition(".")[0]
        if writes is not None and path.startswith(prefix) and path != module:
            dim = _dimension(outputs.get(node), writes)
            if dim is not None:
                yield path.removeprefix(prefix), dim, writes.flatten()


def layers_of(walk: Walk, module: str, channels: Channels) -> dict[int, list[Layer]]:
    """Return the layers inside a module whose outputs all belong to one group, by group."""
    found: dict[int, list[Layer]] = {}
    for layer in layers_in(walk, module):
        groups = np.unique(channels.place[layer[2].numpy(), 0])
        if len(groups) == 1 and groups[0] >= 0:
            found.setdefault(int(groups[0]), []).append(layer)
    return found


def one_more(layers: Sequence[Layer], width: int) -> Resize:
    """Return the sizes of the layers' outputs when each index set has one channel more.

    Args:
        layers: The layers.
        width: Width of their group.
    """
    return Resize({}, layers={path: (dim, len(labels) // width * (width + 1)) for path, dim, labels in layers})


def _dimension(output: Value | None, channels: Tensor) -> int | None:
    """Return the dimension of a layer's output along which its channels lie, counted from the last."""
    for labels in output.labels if output is not None else ():
        if labels.numel() == channels.numel() and len(support(labels)) == 1:
            return support(labels)[0] - labels.dim()
    return None
