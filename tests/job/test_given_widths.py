"""Widths from the user: reading, validation and pruning."""

import json

import pytest
import torch

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.given_widths import as_widths, budget_of, read_widths
from tests.support.fakes import small_graph

WIDTHS = {"stem": 8, "inner.0": 24, "inner.1": 6, "last": 1}
PREDICTIONS = {
    "predictions": [
        {"macs_budget": 0.3, "widths": WIDTHS},
        {"macs_budget": 0.5, "widths": WIDTHS | {"last": 9}},
    ]
}
RANGE = {"pruned": {"widths": list(WIDTHS.values())}, "search": {"front": PREDICTIONS["predictions"]}}


@pytest.fixture
def written(tmp_path):
    def write(contents):
        path = tmp_path / "widths.json"
        path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
        return path

    return write


@pytest.mark.parametrize(
    ("contents", "share", "last"),
    [
        (WIDTHS, None, 1),
        (list(WIDTHS.values()), None, 1),
        ({"pruned": {"macs": 7, "widths": list(WIDTHS.values())}, "search": {}}, None, 1),
        (PREDICTIONS, 0.3, 1),
        (RANGE, 0.5, 9),
        (RANGE, None, 1),
        (PREDICTIONS, 0.5, 9),
        ({"predictions": PREDICTIONS["predictions"][1:]}, None, 9),
        (dict(reversed(WIDTHS.items())), None, 1),  # by name: the order is the graph's
    ],
)
def test_what_predict_fit_and_users_write_is_read(written, contents, share, last):
    assert as_widths(small_graph(), read_widths(written(contents), share)).tolist() == [8, 24, 6, last]


@pytest.mark.parametrize(
    ("contents", "share", "message"),
    [
        ("{", None, "is not JSON"),
        ("3", None, "has no widths: expected predictions, a result"),
        ({"pruned": {}}, None, "has no widths"),
        (PREDICTIONS, None, r"has predictions for 0.3, 0.5: choose one, for example --share 0.5"),
        (PREDICTIONS, 0.4, r"has no prediction for 0.4: expected one of 0.3, 0.5"),
        ({"predictions": [{"widths": WIDTHS}]}, None, "predictions without macs_budget and widths"),
        ({"predictions": []}, None, "has no predictions"),
        (RANGE, 0.4, r"has no prediction for 0.4: expected one of 0.3, 0.5"),
        ({"search": None, **WIDTHS}, 0.5, r"--share 0.5 selects a prediction, but .* has none"),
        (WIDTHS, 0.5, r"--share 0.5 selects a prediction, but .* has none"),
    ],
)
def test_files_without_widths_are_refused(written, contents, share, message):
    with pytest.raises(UserError, match=message):
        read_widths(written(contents), share)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none.json cannot be read: No such file"):
        read_widths(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (WIDTHS | {"lst": 3}, r"widths has 'lst' \(did you mean last\?\), which is not a prunable group"),
        ({"stem": 8, "inner.1": 3}, r"widths lacks inner.0, last: give the width of every group"),
        (WIDTHS | {"last": 33}, "the width of last is 33: expected a whole number from 1 to 32"),
        (WIDTHS | {"last": 0}, "the width of last is 0: expected"),
        (WIDTHS | {"last": 2.5}, r"the width of last is 2.5: expected"),
        (WIDTHS | {"last": True}, "the width of last is True: expected"),
        ([8, 24, 6], "widths has 3 numbers, but the network has 4 groups"),
        ([16, 24, 24, 32], "the dense width of every group: expected fewer channels of one"),
    ],
)
def test_widths_that_do_not_fit_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        as_widths(small_graph(), given)


def test_widths_keep_to_the_limits_of_groups():
    graph = small_graph().limited({"last": {"min": 4, "max": 20}})
    with pytest.raises(UserError, match="the width of last is 1: expected a whole number from 4 to 20"):
        as_widths(graph, WIDTHS)


def test_widths_use_up_their_own_budget():
    graph = small_graph()
    widths = as_widths(graph, WIDTHS)
    limits = budget_of(graph, widths).on(graph)
    assert limits.met(widths)
    assert not limits.met(widths + torch.eye(4, dtype=torch.int64)).any()
