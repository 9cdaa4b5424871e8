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


def test_a_resumed_journal_gives_its_records_as_long_as_they_are_expected(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1, "b": 1}\n{"a": 2, "b": 2}\n{"a": 3, "b": 3}\n')
    journal = Journal(path, resume=True)
    assert journal.take(a=1) == {"a": 1, "b": 1}
    assert journal.before == [{"a": 2, "b": 2}, {"a": 3, "b": 3}]
    assert journal.take(a=5) is None and journal.before == []
    assert path.read_text() == '{"a": 1, "b": 1}\n'
    journal.append({"a": 5})
    assert journal.take(a=5) is None
    assert journal.read() == [{"a": 1, "b": 1}, {"a": 5}]


def test_a_journal_that_is_not_resumed_keeps_what_is_there(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1}\n')
    journal = Journal(path)
    assert journal.take(a=1) is None
    journal.append({"a": 2})
    assert journal.read() == [{"a": 1}, {"a": 2}]


def test_a_torn_last_line_is_repaired_with_a_warning(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    with pytest.warns(UserWarning, match=r'journal .*: the last line was cut off and is removed: \{"a": '):
        journal = Journal(path, resume=True)
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'
    assert journal.take() == {"a": 1} and journal.take() == {"a": 2} and journal.take() is None
    journal.append({"a": 3})
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n{"a": 3}\n'
