import json

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal


def written(path, *records, **about):
    """A file with these records; its lines."""
    journal = Journal(path, **about)
    for record in records:
        journal.append(record)
    return path.read_text().splitlines(keepends=True)


def test_round_trip_and_one_line_each(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    records = [{"widths": [3, 4], "top1": 91.5, "proposer": "agent"}, {"note": "two\nlines"}]
    for record in records:
        journal.append(record)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line) | {"check": None} for line in lines] == [each | {"check": None} for each in records]
    assert Journal(tmp_path / "journal.jsonl").read() == records


def test_each_record_is_on_disk_at_once(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"a": 1})
    assert (tmp_path / "journal.jsonl").read_text().startswith('{"a": 1, "check": "')


def test_nothing_is_written_before_the_first_record(tmp_path):
    assert Journal(tmp_path / "journal.jsonl").read() == []
    assert list(tmp_path.iterdir()) == []


def test_memory_only():
    journal = Journal(None)
    journal.append({"widths": (1, 2)})
    assert journal.read() == [{"widths": [1, 2]}]


def test_interrupted_last_line_is_left_out(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(written(path, {"a": 1}, {"a": 2})) + '{"a": ')
    assert Journal(path).read() == [{"a": 1}, {"a": 2}]


def _edited(lines):
    return [lines[0], lines[1].replace('"a": 2', '"a": 3'), lines[2]]


DAMAGES = {
    "no JSON": (lambda lines: [lines[0], "{oops\n"], "line 2: Expecting"),
    "no object": (lambda lines: [lines[0], "[1]\n"], "line 2: not a JSON object"),
    "an empty object": (lambda lines: ["{}\n"], "line 1 was changed"),
    "an empty line": (lambda lines: [lines[0], "\n"], "line 2: Expecting"),
    "an edited record": (_edited, "line 2 was changed"),
    "a line less": (lambda lines: [lines[0], lines[2]], "line 2 was changed"),
    "the first line less": (lambda lines: lines[1:], "line 1 was changed"),
    "a line twice": (lambda lines: [lines[0], lines[0]], "line 2 was changed"),
    "other order": (lambda lines: [lines[1], lines[0]], "line 1 was changed"),
    "without checksums": (lambda lines: ['{"a": 1}\n'], "line 1 was changed"),
    "a number too large": (lambda lines: ['{"a": ' + "9" * 5000 + "}\n"], "line 1: Exceeds"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_named_with_line_and_remedy(tmp_path, case):
    path = tmp_path / "journal.jsonl"
    damage, reason = DAMAGES[case]
    path.write_text("".join(damage(written(path, {"a": 1}, {"a": 2}, {"a": 4}, start="this network"))))
    for resume in (False, True):
        with pytest.raises(UserError, match=rf"journal.jsonl is damaged \({reason}.*\): restore it, or delete it"):
            Journal(path, resume, "this network")


def test_lines_of_another_network_are_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = written(path, {"a": 1}, {"a": 2}, start="one")
    with pytest.raises(UserError, match="line 1 was changed, or is of another network"):
        Journal(path, resume=True, start="two")
    path.write_text(lines[0] + written(tmp_path / "other.jsonl", {"a": 1}, {"a": 2}, start="two")[1])
    with pytest.raises(UserError, match="line 2 was changed, or is of another network"):
        Journal(path, resume=True, start="one")


def test_what_is_no_text_is_damaged(tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(b"\xff\xfe{}\n")
    (tmp_path / "folder").mkdir()
    for name, reason in (("journal.jsonl", "codec can't decode"), ("folder", "Is a directory")):
        with pytest.raises(UserError, match=rf"{name} is damaged \(.*{reason}.*delete it to go on"):
            Journal(tmp_path / name, resume=True)


def test_floats_that_json_does_not_have_become_null(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append({"top1": 10.0, "cross_entropy": float("inf"), "seconds": float("nan")})
    assert journal.read() == [{"top1": 10.0, "cross_entropy": None, "seconds": None}]


def test_a_resumed_journal_gives_its_records_as_long_as_they_are_expected(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = written(path, {"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 3, "b": 3})
    journal = Journal(path, resume=True)
    assert journal.take(a=1) == {"a": 1, "b": 1}
    assert journal.before == [{"a": 2, "b": 2}, {"a": 3, "b": 3}]
    assert journal.take(a=5) is None and journal.before == []
    assert path.read_text() == lines[0]
    journal.append({"a": 5})
    assert journal.take(a=5) is None
    assert journal.read() == [{"a": 1, "b": 1}, {"a": 5}]


def test_a_journal_that_is_not_resumed_keeps_what_is_there(tmp_path):
    path = tmp_path / "journal.jsonl"
    written(path, {"a": 1})
    journal = Journal(path)
    assert journal.take(a=1) is None
    journal.append({"a": 2})
    assert journal.read() == [{"a": 1}, {"a": 2}]


def test_a_torn_last_line_is_repaired_with_a_warning(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = written(path, {"a": 1}, {"a": 2})
    path.write_text("".join(lines) + '{"a": ')
    with pytest.warns(UserWarning, match=r'journal .*: the last line was cut off and is removed: \{"a": '):
        journal = Journal(path, resume=True)
    assert path.read_text() == "".join(lines)
    assert journal.take() == {"a": 1} and journal.take() == {"a": 2} and journal.take() is None
    journal.append({"a": 3})
    assert Journal(path, resume=True).before == [{"a": 1}, {"a": 2}, {"a": 3}]
