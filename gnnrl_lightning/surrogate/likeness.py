"""How alike the groups of a network are, by their places in its computational graph."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnrl_lightning.surgery.traced import TracedNetwork

STREAM, RESOLUTION, DEPTH = 2.0, 1.0, 1.0
"""Distance of a group whose channels are sums from one whose channels are not; of groups whose feature maps differ by a
factor of two in height and width; and of the first operator from the last one."""


def likeness(graph: TracedNetwork) -> Tensor:
    r"""How alike groups are: :math:`S_{g h} = e^{-|z_g - z_h|^2 / 2}`.

    A group's z tells whether its channels are sums, such as those of a residual stream; the number of positions of its
    feature maps; and where in the network they are computed. Blocks of a stage differ by their depth alone.

    Args:
        graph: The traced network.

    Returns:
        `(G, G)` float64, positive semidefinite, with ones on the diagonal.
    """
    makers = {operator.output: (number, operator.kind) for number, operator in enumerate(graph.operators)}
    shares = (graph.incidence > 0).double()
    for group, operator in graph.masks.items():
        shares[graph.operators[operator].output, group] = 1
    shares /= shares.sum(0).clamp(min=1)
    order = torch.tensor([float(makers.get(place, (0, ""))[0]) for place in range(len(shares))], dtype=torch.float64)
    summed = torch.tensor([makers.get(place, (0, ""))[1] == "add" for place in range(len(shares))])
    positions = torch.tensor([float(item.positions) for item in graph.feature_maps], dtype=torch.float64)
    z = torch.stack(
        [
            STREAM * (shares[summed].sum(0) > 0),
            RESOLUTION * (positions.log2() / 2) @ shares,
            DEPTH * order @ shares / max(len(makers), 1),
        ],
        1,
    )
    return torch.exp(-torch.cdist(z, z).square() / 2)
