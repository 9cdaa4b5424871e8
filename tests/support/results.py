"""Files of small runs, as their reports read them."""

from pathlib import Path

from gnnrl_lightning.objective import Classification
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.report.pages.records import Losses, RunRecord

RESULT = {
    "network": "ResNet-20",
    "dataset": "digits",
    "objective": record(Classification()),
    "budget": {"macs": 0.5, "channel_multiple": 1, "min_width": 1},
    "dense": {"macs": 2_000_000, "params": 400_000, "top1_test": 99.0, "latency_ms": 8.0},
    "uniform": {
        "macs": 998_000,
        "params": 180_000,
        "macs_ratio": 0.499,
        "params_ratio": 0.45,
        "top1_test_before": 60.0,
        "top1_test_after": 98.25,
        "latency_ms": 6.0,
        "widths": [8, 16],
    },
    "pruned": {
        "macs": 1_000_000,
        "params": 200_000,
        "macs_ratio": 0.5,
        "params_ratio": 0.5,
        "top1_search": 90.5,
        "top1_test_before": 88.0,
        "top1_test_after": 98.75,
        "latency_ms": 5.125,
        "widths": [12, 9],
    },
    "test_examples": 400,
    "search": {"evaluations": 96, "seconds": 41.6, "found_by": "agent", "agent_best": 90.5},
    "groups": {"conv1": 16, "layer1.<0>.conv1": 32},
    "layers": [
        {
            "name": "conv1",
            "macs": {"dense": 1_500_000, "uniform": 700_000, "pruned": 800_000},
            "latency_ms": {"dense": 6.0, "uniform": 3.5, "pruned": 3.25},
        },
        {
            "name": "layer1",
            "macs": {"dense": 500_000, "uniform": 298_000, "pruned": 200_000},
            "latency_ms": {"dense": 2.0, "uniform": 1.5, "pruned": 1.0},
        },
    ],
    "other_latency_ms": {"dense": 0.5, "uniform": 0.25, "pruned": 0.125},
    "machine": {"processor": "a processor", "cores": 2},
    "versions": {"torch": "2.9"},
}


def candidate(proposer, top1, params, merit=None, dropped=False, seconds=0.5):
    """A record of a journal."""
    return {
        "widths": [12, 9],
        "costs": {"macs": 1_000_000, "params": int(params * 400_000)},
        "scores": {"top1": top1},
        "merit": [top1 if merit is None else merit],
        "seconds": seconds,
        "examples": 100,
        "proposer": proposer,
        "dropped": dropped,
        "macs_ratio": 0.5,
        "params_ratio": params,
    }


CANDIDATES = (
    candidate("uniform", 80.0, 0.45),
    candidate("dynamic_programming", 88.0, 0.6),
    candidate("agent", 70.0, 0.7, dropped=True),
    candidate("agent", 90.5, 0.5),
)
METRICS = (
    {"dense/epoch": 0.0, "dense/train/loss": 2.0, "dense/train/top1": 40.0, "step": 3.0},
    {"epoch": 0.0, "losses/entropy": 1.5, "proxy/reward_mean": -0.2, "search/evaluations": 0.0},
    {"epoch": 1.0, "losses/entropy": 1.2, "rollout/reward_mean": 0.1, "search/evaluations": 4.0,
     "surrogate/tau": 0.3, "search/distance": 0.2},
    {"pruned/epoch": 0.0, "pruned/train/loss": 0.5, "pruned/train/top1": 90.0, "pruned/val/top1": 89.0},
)  # fmt: skip
CONFIG = {"seed_everything": 0, "network": {"class_path": "my.ResNet"}, "episode": {"reward": "divergence"}}


def run_record(name="one", **changes):
    """A finished run with all files."""
    given = {
        "folder": Path("runs") / name,
        "subcommand": "fit",
        "config": {**CONFIG, "run": {"name": name}},
        "configuration": "seed_everything: 0\n",
        "objective": RESULT["objective"],
        "result": RESULT,
        "candidates": CANDIDATES,
        "metrics": METRICS,
        "losses": Losses((0.0, 0.5), [[2.0, 0.1], [0.5, 0.0]]),
    }
    return RunRecord(**given | changes)
