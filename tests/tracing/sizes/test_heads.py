"""Which channels of attention go together, and what the pruned modules hold."""

import math

import pytest
import torch
import torchvision
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.networks.attention import MultiheadAttention
from tests.support.exactness import TOLERANCE, check, difference, forward, random_weights
from tests.support.networks_attention import HEADS, WIDTH, Fused, Model, PositionBias
from tests.support.networks_zoo import ZOO


def traced(name):
    network = random_weights(ZOO[name].build())
    inputs = ZOO[name].inputs(torch.float64)
    return network, inputs, gnnrl_lightning.trace(network, inputs)


def pruned(network, graph, kept):
    """The network with these ranks of some groups, `name -> indices`, and all others."""
    ranks = [
        torch.tensor(kept.get(group.name, [list(range(group.width))] * group.sets)).reshape(group.sets, -1)
        for group in graph.groups
    ]
    return graph.plan_from(ranks).apply(network)


def test_a_head_takes_its_rows_its_columns_and_its_bias_along():
    """The tensors are sliced by hand: heads 0 and 2 of three stay."""
    network, _, graph = traced("PositionBias")
    small, dense = pruned(network, graph, {"attention.qkv": [[0, 2]]}).attention, network.attention
    stays = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11])
    rows = (torch.arange(3)[:, None] * HEADS * WIDTH + stays).flatten()
    assert torch.equal(small.qkv.weight, dense.qkv.weight[rows])
    assert torch.equal(small.qkv.bias, dense.qkv.bias[rows])
    assert torch.equal(small.proj.weight, dense.proj.weight[:, stays])
    assert torch.equal(small.table, dense.table[:, [0, 2]])
    assert (small.num_heads, small.head_dim, small.scale) == (2, WIDTH, dense.scale)
    assert isinstance(small, PositionBias)


def test_queries_of_a_group_go_with_their_keys_and_values():
    network, _, graph = traced("GroupedByExpansion")
    small, dense = pruned(network, graph, {"attention.q": [[1]]}).attention, network.attention
    assert torch.equal(small.q.weight, dense.q.weight[2 * WIDTH : 4 * WIDTH])
    assert torch.equal(small.k.weight, dense.k.weight[WIDTH : 2 * WIDTH])
    assert (small.num_heads, small.num_kv_heads, small.head_dim) == (2, 1, WIDTH)


def test_the_width_of_heads_goes_where_their_number_is_a_constant():
    """Each head keeps channels of its own; queries and keys share theirs."""
    network, _, graph = traced("ScaledByWidth")
    kept = [[0, 4], [1, 2], [0, 3]]
    small, dense = pruned(network, graph, {"attention.q": kept}).attention, network.attention
    rows = (torch.arange(3)[:, None] * 5 + torch.tensor(kept)).flatten()
    assert torch.equal(small.q.weight, dense.q.weight[rows])
    assert torch.equal(small.k.weight, dense.k.weight[rows])
    assert torch.equal(small.v.weight, dense.v.weight)


@pytest.mark.parametrize("name", ["Builtin", "BuiltinWithWeights", "Encoder", "WidthOfTheInput", "OneKey", "Rotary"])
def test_each_group_alone(name):
    network, inputs, graph = traced(name)
    generator = torch.Generator().manual_seed(0)
    for group in range(len(graph.groups)):
        widths = graph.widths.clone()
        widths[group] = max(int(widths[group]) // 2, 1)
        check(graph, network, inputs, widths, generator)


def test_a_pruned_builtin_layer_is_pruned_further():
    network, inputs, graph = traced("Encoder")
    small = graph.plan(network, graph.widths - 1).apply(network)
    layer = small.attention.layers.layers[0].self_attn
    assert type(layer) is MultiheadAttention and layer.num_heads == HEADS - 1
    again = gnnrl_lightning.trace(small, inputs)
    assert {group.name: group.width for group in again.groups} == {
        group.name: group.width - 1 for group in graph.groups
    }
    check(again, small, inputs, again.smallest, torch.Generator().manual_seed(0))


class Turn(nn.Module):
    def forward(self, q, angles):
        return q * angles.cos()


class Padded(Fused):
    """As in Hugging Face's transformers, values decide whether a mask is needed, except in an export.

    A layer is called with a parameter.
    """

    def __init__(self):
        super().__init__()
        self.turn, self.angles = Turn(), nn.Parameter(torch.rand(1, 1, 1, WIDTH))

    def mix(self, q, k, v):
        valid = torch.ones(1, 1, 1, q.shape[2], dtype=torch.bool, device=q.device)
        skipped = not torch.compiler.is_compiling() and bool(valid.all())
        q = self.turn(q, self.angles)
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=None if skipped else valid)


def test_heads_in_code_that_does_not_run_without_values():
    network, example = random_weights(Model(Padded())), torch.randn(1, 5, 9, dtype=torch.float64)
    graph = gnnrl_lightning.trace(network, example)
    assert [(group.name, group.width) for group in graph.groups] == [("embed", 12), ("attention.qkv", HEADS)]
    plan = graph.plan(network, torch.tensor([7, 2]))
    assert plan.apply(network).attention.num_heads == 2
    assert difference(forward(plan.apply(network), (example,)), forward(plan.mask(network), (example,))) <= TOLERANCE


def test_reasons_name_the_call_and_what_to_do():
    _, _, graph = traced("ConstantSizes")
    (reason,) = (item for item in graph.reasons if item.groups == ("attention.qkv",))
    assert "reshape(1, 5, 3, 3, 4) has a size that the code fixes" in reason.reason
    assert "networks_attention.py" in reason.source and "attributes of the module" in reason.remedy


class Unbiased(nn.Module):
    """Keys have a bias of their own, which no slice of heads fits: PyTorch's layer stays as it is."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, HEADS, batch_first=True, add_bias_kv=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def test_layers_that_cannot_be_replaced_stay():
    network = Model(Unbiased())
    graph = gnnrl_lightning.trace(network, torch.randn(1, 5, 9))
    assert graph.groups == () or all(group.name != "attention.attention" for group in graph.groups)
    assert any("attention" in group.name for group in graph.frozen)


LIBRARY = {
    "vit": lambda: torchvision.models.VisionTransformer(16, 8, 2, 2, 8, 12, num_classes=4),
    "swin": lambda: torchvision.models.SwinTransformer([4, 4], 8, [2, 1], [2, 4], [2, 2], num_classes=4),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_transformers_of_torchvision(name):
    """Heads of the first, and those of the second together with the channels of their tokens."""
    torch.manual_seed(0)
    network = random_weights(LIBRARY[name]())
    inputs = (torch.randn(2, 3, 16, 16, dtype=torch.float64),)
    graph = gnnrl_lightning.trace(network, inputs)
    assert int(graph.cost.macs(graph.smallest)) < 0.2 * int(graph.cost.macs(graph.widths))
    generator = torch.Generator().manual_seed(0)
    for widths in (graph.smallest, (graph.widths + 1) // 2):
        check(graph, network, inputs, widths, generator)


class Nested(nn.Module):
    """PyTorch's encoder as most code calls it: nested tensors, and masks of which it is not said if they are causal."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 4, 7, batch_first=True)
        self.words, self.head = nn.Embedding(9, 12), nn.Linear(12, 3)
        self.layers = nn.TransformerEncoder(layer, 2)

    def forward(self, words, padding):
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1], dtype=self.head.weight.dtype)
        return self.head(self.layers(self.words(words), mask, padding))[:, :3]


def test_an_encoder_with_nested_tensors_and_masks_without_a_hint():
    network = random_weights(Nested())
    inputs = torch.randint(9, (2, 5)), torch.tensor([[0.0, 0.0, 0.0, -math.inf, -math.inf]] * 2, dtype=torch.float64)
    graph = gnnrl_lightning.trace(network, inputs)
    layers = {f"layers.layers.{i}.{name}": width for i in (0, 1) for name, width in (("self_attn", 4), ("linear1", 7))}
    assert {group.name: group.width for group in graph.groups} == {"words": 12} | layers
    plan = graph.plan(network, (graph.widths + 1) // 2)
    small, reference = (forward(item, inputs) for item in (plan.apply(network), plan.mask(network)))
    assert difference(small, reference) <= TOLERANCE
