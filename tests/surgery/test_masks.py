import copy

import pytest
import torch
from torch import nn

from gnnrl_lightning import trace
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.products import PARTS, zeros
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance import IMPORTANCES
from gnnrl_lightning.rl.state.builder import StateBuilder
from gnnrl_lightning.surgery.masks import find_weights, mask_smallest, zeros_held
from gnnrl_lightning.surrogate.measures import SENSITIVITIES

EXAMPLE = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 20), nn.ReLU(), nn.Linear(20, 10)
    ).eval()


@pytest.fixture(scope="module")
def graph():
    return trace(network(), EXAMPLE, masks=["3", "5"])


def test_the_smallest_weights_are_zero():
    pruned = network()
    dense = pruned[5].weight.detach().clone()
    mask_smallest(pruned, {"5.weight": 16})
    zero = pruned[5].weight == 0
    assert int(zero.sum()) == 150 == zeros(200, 16)
    assert dense[zero].abs().max() <= dense[~zero].abs().min()
    assert torch.equal(pruned[5].weight[~zero], dense[~zero])
    assert bool((pruned[3].weight != 0).all())


def test_training_keeps_the_zeros():
    pruned = network()
    names, weights = set(pruned.state_dict()), ("3.weight", "5.weight")
    mask_smallest(pruned, dict.fromkeys(weights, 32))
    before = pruned[3].weight.detach().clone()
    with zeros_held(pruned, weights):
        optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            pruned(EXAMPLE).square().mean().backward()
            optimizer.step()
        state = copy.deepcopy(pruned.state_dict())
        pruned.load_state_dict(state)
    after = pruned[3].weight
    assert torch.equal(after == 0, before == 0) and not torch.equal(after, before)
    assert set(pruned.state_dict()) == names and isinstance(after, nn.Parameter)


def test_zeros_are_held_no_longer_after_an_error():
    pruned = network()
    with pytest.raises(RuntimeError, match="training stops"), zeros_held(pruned, ["5.weight"]):
        raise RuntimeError("training stops")
    assert type(pruned[5]) is nn.Linear


def test_a_graph_has_a_group_for_each_masked_weight(graph):
    assert [group.name for group in graph.groups] == ["0", "3", "3.weight", "5.weight"]
    assert graph.widths.tolist() == [8, 20, PARTS, PARTS]
    assert graph.masked == ("3.weight", "5.weight")
    assert graph.fingerprint == trace(network(), EXAMPLE).fingerprint  # a recipe keeps channels, and weights have zeros
    assert "3.weight: 64 parts, from 1 to 64, of a masked weight" in str(graph)
    assert graph.removable.groups.tolist() == [False] * 4


@pytest.mark.parametrize("widths", [[8, 20, 64, 64], [8, 20, 1, 64], [5, 7, 33, 10], [1, 1, 1, 1]])
def test_the_cost_counts_what_is_not_zero(graph, widths):
    pruned = graph.plan(network(), torch.tensor(widths)).apply(network())
    parameters = [parameter.detach() for parameter in pruned.parameters()]
    assert int(graph.cost.nonzero(torch.tensor(widths))) == sum(int((each != 0).sum()) for each in parameters)
    assert int(graph.cost.params(torch.tensor(widths))) == sum(each.numel() for each in parameters)


def test_masks_cost_no_macs_and_follow_no_alignment(graph):
    limits = Budget(macs=0.5, nonzero=0.1, channel_multiple=4, min_width=4).on(graph)
    assert limits.allowed.step.tolist() == [4, 4, 1, 1]
    assert limits.allowed.lowest.tolist() == [4, 4, 1, 1]
    widths = limits.project(graph.widths)
    assert bool(limits.met(widths)) and widths[0] % 4 == 0
    fewer = widths.clone()
    fewer[2:] = 1
    assert int(graph.cost.macs(fewer)) == int(graph.cost.macs(widths))
    assert int(graph.cost.nonzero(fewer)) < int(graph.cost.nonzero(widths))


@pytest.mark.parametrize("importance", [name for name in IMPORTANCES if name != "batch_norm"])
def test_every_importance_ranks_the_channels_as_without_masks(graph, importance):
    plain = trace(network(), EXAMPLE)
    plan = graph.plan(network(), torch.tensor([4, 9, 10, 20]), importance, EXAMPLE)
    expected = plain.plan(network(), torch.tensor([4, 9]), importance, EXAMPLE)
    assert {name: kept.tolist() for name, kept in plan.kept.items()} == {
        name: kept.tolist() for name, kept in expected.kept.items()
    }
    assert dict(plan.masks) == {"3.weight": 10, "5.weight": 20}


def test_layers_by_name_glob_and_type():
    for layers in (["3", "5"], ["*"], ["torch.nn.Linear"], [nn.Linear]):
        assert find_weights(network(), layers) == ("3.weight", "5.weight")
    assert find_weights(nn.Sequential(network(), nn.Linear(10, 2)), ["0"]) == ("0.3.weight", "0.5.weight")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("3", "groups.masks is '3': expected a list"),
        (["0"], "groups.masks '0' matches no linear layer: expected one of 3, 5"),
        (["6"], "groups.masks '6' matches no module"),
        (["torch.nn.LSTM"], "groups.masks torch.*LSTM: there is no module of this type"),
    ],
)
def test_refused_layers(layers, message):
    with pytest.raises(UserError, match=message):
        trace(network(), EXAMPLE, masks=layers)


def test_tied_and_unused_layers_are_refused():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(UserError, match=r"several modules share 0.weight"):
        find_weights(tied, ["0"])
    unused = network()
    unused[0].spare = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"outputs do not depend on 0.spare.weight"):
        trace(unused, EXAMPLE, masks=["0.spare"])
    with pytest.raises(UserError, match="matches no linear layer: this network has none"):
        find_weights(nn.Sequential(nn.Conv2d(3, 3, 1)), ["0"])


def test_a_budget_and_masks_need_each_other(graph):
    with pytest.raises(UserError, match=r"groups.masks needs budget.nonzero"):
        graph.project(graph.widths, macs=0.5)
    with pytest.raises(UserError, match=r"give layers in groups.masks"):
        Budget(nonzero=0.5).on(trace(network(), EXAMPLE))


def test_the_state_reads_a_mask_at_the_output_of_its_layer(graph):
    metrics = dict.fromkeys(("macs", "params", "nonzero"))
    builder = StateBuilder(graph, metrics=metrics)
    state = builder(torch.stack([graph.widths, torch.tensor([4, 9, 10, 20])]), torch.ones(2, 3))
    assert state.x.shape == (2 * builder.num_nodes, builder.state_dim) and bool(state.x.isfinite().all())
    nodes, groups = state.decision_index
    names = [graph.operators[stage.members[0]].name.partition(":")[0] for stage in builder.stages]
    for group, layer in ((2, "3"), (3, "5")):
        (node,) = nodes[groups == group].tolist()  # of the first graph
        assert node == builder._node(builder.stages[names.index(layer)].output)
    assert state.decision_weight[groups % 4 >= 2].tolist() == [1.0] * 4


@pytest.mark.parametrize("measure", ["outputs", "reconstruction"])
def test_narrower_masks_lose_more(graph, measure):
    pruner = Pruner(graph, network(), torch.randn(64, 1, 8, 8), repair="refit")
    sensitivity = SENSITIVITIES.find(measure).make(pruner)
    losses = sensitivity.losses[2:]
    assert bool((losses[:, 1:-1] >= losses[:, 2:]).all()) and bool((losses[:, 1] > losses[:, 32]).all())
    assert losses[:, PARTS].tolist() == [0.0, 0.0]


def test_the_mask_comes_after_the_repair(graph):
    pruner = Pruner(graph, network(), torch.randn(64, 1, 8, 8), repair="refit")
    widths = torch.tensor([4, 9, 10, 20])
    pruned = pruner.prune(pruner.plan(widths))
    parameters = [parameter.detach() for parameter in pruned.parameters()]
    assert sum(int((each != 0).sum()) for each in parameters) == int(graph.cost.nonzero(widths))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(8, 12), nn.Linear(12, 10), nn.Linear(10, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.a(x).relu()
        return self.d(x + self.c(self.b(x).relu()))


def test_a_masked_layer_may_go_entirely():
    dense = Residual()
    graph = trace(dense, torch.randn(2, 8), masks=["*"])
    widths = graph.widths.clone()
    widths[[group.name for group in graph.groups].index("b")] = 0
    pruned = graph.plan(dense, widths).apply(dense)
    with zeros_held(pruned, graph.masked):
        pruned(torch.randn(3, 8)).sum().backward()
    assert int(graph.cost.nonzero(widths)) == sum(parameter.numel() for parameter in pruned.parameters())


def test_kept_layers_are_not_masked():
    assert trace(network(), EXAMPLE, keep=["5"], masks=["*"]).masked == ("3.weight",)
    with pytest.raises(UserError, match=r"groups.keep leaves all of these layers unchanged"):
        trace(network(), EXAMPLE, keep=["5"], masks=["5"])


def test_other_layouts_and_names_of_a_weight():
    turned = network()
    turned[5].weight = nn.Parameter(torch.randn(20, 10).t())
    mask_smallest(turned, {"5.weight": 16})
    assert int((turned[5].weight == 0).sum()) == 150
    turned.also = turned[3]
    assert find_weights(turned, ["also"]) == ("3.weight",)
    weighted = network()
    value = weighted[3].weight.detach()
    del weighted[3].weight
    weighted[3].raw, weighted[3].weight = nn.Parameter(value), value * 2  # as the deprecated weight_norm does
    with pytest.raises(UserError, match=r"3.weight is computed from other parameters"):
        find_weights(weighted, ["3"])


def test_the_state_dict_keeps_its_order():
    pruned = network()
    order = list(pruned.state_dict())
    with zeros_held(pruned, ["3.weight", "5.weight"]):
        pass
    assert list(pruned.state_dict()) == order


def test_the_reconstruction_of_a_layer_whose_inputs_are_not_known(graph):
    pruner = Pruner(graph, network(), torch.randn(64, 1, 8, 8), repair="refit")
    known = {name: value for name, value in pruner.moments.items() if name != "5.weight"}
    pruner.__dict__["moments"] = known
    measured = SENSITIVITIES.find("reconstruction").make(pruner).measured
    assert bool((measured[3] > 0).all()) and float(measured[3, 0]) < 1
