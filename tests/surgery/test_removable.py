"""Which groups may be removed entirely, and that what is left is exact."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning import trace
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.tracing.program import older_torch
from tests.support.exactness import difference, forward, macs_of, noise, random_weights
from tests.support.networks_branches import BRANCHES, Chain, Residual

IMAGES = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.fixture(scope="module")
def graphs():
    return {kind: trace(kind(), torch.zeros(1, 3, 10, 10)) for kind in BRANCHES}


@pytest.mark.parametrize("kind", BRANCHES)
def test_branches_may_go_with_what_they_are_of_no_use_without(graphs, kind):
    graph, (may_go, without) = graphs[kind], BRANCHES[kind]
    names = [group.name for group in graph.groups]
    found = graph.removable
    assert {name for name, goes in zip(names, found.groups.tolist(), strict=True) if goes} == may_go
    assert [bool(reason) for reason in found.reasons] == [name not in may_go for name in names]
    useless = {name: {names[n] for n in row.nonzero()[:, 0]} for name, row in zip(names, found.useless, strict=True)}
    assert useless == {name: without.get(name, set()) for name in names}


@pytest.mark.parametrize("kind", BRANCHES)
def test_networks_without_groups_are_exact(graphs, kind):
    """Every subset of the groups that may go: outputs of the masked network, and MACs and parameters as predicted."""
    graph, generator = graphs[kind], torch.Generator().manual_seed(3)
    network = random_weights(kind(), seed=1)
    removable = graph.removable.groups.nonzero()[:, 0].tolist()
    for gone in itertools.chain.from_iterable(itertools.combinations(removable, n) for n in (1, 2, len(removable))):
        widths = ((graph.widths + 1) // 2).index_fill(0, torch.tensor(gone), 0)
        plan = graph.plan(network, widths, importance=noise(generator))
        pruned, masked = plan.apply(network), plan.mask(network)
        assert difference(forward(pruned, (IMAGES,)), forward(masked, (IMAGES,))) < 1e-9, gone
        assert macs_of(pruned, (IMAGES,)) == int(graph.cost.macs(widths))
        assert sum(parameter.numel() for parameter in pruned.parameters()) == int(graph.cost.params(widths))
        assert all(tensor.numel() for tensor in pruned.state_dict().values())


def test_groups_stay_where_the_network_would_be_disconnected_or_its_code_fails():
    graph = trace(Chain(), torch.zeros(1, 3, 10, 10))
    reasons = dict(zip([group.name for group in graph.groups], graph.removable.reasons, strict=True))
    assert reasons["first"] == "without it, an output of the network would no longer depend on an input"
    assert "max_pool2d" in reasons["second"] and "networks_branches.py" in reasons["second"]
    with pytest.raises(UserError, match=r"the width of second is 0: expected 1 to 5, not 0: the network's own code"):
        graph.plan(Chain(), graph.widths * torch.tensor([group.name != "second" for group in graph.groups]))


class Tokens(nn.Module):
    """A PyTorch encoder, which pads its examples."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True)
        self.embed, self.encoder = nn.Linear(5, 8), nn.TransformerEncoder(layer, 2)

    def forward(self, x, padding=None):
        return self.encoder(self.embed(x), src_key_padding_mask=padding)[:, 0]


def test_all_heads_and_feed_forward_networks_may_go():
    x = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    graph, network = trace(Tokens(), torch.zeros(2, 5, 5)), random_weights(Tokens(), seed=1)
    may_go = graph.removable.groups.nonzero()[:, 0].tolist()
    assert [graph.groups[number].name.split(".")[-1] for number in may_go] == ["self_attn", "linear1"] * 2
    for gone in itertools.chain.from_iterable(itertools.combinations(may_go, n) for n in range(1, 5)):
        plan = graph.plan(network, graph.widths.index_fill(0, torch.tensor(gone), 0))
        pruned, masked = plan.apply(network), plan.mask(network)
        for inputs in ((x,), (x, padding)):
            assert difference(forward(pruned, inputs), forward(masked, inputs)) < 1e-9, gone


class Attending(nn.Module):
    """A block of attention that PyTorch scales, by the width of a head."""

    def __init__(self):
        super().__init__()
        self.heads, self.width = 3, 4
        self.embed, self.qkv, self.proj = nn.Linear(5, 8), nn.Linear(8, 36), nn.Linear(12, 8)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        return x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_heads_stay_where_attention_without_them_would_end_the_process(monkeypatch):
    monkeypatch.setattr(older_torch, "OLDER", True)
    graph = trace(Attending(), torch.zeros(1, 5, 5))
    reasons = {group.name: reason for group, reason in zip(graph.groups, graph.removable.reasons, strict=True)}
    assert "attention without heads needs PyTorch 2.13 or newer" in reasons["qkv"]
    assert not graph.removable.groups.any()


@pytest.mark.skipif(older_torch.OLDER, reason="this version of PyTorch divides by zero")
def test_all_heads_of_scaled_attention_may_go():
    x = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    graph, network = trace(Attending(), torch.zeros(1, 5, 5)), random_weights(Attending(), seed=1)
    gone = torch.tensor([group.name == "qkv" for group in graph.groups])
    assert torch.equal(graph.removable.groups, gone), graph.removable.reasons
    plan = graph.plan(network, graph.widths * ~gone)
    expected = (network.embed(x) + network.proj.bias).detach()
    assert difference(forward(plan.apply(network), (x,)), forward(plan.mask(network), (x,))) < 1e-9
    assert difference(forward(plan.apply(network), (x,)), [expected]) < 1e-9


def test_a_group_stays_that_the_code_needs_where_others_are_left():
    """Its code reads a weight of the one layer if the other is there: without both it runs."""

    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.near, self.far = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 5, 1)
            self.back, self.home = nn.Conv2d(6, 4, 1), nn.Conv2d(5, 4, 1)

        def forward(self, x):
            x = self.stem(x)
            near = self.near(x)
            if near.shape[1]:
                near = near.to(self.far.weight.dtype)
            return x + self.back(near.relu()) + self.home(self.far(x).relu())

    graph = trace(Reading(), torch.zeros(1, 3, 6, 6))
    reasons = dict(zip([group.name for group in graph.groups], graph.removable.reasons, strict=True))
    assert not reasons["near"] and "no attribute 'weight'" in reasons["far"]


def test_of_parallel_branches_the_cheapest_one_stays():
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.near, self.far = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 5, padding=2)
            self.head = nn.Conv2d(16, 2, 1)

        def forward(self, x):
            return self.head(torch.cat([self.near(x), self.far(x)], 1).relu())

    graph = trace(Parallel(), torch.zeros(1, 3, 6, 6))
    assert [group.name for group in graph.groups] == ["near", "far"]
    assert graph.removable.groups.tolist() == [False, True]
    assert graph.removable.reasons[0].endswith("if the groups that may go were gone, too")


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_a_compiled_network_is_not_compiled_in_tests():
    """Each copy and each width would be compiled on its own."""
    compiled = []

    def backend(module, _):
        compiled.append(module)
        return module.forward

    graph = trace(torch.compile(Residual(), backend=backend), torch.zeros(1, 3, 10, 10))
    assert graph.removable.groups.any() and not compiled
