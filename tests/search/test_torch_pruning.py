"""Widths from torch-pruning's result."""

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.networks.cifar_resnet import resnet20
from gnnrl_lightning.search import torch_pruning as module
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem
from gnnrl_lightning.search.torch_pruning import TorchPruning
from tests.support.fakes import SmallResNet, small_graph


def problem_of(graph, network, budget):
    pruner = Pruner(graph, network, torch.randn(2, 3, 8, 8))
    return SearchProblem(graph, budget.on(graph), lambda widths, proposer: None, 5, {}, pruner=pruner)


def test_uniform_ratios_are_uniform():
    pytest.importorskip("torch_pruning")
    graph, budget = small_graph(), Budget(macs=0.5)
    network = SmallResNet().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    widths = TorchPruning(everywhere=False)(problem_of(graph, network, budget))
    keep = widths / graph.widths
    assert budget.on(graph).met(widths[None]).all()
    # one ratio, up to rounding and the projection
    assert float(keep.max() - keep.min()) < 0.2
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_global_ratios_follow_the_weights():
    """The channels of a layer whose weights are tiny go first."""
    pytest.importorskip("torch_pruning")
    graph, network = small_graph(), SmallResNet().eval()
    falling = torch.linspace(1, 1e-3, 24)
    with torch.no_grad():
        network.inner[0].weight.mul_(falling[:, None, None, None])
        network.outer[0].weight.mul_(falling[:, None, None])
    widths = TorchPruning(everywhere=True)(problem_of(graph, network, Budget(macs=0.5)))
    names = [group.name for group in graph.groups]
    keep = dict(zip(names, (widths / graph.widths).tolist(), strict=True))
    assert Budget(macs=0.5).on(graph).met(widths[None]).all()
    assert keep["inner.0"] < keep["inner.1"]


def test_networks_that_it_cannot_do_are_refused():
    pytest.importorskip("torch_pruning")
    network = resnet20().eval()
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 8, 8), self_test=False)
    with pytest.raises(NotApplicable, match="torch-pruning fails on this network"):
        TorchPruning(everywhere=False)(problem_of(graph, network, Budget(macs=0.5)))


def test_where_it_is_not_installed_it_says_so(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(NotApplicable, match="torch-pruning is not installed"):
        TorchPruning(everywhere=False)(problem_of(small_graph(), SmallResNet(), Budget(macs=0.5)))
