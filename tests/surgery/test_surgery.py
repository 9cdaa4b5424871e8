"""Surgery with given channels, and properties that a pruned network shares with the dense one."""

import copy
from operator import attrgetter

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import BasicBlock, resnet20
from gnnrl_lightning.surgery.surgery import update_sizes
from gnnrl_lightning.tracing.program.copies import structural_copy
from tests.support import networks_compared, networks_norms, networks_recurrent, networks_space
from tests.support.exactness import TOLERANCE, difference, forward, random_weights
from tests.support.networks_hard import TiedWeights
from tests.support.networks_zoo import ZOO, conv

MORE = networks_compared, networks_norms, networks_recurrent, networks_space
"""Importing them registers their networks."""


def kept_by(graph, kept):
    """The plan that keeps these ranks, `name -> indices`, and all of every other group."""
    ranks = [
        torch.tensor(kept.get(group.name, [list(range(group.width))] * group.sets)).reshape(group.sets, -1)
        for group in graph.groups
    ]
    return graph.plan_from(ranks)


def zoo(name):
    network = random_weights(ZOO[name].build())
    inputs = ZOO[name].inputs(torch.float64)
    return network, inputs, gnnrl_lightning.trace(network, inputs, self_test=False)


def reads_only(kept):
    """A hook after which a module reads zero in all other channels."""

    def hook(module, arguments):
        x = torch.zeros_like(arguments[0])
        x[:, kept] = arguments[0][:, kept]
        return (x,)

    return hook


def test_a_plain_network_against_hooks():
    """An independent reference: forward hooks zero what the next layer reads."""
    network, inputs, graph = zoo("Plain")
    plan = kept_by(graph, {"a": [0, 3, 4], "b": [1, 7]})
    reference = copy.deepcopy(network)

    reference.b.register_forward_pre_hook(reads_only([0, 3, 4]))
    reference.head.register_forward_pre_hook(reads_only([1, 7]))
    expected = forward(reference, inputs)
    assert difference(forward(plan.apply(network), inputs), expected) <= TOLERANCE
    assert difference(forward(plan.mask(network), inputs), expected) <= TOLERANCE


def test_a_residual_network_against_hooks():
    """The stream's channels are read by `inner` and `head` after the sigmoid, which makes zeros a half."""
    network, inputs, graph = zoo("Residual")
    plan = kept_by(graph, {"stem": [1, 4, 5], "inner": [0, 8]})
    reference = copy.deepcopy(network)
    for layer, kept in ((reference.inner, [1, 4, 5]), (reference.outer, [0, 8]), (reference.head, [1, 4, 5])):
        layer.register_forward_pre_hook(reads_only(kept))
    assert difference(forward(plan.apply(network), inputs), forward(reference, inputs)) <= TOLERANCE


def test_sizes_that_modules_write_down():
    network, _, graph = zoo("Plain")
    pruned = kept_by(graph, {"a": [0, 3, 4], "b": [1, 7]}).apply(network)
    assert (pruned.a.in_channels, pruned.a.out_channels) == (3, 3)
    assert (pruned.b.in_channels, pruned.b.out_channels) == (3, 2)
    assert pruned.norm.num_features == 3
    assert (pruned.head.in_features, pruned.head.out_features) == (2, 10)
    assert torch.equal(pruned.norm.running_mean, network.norm.running_mean[[0, 3, 4]])


@pytest.mark.parametrize(
    ("name", "kept", "attributes"),
    [
        ("GroupNorms", {"inner": [0, 2]}, {"one.num_groups": 2, "one.num_channels": 6, "two.num_groups": 3}),
        (
            "GroupNormsOfOne",
            {"a": [1, 2], "b": [0]},
            {"each.num_groups": 2, "all.num_groups": 1, "all.num_channels": 1},
        ),
        ("InstanceNorms", {"a": [1, 2], "b": [0]}, {"norm.num_features": 2}),
        ("TokenMLP", {"embed": [0, 3]}, {"norm.normalized_shape": (2,), "last.normalized_shape": (2,)}),
        ("TokenRMS", {"embed": [0, 3]}, {"norm.normalized_shape": (2,)}),
        ("LSTM", {"embed": [5], "rnn": [[0, 1, 3]] * 4}, {"rnn.input_size": 1, "rnn.hidden_size": 3}),
        ("LSTMSteps", {"rnn": [0, 6]}, {"rnn.input_size": 6, "rnn.hidden_size": 2}),
        ("Generator", {"start.0": [0, 4]}, {"start.3.unflattened_size": (2, 3, 3)}),
    ],
)
def test_sizes_that_modules_hold_without_a_tensor_of_that_size(name, kept, attributes):
    network, inputs, graph = zoo(name)
    dense = {path: attrgetter(path)(network) for path in attributes}
    pruned = kept_by(graph, kept).apply(network)
    assert {path: attrgetter(path)(pruned) for path in attributes} == attributes
    assert {path: attrgetter(path)(network) for path in attributes} == dense
    forward(pruned, inputs)


@pytest.mark.parametrize(
    ("layer", "weight", "sizes"),
    [
        (conv(4, 6), (5, 3, 3, 3), {"in_channels": 3, "out_channels": 5, "groups": 1}),
        (conv(6, 6, groups=6), (4, 1, 3, 3), {"in_channels": 4, "out_channels": 4, "groups": 4}),
        (conv(6, 12, groups=6), (8, 1, 3, 3), {"in_channels": 4, "out_channels": 8, "groups": 4}),
        (conv(8, 6, groups=2), (4, 3, 3, 3), {"in_channels": 6, "out_channels": 4, "groups": 2}),
        (nn.ConvTranspose2d(6, 4, 3), (5, 2, 3, 3), {"in_channels": 5, "out_channels": 2}),
        (nn.Linear(6, 4), (3, 5), {"in_features": 5, "out_features": 3}),
        (nn.PReLU(6), (4,), {"num_parameters": 4}),
        (nn.Embedding(7, 5), (7, 3), {"num_embeddings": 7, "embedding_dim": 3}),
    ],
)
def test_update_sizes(layer, weight, sizes):
    layer.weight = nn.Parameter(torch.zeros(weight))
    update_sizes(layer)
    assert {name: getattr(layer, name) for name in sizes} == sizes


def test_update_sizes_of_a_batch_norm_without_parameters():
    layer = nn.BatchNorm2d(6, affine=False)
    layer.running_mean, layer.running_var = torch.zeros(2), torch.ones(2)
    update_sizes(layer)
    assert layer.num_features == 2


def test_a_grouped_convolution_by_hand():
    """Each block of three filters keeps inputs and outputs of its own."""
    network, _, graph = zoo("Grouped")
    plan = kept_by(graph, {"stem": [[0, 3], [1, 2]], "grouped": [[2], [0]]})
    pruned = plan.apply(network)
    assert plan.kept["stem"].tolist() == [[0, 3], [1, 2]]
    assert torch.equal(pruned.stem.weight, network.stem.weight[[0, 3, 5, 6]])
    expected = torch.stack([network.grouped.weight[2, [0, 3]], network.grouped.weight[3, [1, 2]]])
    assert torch.equal(pruned.grouped.weight, expected)
    assert (pruned.grouped.groups, pruned.grouped.in_channels, pruned.grouped.out_channels) == (2, 4, 2)
    assert torch.equal(pruned.head.weight, network.head.weight[:, [2, 3]])
    masked = plan.mask(network).grouped.weight
    assert torch.equal(masked[0, :, 0, 0] == 0, torch.tensor([False, True, True, False]))
    assert torch.equal(masked[5, :, 0, 0] == 0, torch.tensor([True, False, False, True]))


def test_a_depthwise_convolution_with_a_multiplier_by_hand():
    network, _, graph = zoo("DepthwiseMultiplier")
    pruned = kept_by(graph, {"stem": [1, 3]}).apply(network)
    assert torch.equal(pruned.deep.weight, network.deep.weight[[2, 3, 6, 7]])
    assert torch.equal(pruned.point.weight, network.point.weight[:, [2, 3, 6, 7]])
    assert (pruned.deep.groups, pruned.deep.in_channels, pruned.deep.out_channels) == (2, 2, 4)


def test_flattened_channels_by_hand():
    network, _, graph = zoo("Flatten")  # a channel is four consecutive inputs of `hidden`
    pruned = kept_by(graph, {"stem": [0, 2]}).apply(network)
    assert torch.equal(pruned.hidden.weight, network.hidden.weight[:, [0, 1, 2, 3, 8, 9, 10, 11]])


def test_the_index_of_an_option_a_shortcut_by_hand():
    """Four channels become eight; outputs 0, 1, 6, 7 read the channel of zeros, 2 to 5 the inputs 0 to 3."""
    network = nn.Sequential(conv(3, 4), BasicBlock(4, 8, 2, "A"), nn.Flatten(), nn.Linear(8 * 4, 5))
    network = random_weights(network)
    inputs = (torch.randn(2, 3, 4, 4, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, inputs)
    assert [group.name for group in graph.groups] == ["0", "1.conv1", "1.conv2"]
    assert network[1].shortcut.index.tolist() == [4, 4, 0, 1, 2, 3, 4, 4]
    plan = kept_by(graph, {"0": [1, 3], "1.conv2": [0, 2, 3, 5, 7]})
    # The outputs 0, 2, 3, 5, 7 read zero, 0, 1, 3, zero; channel 0 is gone, 1 and 3 are now 0 and 1, zero is 2.
    assert plan.apply(network)[1].shortcut.index.tolist() == [2, 2, 0, 1, 2]
    assert plan.mask(network)[1].shortcut.index.tolist() == [4, 4, 4, 1, 4, 3, 4, 4]
    assert difference(forward(plan.apply(network), inputs), forward(plan.mask(network), inputs)) <= TOLERANCE
    assert network[1].shortcut.index.tolist() == [4, 4, 0, 1, 2, 3, 4, 4]


def test_pruning_twice():
    """A pruned network is a network: traced again it prunes on, and the two cuts are one."""
    network = random_weights(resnet20())
    inputs = (torch.randn(1, 3, 8, 8, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, inputs, self_test=False)
    first = graph.plan(network, graph.widths * 3 // 4)
    once = first.apply(network)
    again = gnnrl_lightning.trace(once, inputs, self_test=False)
    assert [g.name for g in again.groups] == [g.name for g in graph.groups]
    assert again.widths.tolist() == first.widths.tolist()
    second = again.plan(once, graph.widths // 2)
    twice = second.apply(once)
    both = graph.plan_from([first.kept[g.name][second.kept[g.name]][None] for g in graph.groups]).apply(network)
    for (name, mine), theirs in zip(twice.state_dict().items(), both.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    assert difference(forward(twice, inputs), forward(both, inputs)) == 0


def test_structural_copy_keeps_everything_but_the_replaced_tensors():
    class Own(nn.Linear):
        """A user-defined class with state that is not a tensor."""

    layer = Own(4, 3)
    layer.weight.requires_grad_(False)
    layer.weight.note = "kept"
    layer.register_buffer("scale", torch.ones(3), persistent=False)
    layer.register_forward_hook(lambda module, inputs, output: output + 1)
    network = nn.Sequential(layer, layer).eval()
    network.options = {"depth": 2}
    copied = structural_copy(network, {"0.weight": torch.zeros(2, 4), "0.scale": torch.zeros(2)})
    assert type(copied[0]) is Own and copied[0] is copied[1]
    assert copied[0].weight.shape == (2, 4) and isinstance(copied[0].weight, nn.Parameter)
    assert not copied[0].weight.requires_grad and copied[0].bias.requires_grad
    assert copied[0].weight.note == "kept"
    assert copied[0].scale.shape == (2,) and "0.scale" not in copied.state_dict()
    assert len(copied[0]._forward_hooks) == 1 and not copied.training
    assert copied.options == {"depth": 2} and copied.options is not network.options
    assert torch.equal(copied[0].bias, layer.bias) and copied[0].bias is not layer.bias
    assert layer.weight.shape == (3, 4)


def test_tied_tensors_stay_tied():
    network, inputs, graph = zoo(TiedWeights.__name__)
    pruned = kept_by(graph, {"stem": [0, 5]}).apply(network)
    assert pruned.a.weight is pruned.b.weight and pruned.a.weight.shape == (2, 2, 3, 3)
    assert pruned.b.out_channels == 2 and pruned.b.in_channels == 2
    assert difference(forward(pruned, inputs), forward(kept_by(graph, {"stem": [0, 5]}).mask(network), inputs)) < 1e-9


def test_a_plan_applies_to_another_network_of_the_same_shape():
    _, _, graph = zoo("Plain")
    other = random_weights(ZOO["Plain"].build(), seed=5)
    plan = kept_by(graph, {"a": [0, 3, 4]})
    assert torch.equal(plan.apply(other).a.weight, other.a.weight[[0, 3, 4]])


def test_a_plan_of_another_network_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2))
    graph = gnnrl_lightning.trace(network, torch.randn(1, 3, 6, 6))
    plan = graph.plan(network, graph.smallest)
    small = plan.apply(network)
    for use in (plan.apply, plan.mask, lambda other: graph.plan(other, graph.smallest)):
        with pytest.raises(UserError, match=r"0.weight of Sequential has the shape \(1, 3, 3, 3\), unlike the traced"):
            use(small)
        with pytest.raises(UserError, match=r"Sequential has no 0\.weight, which the traced network has"):
            use(nn.Sequential())
        with pytest.raises(UserError, match=r"Sequential has 4\.weight, which the traced network does not have"):
            use(nn.Sequential(*network, nn.Linear(2, 2)))
        with pytest.raises(UserError, match=r"3\.weight of Sequential has the shape \(5, 128\), unlike the traced"):
            use(nn.Sequential(*network[:3], nn.Linear(8 * 16, 5)))
    for use in (plan.apply, plan.mask, lambda other: graph.plan(other, graph.smallest)):
        with pytest.raises(UserError, match="network is a str: expected the network that was traced"):
            use("a network")
