"""A motif stored as a quotient is worth the motif written out."""

import pytest
import torch

from gnnrl_lightning.encoders import MotifEncoder
from gnnrl_lightning.graph.motifs import MOTIF_DIM, motif


def written_out(kind, inputs, outputs, groups):
    """The same operator with a node for each channel and filter: features, edges and their number of nodes."""
    quotient = motif(kind, inputs, outputs, groups=groups)
    x = torch.cat([quotient["x"][role].repeat(n, 1) for role, n in enumerate((inputs, outputs, outputs))])
    edges = []
    for f in range(outputs):
        block = f * groups // outputs
        own = range(inputs) if kind == "linear" else [i for i in range(inputs) if i * groups // inputs == block]
        edges += [(i, inputs + f) for i in own] + [(inputs + f, inputs + outputs + f)]
    edges += [(b, a) for a, b in edges]
    return x, torch.tensor(edges).T


@pytest.mark.parametrize(
    "kind, inputs, outputs, groups",
    [("conv", 3, 5, 1), ("conv", 4, 8, 2), ("conv", 6, 6, 6), ("linear", 7, 2, 1), ("norm", 4, 4, 4)],
)
def test_quotient_embeds_as_the_motif_written_out(kind, inputs, outputs, groups):
    encoder = MotifEncoder(MOTIF_DIM, 8, layers=3).double()
    q = motif(kind, inputs, outputs, groups=1 if kind == "norm" else groups)
    small = encoder(q["x"].double(), q["edge_index"], q["weight"].double(), q["size"].double(), torch.zeros(3).long())
    x, edge_index = written_out(kind, inputs, outputs, groups)
    x[:, -1] = torch.cat([q["x"][r, -1:].repeat(int(q["size"][r])) for r in range(3)])
    ones = torch.ones(max(len(x), edge_index.shape[1]), dtype=torch.double)
    large = encoder(x.double(), edge_index, ones[: edge_index.shape[1]], ones[: len(x)], torch.zeros(len(x)).long())
    torch.testing.assert_close(small, large, rtol=0, atol=1e-6)


def test_sizes_count_the_nodes():
    assert motif("conv", 3, 5)["size"].tolist() == [3, 5, 5]
    assert motif("conv", 3, 5)["weight"].tolist() == [3, 5, 1, 1]
    assert motif("conv", 4, 8, groups=2)["weight"].tolist() == [2, 4, 1, 1]
