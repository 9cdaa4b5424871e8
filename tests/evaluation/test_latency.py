import time

import pytest
import torch
from torch import nn

from gnnrl_lightning.evaluation import latency
from gnnrl_lightning.evaluation.latency import latency_ms, paired_latency_ms


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
    measured = latency_ms(Sleep(0.005, []), torch.zeros(1), repeats=5)
    assert 5.0 <= measured < 15.0


def test_turns_are_interleaved_and_rotate(monkeypatch):
    monkeypatch.setattr(latency, "WARM_UP", 1)
    log = []
    slow, quick = Sleep(0.004, log), Sleep(0.001, log)
    measured = paired_latency_ms({"slow": slow, "quick": quick}, torch.zeros(1), rounds=4)
    assert [seconds for seconds, _, _ in log[2:]] == [0.004, 0.001, 0.001, 0.004] * 2
    assert measured["slow"] > measured["quick"] >= 1.0
    assert all(not training and inference for _, training, inference in log)


def test_mode_is_left_as_it_was():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU())
    network[0].eval()
    before = network[0].running_mean.clone()
    latency_ms(network, torch.randn(4, 2), repeats=1)
    assert [module.training for module in network.modules()] == [True, False, True]
    assert torch.equal(network[0].running_mean, before)


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        latency_ms(nn.Identity(), torch.zeros(1), repeats=0)
