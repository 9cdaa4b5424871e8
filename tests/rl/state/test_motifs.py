"""A motif stored as a quotient is equivalent to the expanded motif."""

import pytest
import torch

from gnnrl_lightning.rl.encoders import MotifEncoder
from gnnrl_lightning.rl.state.motifs import MOTIF_DIM, expanded_motif, motif

OPERATORS = [
    ("conv", 3, 5, 1),
    ("conv", 4, 8, 2),
    ("conv", 6, 6, 6),
    ("linear", 7, 2, 1),
    ("norm", 4, 4, 1),
    ("shape", 2, 6, 1),
]


def embedding(encoder, item):
    x, weight, members = (item[name].double() for name in ("x", "weight", "members"))
    return encoder(x, item["edge_index"], weight, members, torch.zeros(len(x)).long())


@pytest.mark.parametrize("kind, inputs, outputs, groups", OPERATORS)
def test_quotient_embeds_as_the_motif_written_out(kind, inputs, outputs, groups):
    encoder = MotifEncoder(MOTIF_DIM, 8, layers=3).double()
    quotient, large = (make(kind, inputs, outputs, 3, 2, groups) for make in (motif, expanded_motif))
    assert len(large["x"]) == quotient["members"].sum() == inputs + 2 * outputs
    torch.testing.assert_close(embedding(encoder, quotient), embedding(encoder, large), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind, inputs, outputs, groups", OPERATORS)
def test_weights_count_the_neighbours_of_the_motif_written_out(kind, inputs, outputs, groups):
    quotient, large = (make(kind, inputs, outputs, groups=groups) for make in (motif, expanded_motif))
    role = torch.tensor([0] * inputs + [1] * outputs + [2] * outputs)
    for (source, target), weight in zip(quotient["edge_index"].T, quotient["weight"], strict=True):
        between = (role[large["edge_index"][0]] == source) & (role[large["edge_index"][1]] == target)
        counts = large["edge_index"][1][between].bincount(minlength=len(role))[role == target]
        assert counts.tolist() == [weight] * len(counts)


def test_a_grouped_convolution_written_out_by_hand():
    # Inputs 0 to 3, filters 4 and 5, outputs 6 and 7; each filter reads the two channels of its block.
    written = expanded_motif("conv", 4, 2, groups=2)
    one_way = {(0, 4), (1, 4), (2, 5), (3, 5), (4, 6), (5, 7)}
    found = {tuple(edge) for edge in written["edge_index"].T.tolist()}
    assert found == one_way | {(b, a) for a, b in one_way}
    assert written["weight"].tolist() == [1] * 12 and written["members"].tolist() == [1] * 8


def test_blocks_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match="cat from 4 to 10 channels cannot be divided into 4 equal blocks"):
        expanded_motif("cat", 4, 10)


def test_sizes_count_the_nodes():
    assert motif("conv", 3, 5)["members"].tolist() == [3, 5, 5]
    assert motif("conv", 3, 5)["weight"].tolist() == [3, 5, 1, 1]
    assert motif("conv", 4, 8, groups=2)["weight"].tolist() == [2, 4, 1, 1]
