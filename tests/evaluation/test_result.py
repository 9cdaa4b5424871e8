import json
import math

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.result import Evaluation, best_of, within
from tests.support.fakes import scored, small_graph


def evaluation(top1=70.0, loss=1 / 3, proposer="agent", divergence=0.1 + 0.2, widths=(1, 2)):
    return scored(widths, top1, loss, divergence, proposer=proposer)


def test_best_is_accuracy_then_cross_entropy_then_first():
    a, b, c, d = (evaluation(*row) for row in ((70, 0.9, "a"), (80, 1.5, "b"), (80, 1.2, "c"), (80, 1.2, "d")))
    assert best_of([a, b]) is b
    assert best_of([a, b, d, c]) is d
    assert best_of([]) is None
    assert best_of([a, b, d, c], "a") is a and best_of([a, b], "nobody") is None


@pytest.mark.parametrize("losses", [(1 / 3, 0.1 + 0.2), (math.inf, math.inf), (1e-300, math.inf)])
def test_a_record_gives_the_evaluation_back_to_the_last_bit(tmp_path, losses):
    before = evaluation(70.1, losses[0], divergence=losses[1])
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(before.as_record() | {"macs_ratio": 0.5})
    (record,) = journal.read()
    assert Evaluation.from_record(record) == before
    assert json.loads((tmp_path / "journal.jsonl").read_text())["macs_ratio"] == 0.5


def test_within_a_budget():
    graph = small_graph()
    dense, half = graph.widths, graph.project(graph.widths, macs=0.5)
    whole, smaller = (evaluation(widths=tuple(widths.tolist())) for widths in (dense, half))
    assert [within(Budget(macs=0.5).on(graph), item) for item in (whole, smaller)] == [False, True]
    assert within(Budget(macs=int(graph.cost.macs(dense))).on(graph), whole)
    assert isinstance(whole.as_record()["widths"], list) and torch.equal(torch.tensor(smaller.widths), half)
