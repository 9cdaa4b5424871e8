"""A network of the caller's own, pruned by a score of the caller's own, without targets or a data module."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from gnnrl_lightning import GNNRL, Budget, GroupOptions, Options, TrainingOptions, UserError, compress_by_score, trace
from gnnrl_lightning.cost.grid import Grid
from gnnrl_lightning.job import (
    CandidateOptions,
    DeliveryOptions,
    EpisodeOptions,
    FinalsOptions,
    ScoringOptions,
    SearchOptions,
)
from gnnrl_lightning.speed.grids import wanted_grids
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.table import as_record
from tests.support.fakes import Detector, boxes_likeness


class Two(nn.Module):
    """Two inputs of different shapes."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(6, 16), nn.Linear(4, 10), nn.Linear(26, 3)

    def forward(self, left, right):
        return self.out(torch.cat([self.left(left).relu(), self.right(right).relu()], 1))


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return Detector().train()


INPUTS = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Likeness:
    """The likeness of the boxes; it counts its calls, and spoils each network that it is given."""

    def __init__(self, dense):
        self.calls, self.of = 0, boxes_likeness(copy.deepcopy(dense).eval())

    def __call__(self, network):
        self.calls += 1
        value = self.of(network)
        with torch.no_grad():
            network.boxes.weight.zero_()
        return value


class Predicting(Detector):
    """Its outputs have no gradients, as those of detectors that end with predictions."""

    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


def macs(network):
    return sum(layer.weight.numel() * 64 for layer in network.modules() if isinstance(layer, nn.Conv2d))


def test_the_agent_prunes_a_detector_by_a_score(detector, tmp_path, monkeypatch):
    """The figures are those of the network that comes back; the given one is as it was, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    before, score = copy.deepcopy(detector.state_dict()), Likeness(detector)
    agent = GNNRL(episodes_per_iteration=4, proxy_warmup=2, proxy_between=1, proxy_episodes=8, epochs=1)
    found = compress_by_score(detector, score, INPUTS, Budget(macs=0.5), examples=32, evaluations=24, by=agent)
    assert detector.training and list(tmp_path.iterdir()) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())

    network, pruned = found.network, found.figures["pruned"]
    assert isinstance(network, Detector) and not network.training
    assert list(found.widths.values()) == [network.first.out_channels, network.second.out_channels] == pruned["widths"]
    assert pruned["macs"] == macs(network) <= 0.5 * macs(detector) == 0.5 * found.figures["dense"]["macs"]
    assert pruned["score"] == pytest.approx(score.of(network)) and found.figures["dense"]["score"] == 0.0
    search = found.figures["search"]
    # It learns from the surrogate, and from the score itself.
    assert agent.evaluate is not None and agent.evaluate.predicted
    assert max(reward for _, reward in agent.evaluate.predicted) == pytest.approx(float(agent.reward_best))
    assert search["score_search"] >= float(agent.reward_best) - 1e-6
    # Two passes over 24 inputs for repair and moments, and the passes of the sensitivity, cost evaluations, too: nine
    # networks of four widths of either group and the dense one.
    assert search["examples"] == 24 * (2 + 9) + (score.calls - 3) * (32 + 24)
    assert score.calls <= search["evaluations"] + 3 and search["evaluations"] <= 24
    json.dumps(dict(found.figures))
    *_, text = str(found).splitlines()
    assert f"found by the agent in {search['evaluations']} evaluations" in text and search["found_by"] == "agent"
    assert "Detector, budget: macs 0.5" in str(found) and "uniform" in str(found) and repr(found) == str(found)


def test_one_search_names_the_best_candidate_for_several_budgets(detector):
    agent = GNNRL(episodes_per_iteration=4, proxy_warmup=2, proxy_between=1, proxy_episodes=8, epochs=1)
    options = Options(episode=EpisodeOptions(macs_range=(0.3, 0.9)))
    given = detector, Likeness(detector), INPUTS, Budget(macs=0.5)
    found = compress_by_score(*given, examples=32, evaluations=32, by=agent, options=options)
    front = found.figures["search"]["front"]
    assert [row["macs_budget"] for row in front] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert all(row["macs_ratio"] <= row["macs_budget"] and list(row["widths"]) == list(found.widths) for row in front)
    scores = [row["score_search"] for row in front]
    assert scores == sorted(scores) and found.figures["search"]["score_search"] == scores[2]


@pytest.mark.parametrize("sensitivity", ["outputs", "reconstruction"])
def test_outputs_need_no_gradients(sensitivity):
    torch.manual_seed(0)
    network = Predicting().eval()
    agent = GNNRL(episodes_per_iteration=4, proxy_warmup=1, proxy_between=0, proxy_episodes=4, epochs=1)
    given = {"examples": 32, "evaluations": 24, "options": Options(search=SearchOptions(sensitivity=sensitivity))}
    found = compress_by_score(network, Likeness(network), INPUTS, Budget(macs=0.5), by=agent, **given)
    assert agent.evaluate.predicted
    assert found.figures["pruned"]["macs_ratio"] <= 0.5


@pytest.mark.parametrize("method", ["greedy", "random", "evolution_from_sensitivity"])
def test_methods_by_name_search_too(detector, method):
    """The best of all that the search has scored comes back, and the same seed finds it again."""
    options = Options(delivery=DeliveryOptions(repair="reconstruction"))
    given = {"examples": 32, "evaluations": 24, "by": method, "options": options}
    first = compress_by_score(detector, Likeness(detector), INPUTS, Budget(macs=0.5), **given)
    again = compress_by_score(detector, Likeness(detector), INPUTS, Budget(macs=0.5), **given)
    assert first.widths == again.widths
    assert first.figures["pruned"] == again.figures["pruned"]
    assert first.figures["search"]["found_by"] == method


def test_the_best_score_wins_and_more_than_macs_can_be_limited(detector):
    """With a score that depends on one group only, that group keeps as many channels as the budget allows."""

    def wide_first(network):
        return network.first.out_channels

    found = compress_by_score(
        detector, wide_first, INPUTS, Budget(macs=0.5, activations=0.95), evaluations=200, examples=1000, by="random"
    )
    widths = [
        (first, second)
        for first in range(1, 9)
        for second in range(1, 13)
        if 64 * (27 * first + 9 * first * second + 9 * second) <= 0.5 * macs(detector)
    ]
    assert (
        found.figures["pruned"]["score"] == max(first for first, _ in widths) == found.figures["search"]["score_search"]
    )
    assert found.figures["pruned"]["activations_ratio"] <= 0.95


def named(examples, seed):
    """Inputs of `Two`; by name they need not be in the order of its arguments."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(examples, size, generator=generator) for name, size in {"right": 4, "left": 6}.items()}


def likeness_of_two(network):
    held_out = named(20, 2)
    wanted = network(**held_out).detach()

    @torch.no_grad()
    def score(pruned):
        return -float((pruned(**held_out) - wanted).square().mean())

    return score


@pytest.fixture
def two():
    torch.manual_seed(0)
    return Two().eval()


FEW = {"examples": 20, "evaluations": 40, "options": Options(candidate=CandidateOptions(calibration_examples=16))}


def test_inputs_may_be_several_by_position_or_by_name_with_the_same_result(two):
    inputs, score = named(40, 1), likeness_of_two(two)
    by_name, by_position = (
        compress_by_score(two, score, given, Budget(params=0.5), by="greedy", **FEW)
        for given in (inputs, (inputs["left"], inputs["right"]))
    )
    assert set(by_name.widths) == {"left", "right"} and by_name.widths == by_position.widths
    assert by_name.figures["pruned"]["score"] == by_position.figures["pruned"]["score"]
    for found in (by_name, by_position):
        parameters = sum(parameter.numel() for parameter in found.network.parameters())
        assert found.figures["pruned"]["params"] == parameters <= 0.5 * found.figures["dense"]["params"]
        assert found.figures["pruned"]["score"] == pytest.approx(score(found.network))


def test_an_agent_prunes_a_network_of_inputs_by_name(two):
    agent = GNNRL(episodes_per_iteration=4, proxy_warmup=1, proxy_between=0, proxy_episodes=4, epochs=1)
    found = compress_by_score(two, likeness_of_two(two), named(40, 1), Budget(params=0.5), by=agent, **FEW)
    assert int(agent.evaluations) >= 4 and found.figures["pruned"]["params_ratio"] <= 0.5


def test_layers_may_be_kept(two):
    groups = GroupOptions(keep=["right"])
    kept = compress_by_score(
        two, likeness_of_two(two), named(40, 1), Budget(params=0.7), by="greedy", groups=groups, **FEW
    )
    assert set(kept.widths) == {"left"} and kept.network.get_parameter("right.weight").shape == (10, 4)


def raising(network):
    raise RuntimeError("no\nimages")


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda network: math.nan, "the score of the dense network is nan: expected a finite number"),
        (lambda network: -math.inf, "the score of the dense network is -inf: expected a finite number"),
        (lambda network: None, "the score of the dense network fails: .*NoneType"),
        (raising, r"the score of the dense network fails: .*no images"),
        (
            lambda network: 1.0 if network.first.out_channels == 8 else math.nan,
            r"the score of the candidate with widths \[\d+, \d+\] is nan: expected a finite number",
        ),
    ],
)
def test_a_score_that_is_none_is_refused_in_one_line(detector, score, message):
    with pytest.raises(UserError, match=message) as caught:
        compress_by_score(detector, score, INPUTS, Budget(macs=0.5), evaluations=20, by="uniform")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": INPUTS[:0]}, "inputs is empty"),
        ({"inputs": (INPUTS, INPUTS[:3])}, r"inputs: expected tensors of as many examples each, got \[3, 24\]"),
        ({"inputs": {"y": INPUTS}}, "the network refuses inputs of 3x8x8: .*unexpected keyword argument 'y'"),
        ({"inputs": torch.tensor(1.0)}, "inputs has a tensor without dimensions"),
        ({"inputs": torch.full((4, 3, 8, 8), math.nan)}, "inputs has NaN or infinite values"),
        ({"inputs": torch.zeros(4, 5, 8, 8)}, "the network refuses inputs of 5x8x8"),
        ({"budget": Budget(macs=10**9)}, "more than the dense network has"),
        ({"by": "nothing"}, "by is 'nothing'"),
        ({"by": None, "evaluations": 6}, "search.evaluations is 6: at least"),
        ({"examples": 0}, "examples is 0"),
        ({"options": Options(scoring=ScoringOptions(finetune_steps=1))}, "options.scoring is given"),
        ({"options": Options(finetuning=TrainingOptions(epochs=1))}, "options.finetuning is given"),
        ({"options": Options(finals=FinalsOptions(candidates=2))}, "options.finals is given"),
        ({"options": Options(delivery=DeliveryOptions(formats=["weights"]))}, "options.delivery.formats is given"),
        ({"options": Options(delivery=DeliveryOptions(fastest_of=4))}, "options.delivery.fastest_of is given"),
        ({"options": Options(delivery=DeliveryOptions(largest_drop=0.1))}, "options.delivery.largest_drop is given"),
        ({"by": None, "options": Options(episode=EpisodeOptions(reward="top1"))}, "episode.reward is 'top1'"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_scored(detector, changed, message):
    given = {"inputs": INPUTS, "budget": Budget(macs=0.5), "evaluations": 200, "by": "uniform"} | changed
    with pytest.raises(UserError, match=message):
        compress_by_score(detector, lambda network: pytest.fail("scored"), **given)


def test_weights_that_are_not_finite_are_refused(detector):
    nn.init.constant_(detector.first.bias, math.nan)
    with pytest.raises(UserError, match=r"NaN or infinite values in first\.bias"):
        compress_by_score(detector, lambda network: 0.0, INPUTS, Budget(macs=0.5))


def test_latency_is_limited_by_a_table(tmp_path):
    """Of another machine, whose convolutions take a millisecond for each output channel, and all else nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()
    images = torch.randn(64, 3, 8, 8)
    _, wanted = wanted_grids(trace(network, images[:1]), network)
    grids = {
        name: Grid(each.inputs, each.outputs, tuple(tuple(map(float, each.outputs)) for _ in each.inputs))
        if name.startswith("conv2d")
        else Grid(each.inputs, each.outputs, ((0.0,) * len(each.outputs),))
        for name, each in wanted.items()
    }
    (tmp_path / "phone.json").write_text(json.dumps({"operators": as_record(grids)}))
    options = Options(latency=LatencyOptions(table=str(tmp_path / "phone.json")))
    found = compress_by_score(
        network, lambda made: -float(made(images).detach().abs().mean()), images, Budget(latency="11 ms"), by="greedy",
        evaluations=20, options=options,
    )  # fmt: skip
    assert found.figures["dense"]["latency"] == 12 + 8 + 2
    assert found.figures["pruned"]["latency"] == sum(found.widths.values()) + 2 == 11
    assert found.figures["latency"]["table"] == str(tmp_path / "phone.json")
    with pytest.raises(UserError, match=r"^options\.latency is given, and the budget has no limit on latency: leave"):
        compress_by_score(network, lambda made: 0.0, images, Budget(macs=0.5), by="greedy", options=options)
