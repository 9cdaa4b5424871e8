"""A working folder for the command line, with a user's network and its configuration."""

from contextlib import contextmanager

import pytest
import yaml

SMALL = """
from torch import nn


class Small(nn.Module):
    def __init__(self, classes=10, size=8, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 12, 3, stride=2)
        self.bn2 = nn.BatchNorm2d(12)
        self.classifier = nn.Linear(12 * ((size - 1) // 2) ** 2, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.classifier(self.bn2(self.conv2(x)).relu().flatten(1))
"""


# Two groups at four widths each (the two smallest of five ratios leave one channel): 128 * (1 + 2 * 4) images for the
# sensitivity and 128 for its moments, in evaluations of 287 + 128.
TABLE = -(-128 * 10 // (287 + 128))
SPENT = TABLE + 6 + 2 * 8

# What rounds.yaml changes: the agent learns in imagined episodes, as by default, and the first layer is wider, so that
# ten candidates cannot be widened: four distinct ones among the starting candidates, and six others. The sensitivity
# has nine widths (128 * (1 + 9) images), and there are two more passes, for moments and recording: evaluations of
# 287 + 128. Then there are eight left, for two rounds of 4.
ROUNDS = {
    "network": {"class_path": "own_networks.Small", "init_args": {"width": 24}},
    "search": {"evaluations": -(-128 * 12 // (287 + 128)) + 6 + 8},
    "candidate": {"repair": "refit"},
    "episode": {"surrogate": None, "reward": "divergence"},
    "model": {"episodes_per_iteration": 4},
}


@contextmanager
def working_in(folder):
    """Make `folder` a workplace, change to it, and make its network importable."""
    make_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        yield folder


def make_workplace(folder):
    """Write own_networks.py, small.yaml, and rounds.yaml to be given after it."""
    (folder / "own_networks.py").write_text(SMALL)
    config = {
        "network": {"class_path": "own_networks.Small", "init_args": {}},
        "data": {"class_path": "gnnrl_lightning.data.Digits"},
        # Any width: what is measured as the fastest multiple differs between machines.
        "budget": {"macs": 0.5, "channel_multiple": 1},
        "search": {"evaluations": SPENT},
        "candidate": {"calibration_examples": 128, "repair": "batch_norm"},
        # Every episode of an iteration is an evaluation, and no iteration ends early, so that steps can be counted.
        "episode": {"surrogate": False, "reward": None},
        "model": {
            "episodes_per_iteration": 8,
            "proxy_warmup": 3,
            "proxy_between": 1,
            "proxy_episodes": 16,
            "target_kl": None,
        },
        "pretraining": {"epochs": 3},
        "finetuning": {"epochs": 2, "learning_rate": 0.02},
        "delivery": {"fastest_of": 0},  # the best candidate, whatever times are measured
        "run": {"experiment": "small"},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    (folder / "rounds.yaml").write_text(yaml.safe_dump(ROUNDS))
