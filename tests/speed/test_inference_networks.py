"""Candidates of every network of the other tests: repaired, and scored as they compute."""

import pkgutil
from importlib import import_module

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.speed.inference import for_inference
from gnnrl_lightning.trees import call, channels_last, tensors
from tests import support
from tests.support.exactness import random_weights
from tests.support.networks_zoo import WRITTEN, ZOO

for module in pkgutil.iter_modules(support.__path__):
    if module.name.startswith("networks"):
        import_module(f"{support.__name__}.{module.name}")  # which registers its networks
CASES = {**ZOO, **WRITTEN}
EACH = 12
"""One in so many networks is tried always, the others by `make test-all`."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if place % EACH else []) for place, name in enumerate(CASES)]
)
def test_a_candidate_is_scored_as_it_computes(name):
    torch.manual_seed(0)
    network, inputs = random_weights(CASES[name].build()).float(), CASES[name].inputs()
    given = inputs if len(inputs) > 1 else inputs[0]
    graph = gnnrl_lightning.trace(network, given, self_test=False)
    if not graph.groups:
        pytest.skip("nothing can be pruned")
    pruner = Pruner(graph, network, given, repair="refit")
    pruned = pruner.prune(pruner.plan((graph.widths * 2 // 3).maximum(graph.smallest)))
    fast = for_inference(independent_copy(pruned), pruner.layers, last=pruner.channels_last)
    found = []
    for each, x in ((pruned, given), (fast, channels_last(given, pruner.channels_last))):
        torch.manual_seed(1)  # of networks that draw numbers
        with torch.no_grad():
            found.append([tensor for tensor in tensors(call(each, x)) if tensor.is_floating_point()])
    for expected, scored in zip(*found, strict=True):
        assert bool(expected.isfinite().all())
        scale = float(expected.abs().max()) if expected.numel() else 1.0
        torch.testing.assert_close(scored, expected, rtol=0, atol=1e-3 * max(scale, 1e-6))
