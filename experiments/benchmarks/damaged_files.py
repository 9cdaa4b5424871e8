"""Files of a finished run that are damaged, for `faults.py`."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import yaml
from damage import damaged

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Diabetes
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.latency import CHANGED
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.saved import write_json
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.integrity import check_files, read_figures, read_result
from gnnrl_lightning.speed.cache import Cache
from gnnrl_lightning.speed.latency import Latency, measure_latency
from gnnrl_lightning.speed.options import LatencyOptions

EXPERIMENT = Path(__file__).parents[1] / "regression.yaml"
CONFIG = {
    "search": {"evaluations": 30},
    "candidate": {"calibration_examples": 64},
    "delivery": {"calibration_examples": 64},
    "model": {"proxy_warmup": 2, "proxy_between": 1, "proxy_episodes": 16},
    "pretraining": {"epochs": 5},
    "finetuning": {"epochs": 3},
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
    "choice by latency": "checkpoints/latency_check.json",
    "recipe": "pruned/recipe.json",
    "pruned network": "pruned/weights.safetensors",
    "result of a stage": "stage-1/result.json",
    "recipe of a stage": "stage-1/pruned/recipe.json",
    "network of a stage": "stage-1/pruned/weights.safetensors",
    "exported program": "model.pt2",
    "ONNX": "model.onnx",
    "OpenVINO": "model.xml",
    "OpenVINO weights": "model.bin",
    "int8": "model.int8.onnx",
}
LOADED = {"exported program": "program", "ONNX": "onnx", "OpenVINO": "openvino", "OpenVINO weights": "openvino"} | {
    "int8": "int8"
}
"""File of an artifact -> the format as which it is loaded."""


class DamagedFiles:
    """Damages the files of a finished run, and counts what is noticed.

    Args:
        whole: Folder of the run.
    """

    def __init__(self, whole: RunFolder) -> None:
        self.whole = whole

    def damages(self, name: str, count: int, draw: random.Random) -> Iterator[bool]:
        """Random damages to a file of a finished run: refused in one line, or without any effect."""
        path = self._place(name)
        if name == "latencies of a run":
            write_json(self.whole.latency, self.latency.as_record())
        if name == "choice by latency":
            best = self.trained.evaluator()(self.trained.job.graph.widths, "random")
            write_json(path, {"best": best.as_record(), "checks": []})
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

    def _place(self, name: str) -> Path:
        """Where a kind of file is."""
        if name == "cached latencies":
            assert self.cache.path is not None
            return self.cache.path
        if name in LOADED:
            return self.formats / DAMAGED[name]
        return (self.staged if "of a stage" in name else self.whole).path / DAMAGED[name]

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
            elif name == "choice by latency":
                read_figures(self.whole.latency_check, "the winner is measured again")
            elif name in LOADED:
                artifact.load(self.formats, format=LOADED[name])
            elif "of a stage" in name:
                check_files(self.staged)
                return artifact.read_recipe(self.staged.stage(1).pruned) == self.recipe
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
    def staged(self) -> RunFolder:
        """The same run as if its network were that of a stage before the last one."""
        run = RunFolder(self.whole.path.with_name("staged"))
        shutil.copytree(self.whole.path, run.path)
        shutil.copytree(run.pruned, run.stage(1).pruned)
        run.stage(1).write_result(read_result(run)["pruned"])
        return run

    @cached_property
    def formats(self) -> Path:
        """An artifact of the same network with the files of all formats."""
        task, folder = self.trained.job.task, self.whole.path.with_name("formats")
        saved = artifact.restore(self.whole.pruned, task.original(), task.example())
        names = ("network", "budget", "transform", "figures")
        artifact.save(
            folder,
            saved.network,
            dense=task.original(),
            steps=saved.recipe["steps"],
            example=task.example(),
            description=artifact.Description(**{name: saved.recipe[name] for name in names}),
            formats=["weights", *dict.fromkeys(LOADED.values())],
            calibration=lambda: task.example(CONFIG["candidate"]["calibration_examples"]),
        )
        return folder

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
