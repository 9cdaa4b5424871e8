import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner, default_calibration_examples, default_final_examples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.cifar_resnet import CIFARResNet
from gnnrl_lightning.repair.batchnorm import reestimate_batch_norm
from gnnrl_lightning.repair.table import REPAIRS, Repair
from tests.support.exactness import assert_untouched, macs_of, snapshot
from tests.support.networks_readers import correlated


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = CIFARResNet(1, num_classes=4).eval()  # ResNet-8
    reestimate_batch_norm(network, [torch.randn(32, 3, 8, 8)])
    return network


@pytest.fixture(scope="module")
def graph(network):
    return gnnrl_lightning.trace(network, torch.zeros(1, 3, 8, 8))


@pytest.fixture
def calibration():
    return torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("repair", REPAIRS)
def test_pruned_networks_have_the_widths_asked_for(graph, network, calibration, repair):
    before = snapshot(network)
    pruner = Pruner(graph, network, calibration, repair=repair, batch_size=10)
    widths = graph.widths // 2
    plan = pruner.plan(widths)
    pruned = pruner.prune(plan)
    assert torch.equal(plan.widths, widths)
    assert not any(module.training for module in pruned.modules())
    assert macs_of(pruned, (torch.zeros(1, 3, 8, 8),)) == int(graph.cost.macs(widths))
    assert all(tensor.isfinite().all() for tensor in pruned.state_dict().values())
    assert_untouched(network, before)


@pytest.mark.parametrize("repair", REPAIRS)
def test_the_same_widths_give_the_same_network(graph, network, calibration, repair):
    first, second = (Pruner(graph, network, calibration, repair=repair) for _ in range(2))
    plan = first.plan(graph.widths // 2)
    one = state(first.prune(plan))
    first.prune(first.plan(graph.smallest))  # what came in between does not matter
    for other in (first.prune(plan), second.prune(second.plan(graph.widths // 2))):
        assert all(torch.equal(tensor, one[name]) for name, tensor in other.state_dict().items())


def test_another_repair_needs_another_pruner(graph, network, calibration):
    """An assignment would change nothing: the repair is looked up once."""
    pruner = Pruner(graph, network, calibration, repair="none")
    with pytest.raises(AttributeError):
        pruner.repair = "refit"
    with pytest.raises(AttributeError):
        pruner.importance = "l1"
    other = pruner.final(calibration, "refit")
    assert (pruner.repair, other.repair, other.importance) == ("none", "refit", pruner.importance)
    before, after = (each.prune(each.plan(graph.widths // 2))(calibration) for each in (pruner, other))
    assert not torch.allclose(before, after)


def test_without_repair_the_weights_are_slices(graph, network, calibration):
    pruner = Pruner(graph, network, calibration, repair="none")
    plan = pruner.plan(graph.widths // 2)
    pruned, sliced = pruner.prune(plan).state_dict(), plan.apply(network).state_dict()
    assert all(torch.equal(tensor, sliced[name]) for name, tensor in pruned.items())


def test_batch_norm_repair_is_the_slices_with_new_statistics(graph, network, calibration):
    pruner = Pruner(graph, network, calibration, repair="batch_norm", batch_size=10)
    plan = pruner.plan(graph.widths // 2)
    expected = plan.apply(network)
    reestimate_batch_norm(expected, calibration.split(8))  # three alike
    pruned = pruner.prune(plan).state_dict()
    assert all(torch.equal(tensor, pruned[name]) for name, tensor in expected.state_dict().items())


def test_plans_are_nested_and_those_of_the_graph(graph, network, calibration):
    """Channels kept at a smaller width are kept at a larger one; the graph's own plan makes the same choice."""
    pruner = Pruner(graph, network, calibration, importance="l1")
    small, large = pruner.plan(graph.widths // 4), pruner.plan(graph.widths // 2)
    own = graph.plan(network, graph.widths // 2, importance="l1")
    for name, kept in large.kept.items():
        assert torch.equal(kept, own.kept[name])
        assert set(small.kept[name].tolist()) < set(kept.tolist())


@pytest.mark.parametrize("repair", REPAIRS)
def test_repairs_say_whether_they_read_examples(graph, network, calibration, repair):
    """Shared results are computed once, and only if a repair reads them."""
    pruner = Pruner(graph, network, calibration, repair=repair)
    assert pruner.examples == (24 if REPAIRS[repair].reads_examples else 0)
    plan = pruner.plan(graph.widths // 2)
    pruner.prune(plan)
    passed = []
    with torch.nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: passed.append(module)):
        pruner.prune(plan)
    assert bool(passed) == REPAIRS[repair].reads_examples


def test_what_is_delivered_has_the_same_channels_and_a_repair_of_its_own(graph, network, calibration):
    """Scores are those of the first examples, also where they depend on examples."""
    pruner = Pruner(graph, network, calibration, importance="surgeon", repair="batch_norm", dtype=torch.bfloat16)
    more = torch.cat([calibration, torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(2))])
    other = pruner.final(more, "reconstruction")
    plans = [each.plan(graph.widths // 2) for each in (pruner, other)]
    assert all(torch.equal(kept, plans[1].kept[name]) for name, kept in plans[0].kept.items())
    fresh = Pruner(graph, network, more, importance="l2", repair="reconstruction")
    expected, pruned, before = (each.prune(plans[0]).state_dict() for each in (fresh, other, pruner))
    assert all(torch.equal(tensor, pruned[name]) for name, tensor in expected.items())
    assert any(not torch.equal(tensor, pruned[name]) for name, tensor in before.items())
    assert (other.examples, pruner.final(more, "refit").examples) == (0, 64)


@pytest.mark.parametrize("repair", ["batch_norm", "refit"])
def test_a_repair_with_bfloat16_activations_is_close(graph, network, calibration, repair):
    """Weights and statistics stay float32, and the network computes nearly the same."""
    outputs = []
    for dtype in (torch.float32, torch.bfloat16):
        pruner = Pruner(graph, network, calibration, repair=repair, dtype=dtype)
        pruned = pruner.prune(pruner.plan(graph.widths // 2))
        assert {tensor.dtype for tensor in pruned.state_dict().values()} <= {torch.float32, torch.int64}
        with torch.no_grad():
            outputs.append(pruned(calibration))
    scale = outputs[0].abs().max()
    assert 1e-6 * scale < (outputs[1] - outputs[0]).abs().max() < 0.05 * scale


@pytest.mark.parametrize(("side", "images"), [(8, 4096), (512, 1536), (1024, 384)])
def test_large_images_are_fewer(side, images):
    """A map and the one computed from it take 8 bytes a pixel: 3 GiB / (8 * 512 * 512) = 1,536."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 1, side, side))
    assert default_final_examples(graph) == images


@pytest.mark.parametrize(
    ("width", "side", "examples"),
    [
        (16, 32, 64),  # 5 * 16 * 9 / 48 = 15
        (96, 32, 90),  # 5 * 96 * 9 / 48
        (96, 4, 256),  # 16 positions: 270
        (512, 32, 256),
    ],
)
def test_wider_layers_are_repaired_with_more_examples(width, side, examples):
    layers = [nn.Conv2d(1 if place == 0 else width, width, 3, padding=1) for place in range(12)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))
    graph = gnnrl_lightning.trace(network.eval(), torch.zeros(1, 1, side, side), self_test=False)
    assert default_calibration_examples(graph) == examples


def test_operators_that_read_parameters_alone_need_no_examples():
    class Query(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.project = nn.Parameter(torch.randn(5, 2000)), nn.Linear(2000, 16)
            self.conv, self.out = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(16, 4)

        def forward(self, x):
            return self.out(self.conv(x).mean((2, 3)) + self.project(self.query).mean(0))

    graph = gnnrl_lightning.trace(Query().eval(), torch.zeros(1, 1, 8, 8))
    assert default_calibration_examples(graph) == 73  # 5 * (0.9 * 16 + 0.1 * 9 / 48): quantile of 9 / 48 and 16


def test_importance_is_computed_once(graph, network, calibration):
    calls = []

    def criterion(module, parameters, images):
        calls.append((module is network, images.inputs is calibration))
        return {name: tensor.abs() for name, tensor in parameters.items()}

    pruner = Pruner(graph, network, calibration, importance=criterion)
    assert calls == []
    pruner.plan(graph.widths)
    pruner.plan(graph.smallest)
    assert calls == [(True, True)]


def halve(dense, pruned, selection):
    """A repair with a visible effect: it halves the weights."""
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.mul_(0.5)


def test_a_repair_by_its_import_path(graph, network, calibration):
    """A plain function may read the examples, and counts a pass for each candidate."""
    pruner = Pruner(graph, network, calibration, repair=f"{__name__}.halve")
    assert (pruner.examples, pruner.passes) == (24, frozenset())
    plan = pruner.plan(graph.widths // 2)
    sliced = Pruner(graph, network, calibration, repair="none").prune(plan).state_dict()
    pruned = pruner.prune(plan)
    assert all(torch.equal(value, sliced[name] / 2) for name, value in pruned.named_parameters())
    silent = Pruner(graph, network, calibration, repair=Repair(halve, reads_examples=False, passes=("moments",)))
    assert (silent.examples, silent.passes) == (0, {"moments"})
    with pytest.raises(UserError, match=r"repair .*expected a Repair, or a function .*, not a int"):
        Pruner(graph, network, calibration, repair=3)


def test_unknown_names_are_refused(graph, network, calibration):
    with pytest.raises(UserError, match="importance is 'magic': expected one of l1, l2"):
        Pruner(graph, network, calibration, importance="magic")
    with pytest.raises(UserError, match=r"repair is 'magic': expected one of none, predicted_batch_norm, batch_norm"):
        Pruner(graph, network, calibration, repair="magic")


def error(pruner, widths, network, images):
    """Mean squared error of the logits."""
    with torch.no_grad():
        return float((pruner.prune(pruner.plan(widths))(images) - network(images)).square().mean())


def test_each_repair_is_better_than_the_cheaper_ones():
    torch.manual_seed(0)
    network, images = CIFARResNet(3, num_classes=10).eval(), correlated(64)
    reestimate_batch_norm(network, [images])
    graph = gnnrl_lightning.trace(network, images[:1], self_test=False)
    widths = torch.tensor([group.width // (1 + group.name.endswith(".conv1")) for group in graph.groups])
    errors = {name: error(Pruner(graph, network, images, repair=name), widths, network, images) for name in REPAIRS}
    assert errors["refit"] < errors["reconstruction"] < errors["predicted_batch_norm"] < errors["none"]
    assert errors["batch_norm"] < errors["none"]


@pytest.mark.parametrize("repair", sorted(set(REPAIRS) - {"batch_norm"}))
def test_at_dense_widths_the_network_stays(graph, network, calibration, repair):
    pruner = Pruner(graph, network, calibration, repair=repair)
    assert error(pruner, graph.widths, network, calibration) < 1e-6


def test_moments_are_collected_once_and_shared_with_the_surgeon(graph, network, calibration):
    pruner = Pruner(graph, network, calibration, importance="surgeon", repair="reconstruction")
    assert "moments" not in vars(pruner)
    wide, narrow = pruner.plan(graph.widths // 2), pruner.plan(graph.smallest)
    moments = vars(pruner)["moments"]
    assert set(moments) == set(pruner.layers)
    pruner.prune(wide)
    assert pruner.moments is moments
    assert all(set(kept.tolist()) <= set(wide.kept[name].tolist()) for name, kept in narrow.kept.items())
