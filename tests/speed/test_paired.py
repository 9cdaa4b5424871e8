import time

import pytest
import torch
from torch import nn

from gnnrl_lightning.speed import paired
from gnnrl_lightning.speed.paired import paired_latency_ms


class Sleep(nn.Module):
    """Takes the given time, and counts how often and in which mode it ran."""

    def __init__(self, seconds, log):
        super().__init__()
        self.seconds, self.log = seconds, log

    def forward(self, x):
        self.log.append((self.seconds, self.training, torch.is_inference_mode_enabled()))
        time.sleep(self.seconds)
        return x


def test_latency_is_the_time_of_one_pass_in_milliseconds():
    measured = paired_latency_ms({"a": Sleep(0.005, [])}, torch.zeros(1), rounds=3)
    assert 5.0 <= measured["a"] < 15.0


def test_turns_are_interleaved_and_rotate(monkeypatch):
    monkeypatch.setattr(paired, "WARM_UP", 1)
    log = []
    slow, quick = Sleep(0.004, log), Sleep(0.001, log)
    measured = paired_latency_ms({"slow": slow, "quick": quick}, torch.zeros(1), rounds=4)
    assert [seconds for seconds, _, _ in log[2 :: paired.IN_A_ROW]] == [0.004, 0.001, 0.001, 0.004] * 2
    assert len(log) == 2 + 4 * 2 * paired.IN_A_ROW
    assert measured["slow"] > measured["quick"] >= 1.0
    assert all(not training and inference for _, training, inference in log)


def test_the_fastest_pass_counts(monkeypatch):
    times = iter([0.003, 0.009, 0.002, 0.004, 0.005] + [0.006, 0.0015, 0.008, 0.007, 0.002] + [0.004] * 5)
    monkeypatch.setattr(paired, "_seconds", lambda network, inputs: next(times))
    assert paired_latency_ms({"a": nn.Identity()}, torch.zeros(1), rounds=3) == {"a": pytest.approx(1.5)}


def test_no_round_begins_after_the_time():
    log = []
    paired_latency_ms({"slow": Sleep(0.002, log)}, torch.zeros(1), rounds=1000, seconds=0.0)
    assert len(log) == paired.WARM_UP + paired.IN_A_ROW


def test_mode_is_left_as_it_was():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU())
    network[0].eval()
    before = network[0].running_mean.clone()
    paired_latency_ms({"a": network}, torch.randn(4, 2), rounds=1)
    assert [module.training for module in network.modules()] == [True, False, True]
    assert torch.equal(network[0].running_mean, before)


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        paired_latency_ms({"a": nn.Identity()}, torch.zeros(1), rounds=0)
    with pytest.raises(ValueError, match="at least one"):
        paired_latency_ms({}, torch.zeros(1))
