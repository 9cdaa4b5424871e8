import copy

import torch

from gnnrl_lightning import trace
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.speed.inference import for_inference
from gnnrl_lightning.surgery.layers import columns, find_layers, to_matrices, to_weight
from tests.support.networks_batch_norms import NormedTwice, Tokens
from tests.support.networks_hard import RepeatedChannels
from tests.support.networks_readers import traced
from tests.support.networks_zoo import ZOO, Reused


def test_layers_of_each_kind():
    assert find_layers(traced("flat")[1])["reader.weight"].repeats == 64
    assert find_layers(traced("transposed")[1])["reader.weight"].transposed
    assert len(find_layers(traced("grouped")[1])["reader.weight"].blocks) == 2
    norm = find_layers(traced("norm")[1])["reader.weight"].norm
    assert norm["running_var"] == "norm.running_var"
    stem = find_layers(traced("conv")[1])["stem.weight"]
    assert stem.blocks == () and stem.outputs is not None


def test_a_norm_that_several_operators_share_belongs_to_none():
    network = Reused()
    layer = find_layers(trace(network, torch.randn(1, 3, 8, 8)))["again.weight"]
    assert layer.shared and layer.norm == {}


def test_matrices_and_back():
    weight = torch.randn(6, 4, 3, 3)
    for blocks, length in ((1, 36), (2, 36), (1, 4), (2, 4)):
        matrices = to_matrices(weight, blocks, length)
        assert matrices.shape == (blocks, 6 // blocks * (36 // length), length)
        assert torch.equal(to_weight(matrices, weight.shape), weight)
    assert torch.equal(to_matrices(weight, 1, 4)[0, 9 + 5], weight[1, :, 1, 2])


def test_columns():
    kept = torch.tensor([0, 2])
    assert columns(kept, 3, 3).tolist() == [0, 2]
    assert columns(kept, 3, 6).tolist() == [0, 1, 4, 5]
    assert columns(torch.tensor([0, 1, 4, 5]), 6, 3).tolist() == [0, 2]


def test_channel_of_each_input():
    network = RepeatedChannels()
    graph = trace(network, torch.randn(1, 3, 8, 8))
    assert graph.cuts["b.weight"].axes[1].channels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert graph.cuts["c.weight"].axes[1].channels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_channels_are_numbered_group_by_group():
    case = ZOO["Inputs"]
    graph = trace(case.build(), case.inputs())
    assert graph.cuts["out.weight"].axes[1].channels.tolist() == list(range(10))


def test_a_norm_that_also_reads_something_else_belongs_to_no_layer():
    network, x = NormedTwice().eval(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        network.norm.running_mean.normal_()
        network.norm.running_var.uniform_(0.3, 1)
        layers = find_layers(trace(network, x[:1]))
        assert not layers["first.weight"].norm
        torch.testing.assert_close(for_inference(copy.deepcopy(network), layers)(x), network(x), rtol=1e-4, atol=1e-5)


def test_a_norm_over_a_sequence_belongs_to_no_linear_layer():
    network, x = Tokens().eval(), torch.randn(64, 8, 5)
    with torch.no_grad():
        network.norm.running_mean.normal_()
        network.norm.running_var.uniform_(0.3, 1)
        network.norm.weight.uniform_(0.5, 1.5)
    graph = trace(network, x[:1])
    assert not find_layers(graph)["first.weight"].norm
    for repair in ("reconstruction", "predicted_batch_norm", "refit"):
        pruner = Pruner(graph, network, x, repair=repair)
        for widths in (graph.widths, torch.tensor([5])):
            pruned = pruner.prune(pruner.plan(widths))
            with torch.no_grad():
                expected = pruned(x)
                torch.testing.assert_close(for_inference(copy.deepcopy(pruned), pruner.layers)(x), expected)
                if int(widths) == 8:
                    torch.testing.assert_close(expected, network(x), rtol=1e-3, atol=1e-4)
