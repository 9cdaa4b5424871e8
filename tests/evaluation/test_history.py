"""Evaluations are logged, and a resumed run reads them from the journal."""

import json

import pytest
import torch

from gnnrl_lightning.evaluation import history as module
from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import Evaluation
from tests.support.fakes import scored


class Counting:
    """An evaluator that counts its calls; cached candidates are free."""

    def __init__(self):
        self.known, self.evaluated = {}, []

    def learn(self, evaluations):
        self.known |= {item.widths: item for item in evaluations}

    def __call__(self, widths, proposer):
        key = tuple(widths.tolist())
        new = key not in self.known
        if new:
            self.evaluated.append(key)
        seconds, examples = (0.5, 7) if new else (0.0, 0)
        costs = {"macs": 10 * key[0]}
        item = scored(key, 50.0 + key[0], 1 / 3, costs=costs, seconds=seconds, examples=examples, proposer=proposer)
        self.known.setdefault(key, item)
        return item


def asking(path, resume=False):
    return Journalled(Counting(), Journal(path, resume), lambda costs: {"macs_ratio": costs["macs"] / 100})


def ask(journalled, *widths):
    return [journalled(torch.tensor([width]), "agent") for width in widths]


def test_every_answer_is_written_down_known_ones_too(tmp_path):
    answers = ask(asking(tmp_path / "j"), 3, 4, 3)
    records = Journal(tmp_path / "j").read()
    assert [Evaluation.from_record(record) for record in records] == answers
    assert [(record["widths"], record["examples"], record["macs_ratio"]) for record in records] == [
        ([3], 7, 0.3), ([4], 7, 0.4), ([3], 0, 0.3),
    ]  # fmt: skip


@pytest.mark.parametrize("lines", range(5))
def test_a_run_that_is_interrupted_anywhere_ends_with_the_same_journal(tmp_path, lines):
    whole = ask(asking(tmp_path / "whole"), 3, 4, 3, 5)
    text = (tmp_path / "whole").read_text()
    (tmp_path / "j").write_text("".join(text.splitlines(keepends=True)[:lines]))
    resumed = asking(tmp_path / "j", resume=True)
    assert ask(resumed, 3, 4, 3, 5) == whole
    assert (tmp_path / "j").read_text() == text
    assert len(resumed.evaluator.evaluated) == {0: 3, 1: 2, 2: 1, 3: 1, 4: 0}[lines]


def test_what_a_checkpoint_holds_is_skipped(tmp_path):
    whole = ask(asking(tmp_path / "j"), 3, 4, 5)
    resumed = asking(tmp_path / "j", resume=True)
    assert resumed.holds(3) and not resumed.holds(4)
    assert resumed.skip(2) == whole[:2]
    assert resumed.holds(1) and not resumed.holds(2)
    assert ask(resumed, 5) == whole[2:] and resumed.evaluator.evaluated == []
    with pytest.raises(RuntimeError, match="fewer than the 1 evaluations"):
        resumed.skip(1)


def test_another_course_drops_the_rest_but_evaluates_nothing_twice(tmp_path):
    ask(asking(tmp_path / "j"), 3, 4, 5, 6)
    resumed = asking(tmp_path / "j", resume=True)
    ask(resumed, 3, 5, 8)
    assert [json.loads(line)["widths"] for line in (tmp_path / "j").read_text().splitlines()] == [[3], [5], [8]]
    assert resumed.evaluator.evaluated == [(8,)]


def test_a_single_process_has_settled_already(tmp_path):
    journalled = asking(tmp_path / "j")
    answers = ask(journalled, 3, 4)
    assert journalled.settle(answers) == answers and len(Journal(tmp_path / "j").read()) == 2


@pytest.mark.parametrize("lines", range(5))
def test_the_first_of_two_processes_writes_down_what_both_were_told(tmp_path, monkeypatch, lines):
    """Interrupted anywhere and repeated, the journal answers first, and nothing is in it twice."""
    other = ask(Journalled(Counting(), Journal(), dict), 4, 5)
    monkeypatch.setattr(module, "world_size", lambda: 2)
    monkeypatch.setattr(module, "rank", lambda: 0)
    monkeypatch.setattr(module, "of_all", lambda own: [own, other])
    journalled = asking(tmp_path / "j")
    told = ask(journalled, 3, 4)
    assert Journal(tmp_path / "j").read() == []
    settled = journalled.settle(told)
    assert settled == [*told, *other]
    text = (tmp_path / "j").read_text()
    assert [record["widths"] for record in Journal(tmp_path / "j").read()] == [[3], [4], [4], [5]]
    assert ask(journalled, 5)[0].examples == 0  # what the other one evaluated

    (tmp_path / "j").write_text("".join(text.splitlines(keepends=True)[:lines]))
    again = asking(tmp_path / "j", resume=True)
    assert again.settle(ask(again, 3, 4)) == settled
    assert (tmp_path / "j").read_text() == text
