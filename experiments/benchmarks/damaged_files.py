"""Files of a finished run that are damaged, for `faults.py`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import yaml
from damage import damaged

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Diabetes
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.job import artifact
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.integrity import check_files, read_figures, read_result
from gnnrl_lightning.job.latency import CHANGED, write_json
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.table import Cache
from gnnrl_lightning.speed.whole import Latency, measure_latency

EXPERIMENT = Path(__file__).parents[1] / "regression.yaml"
CONFIG = {
    "search": {"evaluations": 60},
    "candidate": {"calibration_examples": 64},
    "delivery": {"calibration_examples": 64},
    "model": {"proxy_warmup": 4, "proxy_between": 2, "proxy_episodes": 16},
    "pretraining": {"epochs": 10},
    "finetuning": {"epochs": 5},
    "run": {"threads": 1},
}
DAMAGED = {
    "configuration": "config.yaml",
    "metrics": "metrics.csv",
    "journal": "journal.jsonl",
    "result": "result.json",
    "agent": "checkpoints/agent.ckpt",
    "dense network": "checkpoints/dense.safetensors",
    "sensitivity": "checkpoints/sensitivity.safetensors",
    "finals": "finals.jsonl",
    "latencies of a run": "checkpoints/latency.json",
    "cached latencies": "cache",
    "recipe": "pruned/recipe.json",
    "pruned network": "pruned/weights.safetensors",
}


class DamagedFiles:
    """Damages the files of a finished run, and counts what is noticed.

    Args:
        whole: Folder of the run.
    """

    def __init__(self, whole: RunFolder) -> None:
        self.whole = whole

    def damages(self, name: str, count: int, draw: random.Random) -> Iterator[bool]:
        """Random damages to a file of a finished run: refused in one line, or without any effect."""
        path = self.cache.path if name == "cached latencies" else self.whole.path / DAMAGED[name]
        assert path is not None
        if "latencies" in name:
            write_json(self.whole.latency, self.latency.as_record())
        if name == "finals":
            path.write_bytes(self.whole.journal.read_bytes())  # of the same form
        data, self.records = path.read_bytes(), Journal(self.whole.journal).read()
        self.recipe = artifact.read_recipe(self.whole.pruned)
        try:
            for _ in range(count):
                path.write_bytes(damaged(data, draw))
                yield self._is_noticed(name)
        finally:
            path.write_bytes(data)

    def _is_noticed(self, name: str) -> bool:
        """Whether the damaged file is refused in one line, or reads as before.

        A journal may be shorter, because evaluations that it lost are repeated; metrics decide nothing, nor does what a
        configuration may change in.
        """
        try:
            if name == "result":
                read_result(self.whole)
            elif name == "latencies of a run":
                read_figures(self.whole.latency, CHANGED)
            elif name == "cached latencies":
                return self.cache.read() == self.latency.model.grids
            elif name in ("journal", "finals"):
                found = Journal(self.whole.path / DAMAGED[name], True, self.trained.fingerprint).before
                return found == self.records[: len(found)]
            elif name in ("recipe", "pruned network"):
                task = self.trained.job.task
                return artifact.restore(self.whole.pruned, task.original(), task.example()).recipe == self.recipe
            else:
                check_files(self.whole)
                return name in ("metrics", "configuration")
        except UserError as error:
            return str(error).isprintable()
        return False

    @cached_property
    def trained(self) -> Trained:
        """The dense network of the uninterrupted run."""
        spec = NetworkSpec(**yaml.safe_load(EXPERIMENT.read_text(encoding="utf-8"))["network"])
        task, examples = Task(spec, Diabetes(), objective="regression"), CONFIG["candidate"]["calibration_examples"]
        options = Options(candidate=CandidateOptions(calibration_examples=examples))
        return train(check(task, Budget(macs=0.5), options), self.whole)

    @cached_property
    def cache(self) -> Cache:
        """A table of latencies on disk."""
        cache = Cache(self.whole.path.with_name("cache"), {"batch_size": 2})
        cache.add(self.latency.model.grids)
        return cache

    @cached_property
    def latency(self) -> Latency:
        """Measured latencies of the network."""
        job, options = self.trained.job, LatencyOptions(batch_size=2, threads=1, cache=None)
        return measure_latency(job.graph, self.trained.network, job.task.example(), options)
