"""A tiny run of the benchmark of one policy for many networks: its figures are complete and correct."""

import importlib.util
import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import train
from tests.support.options import options_of

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


def benchmark():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("many_networks", BENCHMARKS / "many_networks.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def layers(widths):
    """Hidden layers of these widths on the pixels of a digit."""
    sizes = [64, *widths]
    hidden = [layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], 10))


def job_of(*widths):
    torch.manual_seed(1)
    task = Task(layers(widths), Digits(), seed=1)
    return train(check(task, Budget(macs=0.5), options_of(calibration_examples=16, proposal=None)))


def test_one_policy_of_two_networks_acts_in_a_third():
    jobs = {"two": job_of(16, 12), "three": job_of(16, 8, 12), "four": job_of(16, 8, 8, 8)}
    sources = {name: jobs[name] for name in ("two", "three")}
    found = benchmark().run(sources, ("four", jobs["four"]), (0.7, 0.4), (0.4,), iterations=2, episodes=8)
    assert found["groups"] == {"two": 2, "three": 3, "four": 4}
    rows = found["learnt_from"] + found["never_seen"]
    assert [(row["network"], row["macs_budget"]) for row in rows] == [(name, s) for name in jobs for s in (0.7, 0.4)]
    for row in rows:
        job = jobs[row["network"]]
        for method, widths in row["widths"].items():
            assert job.job.limits.with_limits(macs=row["macs_budget"]).met(torch.tensor(widths))
            expected = -math.log(float(job.sensitivity(torch.tensor(widths))))
            assert row["proxy_reward"][method] == pytest.approx(expected, abs=1e-3)
    assert set(found["never_seen"][1]["top1_test_before"]) == {"policy", "uniform", "dynamic_programming"}
    assert "top1_test_before" not in found["never_seen"][0]
