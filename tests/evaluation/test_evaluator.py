"""Scores by hand on a linear network; the cache and the counts."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gnnrl_lightning
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.data import ExampleSet
from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.evaluation.evaluator import Evaluator, outcome
from gnnrl_lightning.objective import Classification, Regression
from gnnrl_lightning.surrogate.measures import measure_outputs
from tests.support.fakes import rescored
from tests.support.networks_code import Viewing


class Brightness(nn.Module):
    """Two hidden copies of the mean pixel; class 1 is bright. The second copy is the weaker one."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(1, 2, bias=False), nn.Linear(2, 2)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.tensor([[2.0], [1.0]]))
            self.head.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
            self.head.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, x):
        return self.head(self.hidden(x.flatten(1).mean(1, keepdim=True)))


@pytest.fixture
def search():
    """Images of brightness 0, 0.2, 0.8 and 2.0 (in the units of the network) and their labels."""
    pixels = torch.tensor([0, 20, 80, 200], dtype=torch.uint8)
    return ImageSet(pixels[:, None, None, None].expand(-1, 1, 2, 2).clone(), torch.tensor([0, 0, 1, 1]))


@pytest.fixture
def evaluator(search):
    network = Brightness()
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 1, 2, 2))
    pruner = Pruner(graph, network, torch.rand(5, 1, 2, 2))
    return Evaluator(pruner, search, lambda x: x.float() / 100, Classification(), batch_size=3)


@pytest.mark.parametrize("drop_probability", [None, 0.05])
def test_the_divergence_of_a_regression_does_not_depend_on_the_batches(search, evaluator, drop_probability):
    """Outputs of few examples may be alike, and a distance relative to their variance very large."""
    examples = ExampleSet(search.images, torch.randn(4, 2))
    found = set[float]()
    for size in (1, 2, 3, 4):
        given = evaluator.pruner, examples, evaluator.normalize, Regression(), size
        scores = Evaluator(*given, drop_probability=drop_probability)(torch.tensor([1]), "uniform").scores
        found.add(round(scores["divergence"], 6))
    assert len(found) == 1 and found.pop() > 0


def expected(brightness, labels, slope):
    """Top-1 and cross-entropy of logits (1, slope * brightness)."""
    right, loss = 0, 0.0
    for x, label in zip(brightness, labels, strict=True):
        logits = (1.0, slope * x)
        right += (logits[1] > logits[0]) == label
        loss += math.log(sum(map(math.exp, logits))) - logits[label]
    return 100 * right / len(labels), loss / len(labels)


@pytest.mark.parametrize(("width", "slope", "top1"), [(2, 2 - 1, 75.0), (1, 2, 100.0)])
def test_scores_by_hand(evaluator, width, slope, top1):
    """Without the second hidden channel the slope is 2 instead of 1, and 0.8 is on the right side."""
    result = evaluator(torch.tensor([width]), "uniform")
    by_hand = expected([0, 0.2, 0.8, 2.0], [0, 0, 1, 1], slope)
    assert by_hand[0] == top1 == result.scores["top1"]
    assert result.scores["cross_entropy"] == pytest.approx(by_hand[1], rel=1e-6)
    assert result.widths == (width,) and result.proposer == "uniform"
    assert result.costs == {"macs": 3 * width, "params": 3 * width + 2}
    assert result.examples == 5 + 4 and result.seconds > 0
    assert (result.seen, result.dropped, result.course) == (4, False, None)


@pytest.mark.parametrize(
    ("repair", "images"),
    [("none", 4), ("predicted_batch_norm", 4), ("batch_norm", 5 + 4), ("reconstruction", 4), ("refit", 5 + 4)],
)
def test_calibration_counts_where_the_repair_reads_it(search, evaluator, repair, images):
    first = evaluator.pruner
    pruner = Pruner(first.graph, first.network, first.calibration, repair=repair)
    scored = Evaluator(pruner, search, lambda x: x.float() / 100, Classification())
    assert scored(torch.tensor([1]), "uniform").examples == images
    assert scored(torch.tensor([1]), "agent").examples == 0


def test_known_widths_are_answered_from_the_cache(evaluator):
    first = evaluator(torch.tensor([1]), "uniform")
    second = evaluator(torch.tensor([1]), "agent")
    assert (second.scores, second.costs) == (first.scores, first.costs)
    assert (second.proposer, second.examples, second.seconds) == ("agent", 0, 0.0)


def test_what_was_learnt_is_not_evaluated_again(evaluator, search):
    first = evaluator(torch.tensor([1]), "uniform")
    other = Evaluator(evaluator.pruner, search, lambda x: pytest.fail("evaluated again"), Classification())
    other.learn([first])
    assert other(torch.tensor([1]), "agent") == replace(first, proposer="agent", examples=0, seconds=0.0)


def test_what_was_learnt_takes_the_place_of_what_was_found_out(evaluator):
    """Of what several processes say of one candidate all believe the same: the first that saw all images."""
    own = evaluator(torch.tensor([1]), "agent")
    dropped, full, later = (replace(rescored(own, top1=top1), dropped=top1 == 10) for top1 in (10.0, 20.0, 30.0))
    evaluator.learn([dropped, full, later])
    assert evaluator(torch.tensor([1]), "agent").scores["top1"] == 20
    evaluator.learn([dropped])
    assert evaluator(torch.tensor([1]), "agent").scores["top1"] == 10


def test_the_same_candidate_scores_the_same_whatever_came_before(search, evaluator):
    first = evaluator(torch.tensor([2]), "uniform")
    fresh = Evaluator(evaluator.pruner, search, lambda x: x.float() / 100, Classification(), batch_size=2)
    fresh(torch.tensor([1]), "agent")
    again = fresh(torch.tensor([2]), "agent")
    assert (again.scores["top1"], again.costs) == (first.scores["top1"], first.costs)
    assert again.scores["cross_entropy"] == pytest.approx(first.scores["cross_entropy"], rel=1e-6)


def test_a_reward_ranks_before_the_figures_of_the_objective(search, evaluator):
    """Top-1 prefers one hidden copy to two; a reward that does not comes first."""
    plain = [evaluator(torch.tensor([width]), "uniform") for width in (1, 2)]
    assert plain[0].merit > plain[1].merit
    likeness = {"reward": lambda item: -item.scores["divergence"], "batch_size": 3}
    ranked = Evaluator(evaluator.pruner, search, lambda x: x.float() / 100, Classification(), **likeness)
    found = [ranked(torch.tensor([width]), "uniform") for width in (1, 2)]
    assert found[0].merit < found[1].merit
    for item, before in zip(found, plain, strict=True):
        assert item.merit == (-item.scores["divergence"], *before.merit)


def test_outcomes_add_up_over_batches():
    """Batches of three and one: three images right of four."""
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    labels = torch.tensor([0, 0, 1, 0])
    even = torch.full((1, 2), math.log(0.5))  # a dense network that does not know
    batches = [(logits[:3], labels[:3]), (logits[3:], labels[3:])]
    goal = Classification(divergence_temperature=1)
    right, sums = outcome(nn.Identity(), batches, [even.expand(3, 2), even], goal)
    assert right.tolist() == [True, True, True, False]
    small, large = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert sums["top1"] == [300.0]
    assert sums["cross_entropy"] == pytest.approx([3 * small + large], rel=1e-6)
    assert sums["divergence"] == pytest.approx([2 * (small + large) - 4 * math.log(2)], rel=1e-5)


def test_outputs_that_are_not_numbers_rank_last(evaluator):
    with torch.no_grad():
        evaluator.pruner.network.head.bias.fill_(math.nan)
    result = evaluator(torch.tensor([1]), "uniform")
    assert (result.scores["cross_entropy"], result.scores["divergence"]) == (math.inf, math.inf)
    assert result.merit[1] == -math.inf


def test_candidates_may_be_trained_for_a_few_steps_first(evaluator, search):
    def pixels(images):
        return images.float() / 100

    short = ShortFinetune(
        search, lambda *given: given[:2], pixels, Classification(), steps=3, batch_size=2, learning_rate=0.5
    )
    trained = Evaluator(evaluator.pruner, search, pixels, Classification(), finetune=short)
    plain, after = evaluator(torch.tensor([1]), "a"), trained(torch.tensor([1]), "a")
    assert after.scores["cross_entropy"] != plain.scores["cross_entropy"]
    assert after.examples == plain.examples + 3 * 3 * 2  # a step is as dear as three passes
    network = trained.pruner.prune(trained.pruner.plan(torch.tensor([1])))
    short(network)
    with torch.no_grad():
        expected = float(cross_entropy(network(pixels(search.images)), search.labels))
    assert after.scores["cross_entropy"] == pytest.approx(expected)


def test_code_that_views_feature_maps_is_repaired_and_scored():
    network, images, labels = (
        Viewing().eval(),
        torch.randint(0, 255, (40, 3, 8, 8), dtype=torch.uint8),
        torch.arange(40) % 4,
    )
    graph = gnnrl_lightning.trace(network, torch.zeros(1, 3, 8, 8))
    pruner = Pruner(graph, network, torch.rand(64, 3, 8, 8), repair="refit")
    evaluator = Evaluator(pruner, ImageSet(images, labels), lambda x: x.float() / 255, Classification(), batch_size=40)
    widths = torch.tensor([5, 6])
    with torch.no_grad():
        outputs = pruner.prune(pruner.plan(widths))(images.float() / 255)
    assert evaluator(widths, "uniform").scores["cross_entropy"] == pytest.approx(
        float(cross_entropy(outputs, labels)), rel=1e-4
    )
    assert measure_outputs(pruner, (0.5, 1.0)).isfinite().all()
