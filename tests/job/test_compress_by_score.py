"""A network of the caller's own, pruned by a score of the caller's own, without targets or a data module."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from gnnrl_lightning import GNNRL, Budget, GroupOptions, Options, TrainingOptions, UserError, compress_by_score
from gnnrl_lightning.job import CandidateOptions, DeliveryOptions, EpisodeOptions, ScoringOptions


class Detector(nn.Module):
    """A backbone with two heads, whose outputs are a dictionary."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.boxes, self.classes = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 5, 1)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return {"boxes": self.boxes(x), "classes": self.classes(x)}


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
HELD_OUT = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(2))


class Likeness:
    """Minus the mean squared change of the boxes; it counts its calls, and spoils each network that it is given."""

    def __init__(self, dense):
        self.calls, self.dense = 0, copy.deepcopy(dense).eval()

    def of(self, network):
        with torch.no_grad():
            return -float((network(HELD_OUT)["boxes"] - self.dense(HELD_OUT)["boxes"]).square().mean())

    def __call__(self, network):
        assert not network.training
        self.calls += 1
        value = self.of(network)
        with torch.no_grad():
            network.boxes.weight.zero_()
        return value


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
    # Two passes over 24 inputs for repair and moments, and the passes of the sensitivity, cost evaluations, too.
    assert score.calls <= search["evaluations"] + 3 and search["evaluations"] <= 24
    json.dumps(dict(found.figures))
    *_, text = str(found).splitlines()
    assert f"found by {search['found_by']} in {search['evaluations']} evaluations" in text
    assert "Detector, budget: macs 0.5" in str(found) and "uniform" in str(found)


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


def test_inputs_may_be_a_tuple_and_layers_kept():
    torch.manual_seed(0)
    network, generator = Two(), torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 6, generator=generator), torch.randn(40, 4, generator=generator)
    held_out = torch.randn(20, 6, generator=generator), torch.randn(20, 4, generator=generator)
    wanted = network.eval()(*held_out).detach()

    def likeness(pruned):
        with torch.no_grad():
            return -float((pruned(*held_out) - wanted).square().mean())

    options = Options(candidate=CandidateOptions(calibration_examples=16))
    given = {"examples": 20, "evaluations": 40, "by": "greedy", "options": options}
    found = compress_by_score(network, likeness, inputs, Budget(params=0.5), **given)
    assert set(found.widths) == {"left", "right"}
    parameters = sum(parameter.numel() for parameter in found.network.parameters())
    assert found.figures["pruned"]["params"] == parameters <= 0.5 * found.figures["dense"]["params"]
    assert found.figures["pruned"]["score"] == pytest.approx(likeness(found.network))

    kept = compress_by_score(
        network, likeness, inputs, Budget(params=0.7), groups=GroupOptions(keep=["right"]), **given
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
        ({"inputs": {"x": INPUTS}}, "inputs is a dictionary: expected a tensor, or a tuple"),
        ({"inputs": torch.tensor(1.0)}, "inputs has a tensor without dimensions"),
        ({"inputs": torch.full((4, 3, 8, 8), math.nan)}, "inputs has NaN or infinite values"),
        ({"inputs": torch.zeros(4, 5, 8, 8)}, "the network refuses inputs of 5x8x8"),
        ({"budget": Budget(macs=10**9)}, "more than the dense network has"),
        ({"by": "nothing"}, "by is 'nothing'"),
        ({"by": None, "evaluations": 6}, "search.evaluations is 6: at least"),
        ({"examples": 0}, "examples is 0"),
        ({"options": Options(scoring=ScoringOptions(finetune_steps=1))}, "options.scoring is given"),
        ({"options": Options(finetuning=TrainingOptions(epochs=1))}, "options.finetuning is given"),
        ({"options": Options(delivery=DeliveryOptions(formats=["weights"]))}, "options.delivery.formats is given"),
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
