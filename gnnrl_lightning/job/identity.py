"""What decides the result of a job, in plain JSON types: where it differs, nothing of an earlier run is reused."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from gnnrl_lightning.data import ExampleSet
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.checked import Checked
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.runs.settings import FREE, changes
from gnnrl_lightning.trees import tensors

OF_ALL_MODULES = frozenset(vars(LightningModule()))
"""Attributes of every LightningModule, which are none of an agent's arguments."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""What Python adds to the text of an object that has none of its own: it differs between processes."""


def settings_of(checked: Checked) -> dict[str, Any]:
    """Return what decides the result of a job, whatever searches."""
    job = checked.job
    return {
        "network": job.task.record,
        "weights": sha256_of(state_tensors(checked.network)),
        "data": job.task.data.name,
        "holdout": sha256_of(named_tensors(job.task.data.holdout)),
        "objective": as_text(job.task.goal),
        "budget": job.limits.budget.as_record(),
        "groups": asdict(job.task.groups),
        "options": asdict(job.options),
        "seed": job.task.seed,
    }


def agent_settings(agent: GraphLearner) -> dict[str, Any]:
    """Return the class of an agent, what makes its policy, and its arguments that are numbers, names or tuples.

    What it changes while it trains, such as lists and functions, is left out.
    """
    own = {
        name: value for name, value in vars(agent).items() if name not in OF_ALL_MODULES and not name.startswith("_")
    }
    plain = {name: value for name, value in own.items() if isinstance(value, (int, float, str, tuple))}
    return {"class": type(agent).__qualname__, "make_policy": as_text(agent._make_policy), **plain}


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as JSON, with objects of the user's own as text."""
    return json.dumps(settings, indent=2, default=as_text) + "\n"


def as_text(given: Any) -> str:
    """Return text that is the same for the same object of the user's own in another process."""
    if isinstance(given, MethodType):
        return f"{as_text(given.__self__)}.{given.__name__}"
    if hasattr(given, "__qualname__"):  # a function or class
        return given.__qualname__
    silent = type(given).__repr__ is object.__repr__ and type(given).__str__ is object.__str__
    return ADDRESS.sub("", f"{type(given).__qualname__}({getattr(given, '__dict__', {})})" if silent else str(given))


def check_same(path: Path, before: Any, now: Any) -> None:
    """Refuse a folder whose run has other settings that decide its result, and name the first of them.

    Args:
        path: The folder.
        before: Settings of its run, as they were read from JSON.
        now: The settings of this one, likewise.

    Raises:
        UserError: A setting differs.
    """
    for key, earlier, later in changes(before, now, [f"options.{key}" for key in FREE]):
        raise UserError(
            f"{path} has a run that has other settings: {'.'.join(key)} is {earlier!r} there, and {later!r} here; "
            "give a new folder, or delete it"
        )


def named_tensors(examples: ExampleSet) -> dict[str, Tensor]:
    """Return the tensors of examples, inputs first, by names that no parameter of a network has."""
    return {f"examples.{place}.": tensor for place, tensor in enumerate(tensors((examples.inputs, examples.targets)))}


def sha256_of(named: Mapping[str, Tensor], start: str = "") -> str:
    """Return the SHA-256 of a text and of tensors with their names, hexadecimal."""
    found = hashlib.sha256(start.encode())
    for name, tensor in named.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
