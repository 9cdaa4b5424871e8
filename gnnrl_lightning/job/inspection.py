"""What may be pruned of a traced network, as the command line shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from gnnrl_lightning.cost.metrics import metric_name
from gnnrl_lightning.graph import ComputationGraph


def inspect(graph: ComputationGraph, metrics: Iterable[Any] | None = None) -> dict[str, Any]:
    """Return the groups with lowest and highest widths, kept layers, frozen groups, their reasons, and costs.

    The smallest cost is that of the lowest widths; `min_width` of a budget may raise them further. With `min_width` 0,
    groups may be removed entirely unless they have a reason to stay.

    Args:
        graph: The traced network.
        metrics: The metrics to show, see `ComputationGraph.cost_of`; None: the registered ones that it has.
    """
    both, costs = torch.stack([graph.widths, graph.smallest]), {}
    for metric in graph.metrics if metrics is None else metrics:
        name, (dense, smallest) = metric_name(metric), graph.cost_of(metric)(both).tolist()
        costs |= {name: dense, f"smallest_{name}": smallest}
    frozen = [asdict(group) for group in graph.frozen]
    groups = [
        {
            "name": group.name,
            "width": group.width,
            "lowest": lowest,
            "highest": highest,
            "stays": "groups.limits gives a lowest width" if limited and not reason else reason,
            "members": [asdict(member) for member in group.members],
        }
        for group, lowest, highest, limited, reason in zip(
            graph.groups,
            graph.ranges.lowest.tolist(),
            graph.ranges.highest.tolist(),
            graph.ranges.stays.tolist(),
            graph.removable.reasons,
            strict=True,
        )
    ]
    return {
        **costs,
        "kept": list(graph.kept),
        "groups": groups,
        "frozen": frozen,
        "reasons": [asdict(reason) for reason in graph.reasons],
    }
