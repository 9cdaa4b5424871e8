"""The computational graph of a traced network as torch_geometric data, for inspection and computation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.rl.state.blocks import block_names
from gnnrl_lightning.rl.state.builder import StateBuilder
from gnnrl_lightning.rl.state.graph import StateGraph
from gnnrl_lightning.rl.state.motifs import geometry, motif
from gnnrl_lightning.rl.state.simplified import SimplifiedBuilder


@dataclass(frozen=True)
class HierarchicalGraph:
    """A network at given widths as graphs on three levels, each a `torch_geometric.data.Data`.

    | `network`, level 2 | shape | meaning |
    |---|---|---|
    | `x`, `edge_index`, `edge_attr` | (n, NODE_DIM), (2, e), (e, EDGE_DIM) | as in `StateBuilder`, without limits |
    | `edge_motif` | (e,) | index into `motifs` |
    | `map` | (n,) | index of the node's feature map in the traced network |
    | `block` | (n,) | index of the node's block in `blocks` |
    | `channels`, `prunable` | (n,), (n,) | current channels, and the share of them that is prunable |
    | `decision_index`, `decision_weight` | (2, i), (i,) | pairs (node, channel group) and their weights |
    | `name`, `kinds` | n each | first operator of the stage that writes the map, kinds of all its operators |
    | `shape` | n | dense shapes of the maps, for one example |

    | each of `motifs`, level 1 | shape | meaning |
    |---|---|---|
    | `x`, `edge_index`, `weight`, `members` | as `motif` | the quotient, for the dense channels |
    | `kinds`, `kernel`, `stride`, `groups` | strings, float, float, int | properties of the stage |
    | `uses` | int | number of edges of the network with this motif |

    | `blocks` | shape | meaning |
    |---|---|---|
    | `x` | (b, NODE_DIM) | mean of the features of the block's nodes |
    | `edge_index` | (2, E) | from a block that writes a map to a block that reads it |
    | `name`, `members` | b strings, (b,) | module path, number of nodes |

    Attributes:
        network: Level 2, feature maps and the stages (operators with their norms and activations) between them.
            The only kind of an input is "input".
        motifs: Level 1, one graph for each distinct stage.
        blocks: Level 3, see `gnnrl_lightning.rl.state.blocks`.
        groups: Names of the channel groups.
        costs: Metric -> cost: MACs per example, and parameters.
    """

    network: Data
    motifs: tuple[Data, ...]
    blocks: Data
    groups: tuple[str, ...]
    costs: dict[str, int | float]


def hierarchical_graph(graph: ComputationGraph, widths: Tensor | None = None) -> HierarchicalGraph:
    """The hierarchical computational graph of a network.

    Args:
        graph: The traced network (`gnnrl_lightning.trace`).
        widths: (G,) int64 widths of the channel groups; dense by default.

    Returns:
        The graphs of all levels.
    """
    given: Tensor = graph.widths if widths is None else widths
    builder = StateBuilder(graph)
    state = cast(StateGraph, builder(given[None], torch.ones(1, 2)))
    every = block_names(graph)
    names = [every[feature_map] for feature_map in builder.maps.tolist()]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    block = torch.tensor([numbers[name] for name in names])
    network: Any = Data(
        x=state.x,
        edge_index=state.edge_index,
        edge_attr=state.edge_attr,
        edge_motif=state.edge_motif,
        map=builder.maps,
        block=block,
        decision_index=state.decision_index,
        decision_weight=state.decision_weight,
        **_facts(builder, given, range(builder.num_nodes)),
    )
    between = block[state.edge_index]
    blocks = Data(
        x=scatter(state.x, block, reduce="mean"),
        edge_index=between[:, between[0] != between[1]].unique(dim=1),
        name=list(numbers),
        members=block.bincount(),
    )
    return HierarchicalGraph(
        network,
        _motifs(builder, network),
        blocks,
        tuple(group.name for group in graph.groups),
        graph.costs(given),
    )


def simplified_graph(graph: ComputationGraph, widths: Tensor | None = None) -> Data:
    """The simplified, single-level graph of a network; see `SimplifiedBuilder`.

    Args:
        graph: The traced network (`gnnrl_lightning.trace`).
        widths: (G,) int64 widths of the channel groups; dense by default.

    Returns:
        `x` (m, NODE_DIM), `edge_index` (2, E), `edge_attr` (E, EDGE_DIM), `decision_index`, `decision_weight`,
        `channels`, `prunable`, `name` and `shape` as in level 2 of the `HierarchicalGraph`, for the first stage of each
        node; `kinds`: kinds of all operators of each node; `node` (n,): simplified node of each level-2 node.
    """
    given: Tensor = graph.widths if widths is None else widths
    builder = SimplifiedBuilder(graph)
    state = cast(StateGraph, builder(given[None], torch.ones(1, 2)))
    every = _facts(builder.full, given, range(builder.full.num_nodes))["kinds"]
    facts = _facts(builder.full, given, builder.head.tolist())
    facts["kinds"] = kinds = [[] for _ in facts["name"]]
    for node, found in zip(builder.node.tolist(), every, strict=True):
        kinds[node] += found
    return Data(
        x=state.x,
        edge_index=state.edge_index,
        edge_attr=state.edge_attr,
        decision_index=state.decision_index,
        decision_weight=state.decision_weight,
        node=builder.node,
        **facts,
    )


def _facts(builder: StateBuilder, widths: Tensor, nodes: Sequence[int]) -> dict[str, Any]:
    """Names, kinds, shapes and channel counts of some nodes."""
    graph, maps = builder.graph, builder.maps[list(nodes)]
    writer = {stage.output: stage for stage in builder.stages}
    channels = graph.channels(widths[None])[0]
    prunable = (graph.incidence @ widths.float()) / channels.clamp(min=1)
    names, kinds, shapes = [], [], []
    for number in maps.tolist():
        made, feature_map = number in writer, graph.feature_maps[number]
        names.append(graph.operators[writer[number].members[0]].name if made else feature_map.name)
        kinds.append(list(writer[number].kinds) if made else ["input"])
        shapes.append(tuple(feature_map.shape))
    return {
        "name": names,
        "kinds": kinds,
        "shape": shapes,
        "channels": channels[maps],
        "prunable": prunable.clamp(max=1)[maps],
    }


def _motifs(builder: StateBuilder, network: Any) -> tuple[Data, ...]:
    """The distinct stages, in the order of `edge_motif`."""
    graph = builder.graph
    dense = graph.channels(graph.widths[None])[0][builder.maps].tolist()
    writer = {stage.output: stage for stage in builder.stages}
    motifs = []
    for number, count in enumerate(network.edge_motif.bincount().tolist()):
        source, target = network.edge_index[:, network.edge_motif == number][:, 0].tolist()
        stage = writer[int(builder.maps[target])]
        kernel, stride, groups = geometry(stage)
        quotient = motif(stage.kinds, dense[source], dense[target], kernel, stride, int(groups))
        described = {"kinds": list(stage.kinds), "kernel": kernel, "stride": stride, "groups": int(groups)}
        motifs.append(Data(**quotient, **described, uses=count))
    return tuple(motifs)
