"""The population of random networks: each kind is pruned exactly, records repeat, and structure can be learnt from."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from gnnrl_lightning.surrogate.prior import Prior
from gnnrl_lightning.tracer import trace

FOLDER = Path(__file__).parents[2] / "experiments" / "population"
KINDS = ["plain", "basic", "bottleneck", "inverted", "separable", "dense", "fire"]


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules."""
    sys.path.insert(0, str(FOLDER))
    names = ["networks", "images", "collect", "prior", "learn"]
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def examples(scripts):
    lines = (FOLDER / "population.jsonl").read_text(encoding="utf-8").splitlines()
    return [scripts["learn"].example(json.loads(line)) for line in lines[:8]]


@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_each_kind_are_pruned_exactly(scripts, kind):
    """The trace prunes the network itself and compares it with the masked one."""
    networks = scripts["networks"]
    assert list(networks.BLOCKS) == KINDS
    stages = (networks.Stage(kind, 8, 2, 1, 2.0, 2), networks.Stage(kind, 16, 2, 2, 1.0, 1))
    recipe = networks.Recipe(8, stages, 12, "silu", 3, 16)
    graph = trace(networks.RandomNetwork(recipe).eval(), (torch.randn(2, 3, 16, 16),))
    assert len(graph.groups) >= 4
    assert networks.Recipe.from_record(json.loads(json.dumps(recipe.as_record()))) == recipe


def test_a_number_is_always_the_same_network(scripts):
    recipe = scripts["networks"].random_recipe
    assert recipe(5, 0, 1, 16) == recipe(5, 0, 1, 16) != recipe(5, 1, 1, 16)
    kinds = [recipe(number, 0, 1, 16).families for number in range(70)]
    assert set.union(*kinds) == set(KINDS)
    assert any(len(each) > 1 for each in kinds)


def test_noisy_digits_are_copies_of_digits(scripts):
    data = scripts["images"].NoisyDigits(holdout_size=100)
    data.setup()
    assert data.image_shape == (1, 16, 16) and len(data.holdout) == 100
    assert len(data.train) + 100 == scripts["images"].COPIES * 1437 and len(data.test) == scripts["images"].COPIES * 360
    assert data.train.inputs.float().std() > 50


def test_the_records_fit_the_networks_that_their_recipes_make(examples):
    """Else `example` raises; candidates are distinct at each budget."""
    for item in examples:
        assert item.values.isfinite().all() and len(item.budgets.unique()) == 2
        for budget in item.budgets.unique():
            own = item.widths[item.budgets == budget]
            assert len(own.unique(dim=0)) == len(own) >= 8


def test_evidence_is_that_of_a_multivariate_normal(scripts, examples):
    item = examples[0]
    prior = item.network.flat
    squared = (item.x[:, None] - item.x[None]).square().mean(2)
    covariance = item.phi @ torch.diag(prior.scale.square()) @ item.phi.T
    covariance += prior.amplitude**2 * (-squared / (2 * prior.length**2)).exp()
    covariance += prior.noise**2 * torch.eye(len(squared), dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(item.phi @ prior.mean, covariance)
    constant = 0.5 * torch.tensor(2 * torch.pi).log()
    expected = -normal.log_prob(item.values) / len(squared) - constant
    found = scripts["learn"].negative_evidence(item, prior)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_learning_raises_the_evidence(scripts, examples):
    learn = scripts["learn"]
    network = learn.learn(examples, steps=30, batch=4)
    with torch.no_grad():
        learned = [learn.negative_evidence(item, network([item.network])[0]) for item in examples]
    flat = [learn.negative_evidence(item, item.network.flat) for item in examples]
    assert sum(learned) < sum(flat)


def test_a_batch_of_networks_has_the_priors_of_each(scripts, examples):
    network = scripts["prior"].PriorNetwork(examples[0].network.state.x.shape[1])
    together = network([item.network for item in examples[:3]])
    for item, prior in zip(examples[:3], together, strict=True):
        alone = network([item.network])[0]
        assert isinstance(prior, Prior) and prior.scale is item.network.flat.scale
        torch.testing.assert_close(prior.mean, alone.mean, atol=1e-5, rtol=1e-4)


def test_summaries_are_paired(scripts):
    rows = [
        {"flat": [0.1, 0.2, 0.3], "learned": [0.2, 0.4, 0.3]},
        {"flat": [0.3, 0.2, 0.3], "learned": [0.6, 0.4, 0.3]},
    ]
    first, second, third = scripts["learn"].summary(rows)
    assert (first["flat"], first["learned"], first["difference"]) == (0.2, 0.4, 0.2)
    assert first["low"] < 0.2 < first["high"] and second["low"] == second["high"] == 0.2 and third["difference"] == 0


@pytest.mark.slow
def test_a_network_is_trained_and_its_candidates_evaluated(scripts):
    data = scripts["images"].NoisyDigits(holdout_size=100)
    data.setup()
    record = scripts["collect"].record(4, data, epochs=1, weights=None)
    again = scripts["learn"].example(json.loads(json.dumps(record)))
    assert len(again.values) == len(record["rows"]) >= scripts["collect"].CANDIDATES
    assert {row["share"] for row in record["rows"]} == {round(float(each), 4) for each in again.budgets.unique()}
