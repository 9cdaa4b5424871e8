"""Candidates of reward_fidelity.py."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "experiments" / "benchmarks" / "reward_fidelity.py"
GOOD, FAR, BAD = [8, 8], [2, 16], [1, 1]


@pytest.fixture(scope="module")
def fidelity():
    spec = importlib.util.spec_from_file_location("reward_fidelity", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def journals(tmp_path):
    """Two searches, of six candidates, one of them asked for by both; the later in a line the worse."""
    order = [GOOD, [8, 9], FAR, [8, 7], [3, 2], BAD]
    lines = [json.dumps({"widths": widths, "scores": {"divergence": 0.1 * at}}) for at, widths in enumerate(order)]
    paths = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    paths[0].write_text("\n".join(lines[3:]) + "\n")
    paths[1].write_text("\n".join(lines[:4]) + "\n")
    return paths


def test_the_best_share_gives_its_most_different_candidates(fidelity, journals):
    found = [widths.tolist() for widths in fidelity.recorded(journals, 2, best=0.5).values()]
    assert found == [GOOD, FAR]


def test_without_a_share_all_candidates_are_taken_in_the_order_of_the_searches(fidelity, journals):
    found = [widths.tolist() for widths in fidelity.recorded(journals, 6, best=None).values()]
    assert found == [[8, 7], [3, 2], BAD, GOOD, [8, 9], FAR]


def test_the_most_different_rows_are_the_farthest_from_those_taken(fidelity):
    assert fidelity.most_different(torch.tensor([[0.0], [1.0], [10.0], [6.0]]), 3) == [0, 2, 3]
    assert fidelity.most_different(torch.tensor([[0.0], [1.0]]), 5) == [0, 1]
