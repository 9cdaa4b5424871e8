"""A working folder for the command line, with a user's network and its configuration."""

from contextlib import contextmanager

import pytest
import yaml

SMALL = """
from torch import nn


class Small(nn.Module):
    def __init__(self, classes=10, size=8):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2)
        self.bn2 = nn.BatchNorm2d(12)
        self.classifier = nn.Linear(12 * ((size - 1) // 2) ** 2, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.classifier(self.bn2(self.conv2(x)).relu().flatten(1))
"""


# Two groups at four ratios: 128 * (1 + 2 * 4) images for the sensitivity and 128 for its moments, in evaluations of
# 287 + 128.
TABLE = -(-128 * 10 // (287 + 128))
SPENT = TABLE + 6 + 2 * 8


@contextmanager
def working_in(folder):
    """Make `folder` a workplace, change to it, and make its network importable."""
    make_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        yield folder


def make_workplace(folder):
    """Write own_networks.py and small.yaml."""
    (folder / "own_networks.py").write_text(SMALL)
    config = {
        "network": {"class_path": "own_networks.Small", "init_args": {}},
        "data": {"class_path": "gnnrl_lightning.data.Digits"},
        "budget": {"macs": 0.5},
        "search": {"evaluations": SPENT},
        "candidate": {"calibration_examples": 128},
        # No iteration ends early, so that steps can be counted.
        "model": {"proxy_warmup": 3, "proxy_between": 1, "proxy_episodes": 16, "target_kl": None},
        "pretraining": {"epochs": 3},
        "finetuning": {"epochs": 2, "learning_rate": 0.02},
        "run": {"experiment": "small"},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
