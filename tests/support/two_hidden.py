"""A job on the digits whose network has two hidden layers, so that there are two widths to choose."""

import sys
from types import ModuleType

import torch

from gnnrl_lightning.data import Digits
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks.spec import NetworkSpec


class TwoHidden(torch.nn.Sequential):
    """Two hidden layers on the pixels of a digit."""

    def __init__(self):
        hidden = torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 16), torch.nn.ReLU()
        super().__init__(torch.nn.Flatten(), *hidden, torch.nn.Linear(16, 10))


def two_hidden_task(monkeypatch):
    """The task; the network's class can be imported until the end of the test."""
    module = ModuleType("two_hidden")
    module.TwoHidden = TwoHidden
    monkeypatch.setitem(sys.modules, "two_hidden", module)
    return Task(NetworkSpec("two_hidden.TwoHidden"), Digits(), seed=3)
