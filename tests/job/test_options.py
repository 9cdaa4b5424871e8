"""Options of a job: costs, validation, and resolution of "auto"."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.projection import AllowedWidths
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.stage_options import StageOptions
from gnnrl_lightning.options import decided_as
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.search.options import SearchOptions
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.fakes import small_graph
from tests.support.options import options_of

LIMITS = Budget(macs=0.5).on(small_graph())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LatencyOptions(batch_size="x"), r"latency.batch_size is 'x': expected a whole number"),
        (lambda: LatencyOptions(batch_size=1.5), r"latency.batch_size is 1.5: expected a whole number"),
        (lambda: LatencyOptions(threads="a"), r"latency.threads is 'a': expected a whole number or null"),
        (lambda: LatencyOptions(table=3), r"latency.table is 3: expected the path of a file, or null"),
        (lambda: TrainingOptions(epochs="x"), r"epochs is 'x': expected a whole number"),
        (lambda: TrainingOptions(epochs=True), r"epochs is True: expected a whole number"),
        (lambda: TrainingOptions(learning_rate="x"), r"learning_rate is 'x': expected a finite number"),
        (lambda: DeliveryOptions(largest_drop=None), r"delivery.largest_drop is None: expected a finite number"),
        (lambda: DeliveryOptions(calibration_examples="few"), r"is 'few': expected a whole number or auto"),
        (lambda: DeliveryOptions(formats=[]), r"delivery.formats is empty: expected at least one of weights, "),
        (lambda: StageOptions([0.7], 1.5), r"stages.epochs is 1.5: expected a whole number, at least 0"),
        (lambda: StageOptions([0.7], [None]), r"stages.epochs is \[None\]: expected whole numbers"),
        (lambda: StageOptions(0.7), r"stages.shares is 0.7: expected a list of shares"),
        (
            lambda: Options(search=SearchOptions(evaluations=20.5)),
            r"search.evaluations is 20.5: expected a whole",
        ),
        (
            lambda: Options(candidate=CandidateOptions(calibration_examples=1.5)),
            r"calibration_examples is 1.5",
        ),
    ],
)
def test_values_of_other_types_are_refused_in_python_too(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("search", "evaluation", "spent"),
    [
        # Four groups, five ratios, all of which narrow: 64 * (1 + 20) = 1344 images, and 64 for the moments. Refit
        # records the dense network with 64 more. An evaluation takes 100, and the 64 of the calibration where the
        # repair reads them: 1472 / 164 = 8.98, 1408 / 164 = 8.6, 1408 / 100 = 14.1.
        ({}, 164, 9 + 6),
        ({"repair": "batch_norm"}, 164, 9 + 6),
        ({"repair": "reconstruction"}, 100, 15 + 6),
        ({"repair": "none"}, 100, 15 + 6),
        # Five steps of 30 images, too, each as dear as three passes: 1408 / 550 = 2.6, 1472 / 614 = 2.4.
        ({"repair": "none", "finetune_steps": 5}, 550, 3 + 6),
        ({"finetune_steps": 5}, 614, 3 + 6),
        # Statistics of the dense network alone: 64 images, or 128 with those of refit; a criterion may read 64 more.
        ({"sensitivity": "reconstruction"}, 164, 1 + 6),
        ({"sensitivity": "reconstruction", "importance": "fisher"}, 164, 2 + 6),
        ({"sensitivity": "reconstruction", "repair": "reconstruction"}, 100, 1 + 6),
        ({"sensitivity": None}, 164, 1 + 4),
        ({"sensitivity": None, "repair": "reconstruction"}, 100, 1 + 4),
        ({"sensitivity": None, "repair": "batch_norm"}, 164, 4),
        # Candidates are scored on 40 of the 100 held-out examples, and on no more than there are.
        ({"examples": 40, "repair": "reconstruction"}, 40, 36 + 6),
        ({"examples": 1000}, 164, 9 + 6),
        # 300 * 21 = 6300 images, and 300 or 600 more, of 400, or 100, an evaluation.
        ({"calibration_examples": 300}, 400, 18 + 6),
        ({"calibration_examples": 300, "repair": "reconstruction"}, 100, 66 + 6),
    ],
)
@pytest.mark.parametrize("episodes", [1, 8])
def test_iterations_by_hand(search, evaluation, spent, episodes):
    search = {"calibration_examples": 64, "repair": "refit"} | search
    assert options_of(**search).evaluation_examples(100, batch_size=30) == evaluation

    def iterations(evaluations):
        return options_of(evaluations=evaluations, **search).iterations(LIMITS, evaluation, episodes)

    assert iterations(spent + episodes) == 1
    assert iterations(spent + 3 * episodes - 1) == 2
    assert iterations(spent + 3 * episodes) == 3
    with pytest.raises(UserError) as error:
        iterations(spent + episodes - 1)
    starting = 4 if search.get("sensitivity", "") is None else 6
    assert str(error.value) == (
        f"search.evaluations is {spent + episodes - 1}: at least {spent + episodes} are needed, {spent} for the "
        f"{starting} starting candidates, calibration and sensitivity, and one iteration of {episodes} episodes"
    )


def test_groups_that_a_ratio_cannot_narrow_take_no_images():
    """Of one channel nothing can go; of two, all ratios up to 0.6 leave one, which is measured once, and 0.85 two."""
    limits = SimpleNamespace(allowed=AllowedWidths(torch.tensor([1, 2]), torch.tensor([1, 1])))
    options = options_of(evaluations=4 + 6 + 1, calibration_examples=50, repair="refit")  # 50 * (1 + 1) images + 50 * 2
    assert options.iterations(limits, 50, 1) == 1
    with pytest.raises(UserError, match=r"search.evaluations is 10: at least 11"):
        options_of(evaluations=4 + 6, calibration_examples=50, repair="refit").iterations(limits, 50, 1)


def test_candidates_race_unless_each_has_a_budget_of_its_own():
    several = EpisodeOptions(macs_range=(0.3, 0.7))
    assert options_of(drop_probability=0.1).drop_probability() == 0.1
    assert options_of(racing=False).drop_probability() is None
    assert options_of(macs_range=(0.3, 0.7)).drop_probability() is None
    assert options_of().playing(several).drop_probability() is None
    assert options_of(macs_range=(0.3, 0.7)).playing(EpisodeOptions(surrogate=False)).drop_probability() == 0.2


def test_candidates_from_which_a_surrogate_learns_do_not_race():
    assert options_of(surrogate=None).drop_probability() is None
    assert options_of().playing(EpisodeOptions()).drop_probability() is None
    assert options_of(surrogate=None, sensitivity=None).drop_probability() == 0.2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"max_steps": 5}, False),
        ({"penalty": -100.0}, False),
        ({"macs_range": (0.3, 0.7)}, True),
        ({"proposal": None}, False),
        ({"sensitivity": False}, False),
        ({"surrogate": False}, False),
        ({"surrogate": True, "max_steps": 5}, True),
    ],
)
def test_a_surrogate_is_used_where_nothing_speaks_against_it(settings, expected):
    assert EpisodeOptions(**settings).imagines("outputs") is expected
    assert EpisodeOptions(**settings).imagines(None) is (settings.get("surrogate") is True)


@pytest.mark.parametrize(("left", "whole", "begun"), [(3, 0, 0), (4, 1, 1), (7, 1, 2), (8, 2, 2), (9, 2, 3)])
def test_a_surrogate_leaves_no_evaluations_unused(left, whole, begun):
    """Where it chooses the candidates, the last iteration may have fewer than four; other episodes are all played."""
    assert EpisodeOptions(surrogate=False).iterations(left, 4, "outputs") == whole
    assert EpisodeOptions().iterations(left, 4, "outputs") == begun


def test_an_agent_reads_the_sensitivity_of_the_search_or_none():
    assert options_of(sensitivity="reconstruction").measure() == "reconstruction"
    assert options_of(sensitivity=None).measure() is None
    assert options_of().playing(EpisodeOptions(sensitivity=False)).measure() is None
    assert options_of(reads_sensitivity=False).measure() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"proposal": "luck"}, r"episode.proposal is 'luck': expected one of greedy, dynamic_programming, or null"),
        ({"surrogate": True, "proposal": None}, r"episode.surrogate needs the sensitivity, and an allocation"),
        ({"surrogate": True, "penalty": -100.0}, r"episode.surrogate evaluates only what meets the budget"),
        ({"surrogate": True, "sensitivity": None}, r"episode.surrogate needs a sensitivity: set search.sensitivity"),
        ({"finetune_steps": -1}, r"scoring.finetune_steps is -1: expected at least 0$"),
        ({"repair": "glue"}, r"candidate.repair is 'glue': expected one of none, predicted_batch_norm, batch_norm"),
        ({"importance": "size"}, r"candidate.importance is 'size': expected one of"),
        ({"precision": "8"}, r"scoring.precision is '8': expected one of 32, bf16, auto"),
        ({"drop_probability": 0.0}, r"scoring.drop_probability is 0.0: expected a number above 0 and at most 0.5"),
        ({"drop_probability": 0.6}, r"scoring.drop_probability is 0.6: expected a number above 0 and at most 0.5"),
        ({"batch_size": 0}, r"scoring.batch_size is 0: expected at least 1, or auto"),
        ({"sensitivity": "round"}, r"search.sensitivity is 'round'.* or an import path"),
        ({"finals": {"candidates": -1}}, r"finals.candidates is -1: expected at least 0"),
        ({"finals": {"steps": 0}}, r"finals.steps is 0: expected at least 1"),
        ({"delivery": {"repair": "glue"}}, r"delivery.repair is 'glue'"),
        (
            {"delivery": {"calibration_examples": 0}},
            r"delivery.calibration_examples is 0: expected at least 1, or auto",
        ),
        ({"delivery": {"formats": ["onions"]}}, r"delivery.formats is 'onions'"),
    ],
)
def test_what_is_wrong_is_refused_by_its_section(settings, message):
    with pytest.raises(UserError, match=message):
        options_of(**settings)


def test_what_is_open_is_taken_from_an_earlier_decision_and_nothing_else():
    earlier = asdict(options_of(repair="refit", batch_size=64, penalty=-100.0, delivery={"calibration_examples": 7}))
    found = decided_as(options_of(evaluations=9), earlier)
    assert (found.candidate.repair, found.scoring.batch_size, found.delivery.calibration_examples) == ("refit", 64, 7)
    assert found.episode.penalty is None and found.search.evaluations == 9
    assert decided_as(options_of(repair="none"), earlier).candidate.repair == "none"
    assert decided_as(options_of(), {}) == options_of()


def test_groups_that_may_go_take_one_pass_more_each_and_further_starting_candidates():
    """Three of four groups: 64 * (1 + 20 + 3) images, and 64 each for moments and recording.

    A sixth and a third of them are one group, a half is two.
    """
    graph, three = small_graph(), torch.tensor([True, True, True, False])
    allowed = AllowedWidths(graph.widths, graph.sets, min_width=0, removable=three)
    options = {"calibration_examples": 64, "repair": "refit"}
    spent = -(-64 * (24 + 2) // 100) + 6 + 2
    limits = SimpleNamespace(allowed=allowed)
    assert options_of(evaluations=spent + 4, **options).iterations(limits, 100, 4) == 1
    with pytest.raises(UserError, match=rf"{spent} for the 8 starting candidates"):
        options_of(evaluations=spent + 3, **options).iterations(limits, 100, 4)
