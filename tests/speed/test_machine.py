import platform

import torch

from gnnrl_lightning.speed import machine as module
from gnnrl_lightning.speed.machine import machine, processor


def test_processor_of_linux(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast CPU: 2\nmodel name\t: Other\n")
    monkeypatch.setattr(module, "CPUINFO", info)
    assert processor() == "Fast CPU: 2"


def test_processor_of_other_systems(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert processor() == platform.machine()


def test_machine():
    found = machine(torch.device("cpu"))
    assert (found["device"], found["threads"]) == ("cpu", torch.get_num_threads())
    assert found["processor"] and found["cores"] >= 1
