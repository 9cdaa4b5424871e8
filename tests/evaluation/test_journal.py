import json

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal


def test_round_trip_and_one_line_each(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    records = [{"widths": [3, 4], "top1": 91.5, "proposer": "agent"}, {"note": "two\nlines"}]
    for record in records:
        journal.append(record)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    assert Journal(tmp_path / "journal.jsonl").read() == records


def test_each_record_is_on_disk_at_once(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"a": 1})
    assert (tmp_path / "journal.jsonl").read_text() == '{"a": 1}\n'


def test_nothing_is_written_before_the_first_record(tmp_path):
    assert Journal(tmp_path / "journal.jsonl").read() == []
    assert list(tmp_path.iterdir()) == []


def test_memory_only():
    journal = Journal(None)
    journal.append({"widths": (1, 2)})
    assert journal.read() == [{"widths": [1, 2]}]


def test_interrupted_last_line_is_left_out(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert Journal(path).read() == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("line", ["{oops", "[1]"])
def test_damage_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1}\n' + line + '\n{"a": 2}\n')
    with pytest.raises(UserError, match=r"damaged in line 2"):
        Journal(path).read()


def test_floats_that_json_does_not_have_become_null(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"top1": 10.0, "cross_entropy": float("inf"), "seconds": float("nan")})
    assert journal.read() == [{"top1": 10.0, "cross_entropy": None, "seconds": None}]
