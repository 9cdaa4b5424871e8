"""Races by hand: the test, its error, the estimates; then whole searches, interrupted and not."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.racing import Course, estimate, hopeless, random_order, sign_test, stage_ends
from gnnrl_lightning.evaluation.result import Evaluation, best_of
from gnnrl_lightning.objective import Classification
from tests.support.fakes import scored


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [(0, 0, 1.0), (0, 1, 0.5), (1, 0, 1.0), (1, 3, 5 / 16), (2, 2, 11 / 16), (0, 5, 1 / 32), (3, 7, 176 / 1024)],
)
def test_sign_test_by_hand(wins, losses, expected):
    assert sign_test(wins, losses) == expected


def test_sign_test_is_the_binomial_tail():
    stats = pytest.importorskip("scipy.stats")
    for wins, losses in ((10, 31), (49, 50), (200, 260), (2000, 2100), (20_000, 20_200)):
        assert sign_test(wins, losses) == pytest.approx(stats.binom.cdf(wins, wins + losses, 0.5), rel=1e-9)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10] * 10, (1, 2, 4, 10)),
        ([256] * 19 + [136], (2, 4, 8, 20)),  # 512, 1024 and 2048 of 5000
        ([7] * 4 + [2], (1, 2, 5)),  # 7 are more than a fifth of 30, 14 more than two fifths
        ([64, 64], (1, 2)),  # half is more than twice a tenth, and a fifth, but not two fifths
        ([256, 31], (2,)),
        ([100], (1,)),
        ([30, 20], (1, 2)),
    ],
)
def test_stages_are_whole_batches(sizes, expected):
    assert stage_ends(sizes) == expected


def sums(right, cross_entropy, divergence):
    return {"top1": [100.0 * int(right.sum())], "cross_entropy": [cross_entropy], "divergence": [divergence]}


def column(course, name):
    return [stage[0] for stage in course.sums[name]]


def scores(means):
    return tuple(float(mean) for mean in means.values())


def course(*stages, loss=1.0):
    """A course over stages of images right (1) and wrong (0), each of which costs `loss`, and diverges by half."""
    made = Course()
    for stage in stages:
        right = torch.tensor([mark == "1" for mark in stage])
        made = made.followed_by(right, sums(right, loss * len(stage), loss * len(stage) / 2))
    return made


def test_a_course_adds_up():
    made = course("110", "01111", "1", loss=0.5)
    assert made.examples == 9 and made.scores().tolist() == [True, True, False, False, *[True] * 5]
    assert column(made, "cross_entropy") == [1.5, 4.0, 4.5] and column(made, "divergence") == [0.75, 2.0, 2.25]
    assert scores(made.means()) == (700 / 9, 0.5, 0.25)


def test_outputs_that_are_not_numbers_stay_infinite():
    right = torch.tensor([True])
    made = course("10").followed_by(right, sums(right, math.nan, 1.0)).followed_by(right, sums(right, 1.0, 1.0))
    assert column(made, "cross_entropy") == [2.0, math.inf, math.inf] and column(made, "divergence") == [1.0, 2.0, 3.0]
    assert scores(made.means()) == (75.0, math.inf, 0.75)


def test_a_course_takes_few_characters_and_comes_back_to_the_last_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(5000, generator=generator) < 0.9
    before = Course().followed_by(right[:512], sums(right[:512], 0.1 + 0.2, 1 / 3))
    before = before.followed_by(right[512:], sums(right[512:], math.inf, 1e-300))
    assert len(before.packed) == 836
    evaluation = scored((1, 2), 90.0, 0.3, seen=5000, course=before)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(evaluation.as_record())
    assert Evaluation.from_record(journal.read()[0]) == evaluation
    assert np.array_equal(evaluation.course.scores(), right.numpy())


def test_scores_that_are_no_booleans_come_back_to_the_last_bit(tmp_path):
    """Four bytes per score; NaN is worse than all other scores."""
    given = torch.tensor([0.1, -3.0, math.nan, 1e-30])
    before = Course().followed_by(given[:3], {"a": [1.0, 2.0]}).followed_by(given[3:], {"a": [3.0, math.nan]})
    assert len(before.packed) == 24 and before.sums == {"a": ((1.0, 2.0), (4.0, math.inf))}
    assert before.scores().tolist() == [*given[:2].tolist(), -math.inf, float(given[3])]
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(scored(course=before).as_record())
    assert Evaluation.from_record(journal.read()[0]).course == before


def test_hopeless_counts_the_examples_that_are_better_and_worse():
    """Nine losses against two wins, by however little; ties do not count."""
    theirs = torch.tensor([0.5] * 15)
    ours = theirs + torch.tensor([1e-3] * 2 + [-1e-3] * 9 + [0.0] * 4)
    whole = Course().followed_by(torch.cat([theirs, theirs]), {"a": [0.0]})
    assert hopeless(Course().followed_by(ours, {"a": [0.0]}), whole, 2, 67 / 2048 + 1e-9)
    assert not hopeless(Course().followed_by(ours, {"a": [0.0]}), whole, 2, 67 / 2048)


def test_hopeless_by_hand():
    """Two wins and nine losses: (1 + 11 + 55) / 2048 = 0.0327; in three stages with an error of 0.1 that is enough."""
    ours, theirs = course("11" + "0" * 9 + "1111"), course("00" + "1" * 9 + "1111", "1" * 20)
    assert sign_test(2, 9) == 67 / 2048
    assert hopeless(ours, theirs, 4, 0.099)
    assert not hopeless(ours, theirs, 4, 0.098)
    assert hopeless(ours, theirs, 2, 0.033) and not hopeless(ours, theirs, 2, 0.032)


def test_estimates_by_hand():
    """The incumbent has 7 of 10 right, 3 of the first 4; the candidate 1 of these 4: 70 - 100 * 2 / 4."""
    theirs, ours = course("1110", "011101", loss=0.3), course("0100", loss=0.7)
    top1, cross_entropy, divergence = scores(estimate(ours, theirs))
    assert top1 == 20.0
    assert cross_entropy == pytest.approx(0.3 + (0.7 - 0.3))
    assert divergence == pytest.approx(0.15 + (0.35 - 0.15))


def test_estimates_are_never_below_zero_and_infinite_only_by_their_own_fault():
    theirs, ours = course("1111", "0000", "0000", loss=1.0), course("0000", loss=0.0)
    assert scores(estimate(ours, theirs)) == (0.0, 0.0, 0.0)
    wild = course("1111", "0000", loss=math.inf)
    assert scores(estimate(course("0000", loss=0.7), wild)) == (0.0, 0.7, 0.35)
    assert scores(estimate(course("0000", loss=math.inf), theirs))[1:] == (math.inf, math.inf)


def test_a_control_variate_takes_the_images_out_of_the_estimate():
    """If two candidates differ by a constant, the estimate is exact for any images seen."""
    rng = np.random.default_rng(0)
    theirs = rng.random(1000) < 0.9
    losses = rng.random(1000)
    for start in (0, 300, 700):
        order = np.roll(np.arange(1000), start)
        parts = order[:100], order[100:]
        incumbent, ours = Course(), Course()
        for part in parts:
            right, lost = torch.from_numpy(theirs[part]), float(losses[part].sum())
            incumbent = incumbent.followed_by(right, sums(right, lost, lost / 2))
        right, lost = torch.from_numpy(theirs[parts[0]]), float(losses[parts[0]].sum())
        ours = ours.followed_by(right, sums(right, lost + 10, lost))
        assert scores(estimate(ours, incumbent))[0] == pytest.approx(100 * theirs.mean())
        assert scores(estimate(ours, incumbent))[1] == pytest.approx(losses.mean() + 0.1)


@pytest.mark.parametrize("error", [0.05, 0.3])
def test_a_candidate_that_is_as_good_is_dropped_at_most_as_often_as_stated(error):
    """Two candidates that are right equally often, in random orders; both differ on 200 of 1000 images."""
    rng = np.random.default_rng(0)
    runs, dropped = 1500, 0
    theirs = np.repeat([True, False, True, False], [700, 100, 100, 100])
    ours = np.repeat([True, False, False, True], [700, 100, 100, 100])
    for _ in range(runs):
        order = rng.permutation(1000)
        whole = Course().followed_by(torch.from_numpy(theirs[order]), {})
        seen = (Course().followed_by(torch.from_numpy(ours[order[:end]]), {}) for end in (100, 200, 400))
        dropped += any(hopeless(part, whole, 4, error) for part in seen)
    assert 0 < dropped / runs <= error


def test_a_dropped_candidate_lies_below_its_incumbent_and_is_never_the_best():
    """Random courses: up to an error of 1/2, whatever is hopeless has lost more often than it has won."""
    rng, count = np.random.default_rng(1), 0
    for _ in range(400):
        theirs, ours = (torch.from_numpy(rng.random(60) < share) for share in (0.9, rng.random()))
        incumbent = Course().followed_by(theirs[:30], sums(theirs[:30], 1.0, 1.0))
        incumbent = incumbent.followed_by(theirs[30:], sums(theirs[30:], 1.0, 1.0))
        part = Course().followed_by(ours[:30], sums(ours[:30], 1.0, 1.0))
        if hopeless(part, incumbent, 2, 0.5):
            count += 1
            assert estimate(part, incumbent)["top1"] < incumbent.means()["top1"]
    assert count > 100
    finalist, better = scored((1,), 50.0, seen=9), scored((2,), 60.0, dropped=True)
    assert best_of([better, finalist]) is finalist and best_of([better]) is better


def test_the_order_is_fixed_and_mixes_classes():
    order = random_order(1000)
    assert torch.equal(order, random_order(1000)) and torch.equal(order.sort().values, torch.arange(1000))
    # Of a folder that is sorted by ten classes, the first tenth has some of each.
    assert len((order[:100] // 100).unique()) == 10


class Answers(nn.Module):
    """A network with given answers: the image's number -> class."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, numbers):
        return 4 * nn.functional.one_hot(self.answers[numbers.flatten().long()], 2).float()


class Shelf:
    """A pruner that returns, for each width, a network with a given number of wrong images."""

    def __init__(self, images=100):
        costs = SimpleNamespace(costs=lambda widths: {"macs": int(widths.sum())})
        self.graph, self.layers, self.examples = costs, {}, 7
        self.device, self.channels_last = torch.device("cpu"), True
        self.numbers = images
        self.network = Answers(torch.zeros(images, dtype=torch.int64))
        self.made = []

    def plan(self, widths):
        return int(widths[0])

    def prune(self, width):
        self.made.append(width)
        wrong = torch.randperm(self.numbers, generator=torch.Generator().manual_seed(width))[:width]
        return Answers(torch.zeros(self.numbers, dtype=torch.int64).index_fill(0, wrong, 1))


def search_split(images=100):
    """One-pixel images that hold their number; all are of class 0."""
    pixels = torch.arange(images, dtype=torch.uint8)[:, None, None, None]
    return ImageSet(pixels, torch.zeros(images, dtype=torch.int64))


def racing(error=0.2, shelf=None):
    return Evaluator(shelf or Shelf(), search_split(), torch.Tensor.float, Classification(), 10, drop_probability=error)


def ask(evaluate, *widths):
    return [evaluate(torch.tensor([width]), "agent") for width in widths]


def test_the_first_candidate_and_those_that_keep_up_are_scored_in_full():
    first, worse, near, better = ask(racing(), 10, 90, 11, 2)
    assert (first.scores["top1"], first.seen, first.examples, first.dropped) == (90.0, 100, 107, False)
    assert near.scores["top1"] == 89.0 and near.seen == 100 and better.scores["top1"] == 98.0
    # Of the first ten images, one stage, it has too many wrong.
    assert (worse.seen, worse.examples, worse.dropped, worse.course) == (10, 17, True, None)
    assert worse.merit[0] < first.merit[0] and worse.merit[1] < first.merit[1]


def test_the_incumbent_is_the_best_finalist():
    """60 wrong ones are hopeless beside 2, and were not beside 70: the incumbent is the best one, not the latest."""
    evaluator = racing()
    first, second, third, fourth = ask(evaluator, 70, 60, 2, 61)
    assert not first.dropped and not second.dropped and not third.dropped and fourth.dropped
    assert evaluator._incumbent is third


def test_without_an_error_all_are_scored_in_full():
    results = ask(racing(error=None), 10, 90, 11)
    assert [item.seen for item in results] == [100] * 3
    assert [item.scores["top1"] for item in results] == [90.0, 10.0, 89.0]
    assert all(item.course is None and not item.dropped for item in results)


def test_what_a_race_reads_is_a_part_of_what_is_scored_without():
    """Finalists score the same to the last bit, and in the same order."""
    plain, raced = (ask(racing(error), 30, 50, 20, 90, 10) for error in (None, 0.2))
    for whole, item in zip(plain, raced, strict=True):
        if not item.dropped:
            assert item.merit == (whole.merit[0], pytest.approx(whole.merit[1]))
    assert sum(item.dropped for item in raced) > 0


def journalled(path, resume, shelf):
    return Journalled(racing(shelf=shelf), Journal(path, resume), lambda costs: {"macs_ratio": costs["macs"] / 100})


COURSE = [70, 90, 20, 60, 70, 5, 20, 40, 30, 60, 3, 25, 90]


@pytest.mark.parametrize("lines", range(len(COURSE) + 1))
@pytest.mark.parametrize("skip", [False, True])
def test_a_search_that_is_resumed_anywhere_takes_the_same_course(tmp_path, lines, skip):
    """With only a journal, its evaluations are replayed in order, without using later ones."""
    whole = ask(journalled(tmp_path / "whole", False, Shelf()), *COURSE)
    assert 0 < sum(item.dropped for item in whole) < len(COURSE)
    text = (tmp_path / "whole").read_text().splitlines(keepends=True)
    (tmp_path / "j").write_text("".join(text[:lines]))
    shelf = Shelf()
    resumed = journalled(tmp_path / "j", True, shelf)
    before = resumed.skip(lines) if skip else ask(resumed, *COURSE[:lines])
    assert shelf.made == []
    after = ask(resumed, *COURSE[lines:])
    assert without_time(before + after) == without_time(whole)


def test_the_incumbent_follows_what_is_asked_not_what_is_known(tmp_path):
    """The journal has a candidate with 2 wrong; until it is requested, the best one is the one with 70."""
    ask(journalled(tmp_path / "j", False, Shelf()), 70, 2)
    resumed = journalled(tmp_path / "j", True, Shelf())
    ask(resumed, 70)
    (other,) = ask(resumed, 61)
    assert not other.dropped
    (late,) = ask(resumed, 2)
    assert late.examples == 0 and ask(resumed, 62)[0].dropped


def without_time(evaluations):
    return [replace(item, seconds=0.0) for item in evaluations]


def test_a_journal_line_has_what_a_race_needs_of_finalists_alone(tmp_path):
    ask(journalled(tmp_path / "j", False, Shelf()), 10, 90)
    first, second = (json.loads(line) for line in (tmp_path / "j").read_text().splitlines())
    assert first["course"]["examples"] == 100 and len(first["course"]["sums"]["cross_entropy"]) == 4
    assert second["course"] is None and (second["dropped"], second["seen"]) == (True, 10)
