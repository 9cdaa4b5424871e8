"""The whole job in one call: from a trained network to a smaller one."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data.from_data_module import as_example_data
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import text_of
from gnnrl_lightning.job.arguments import as_device, check_kinds
from gnnrl_lightning.job.checked import Checked, check
from gnnrl_lightning.job.delivery import Delivered
from gnnrl_lightning.job.group_options import GroupOptions
from gnnrl_lightning.job.identity import agent_settings, as_text, check_same, settings_of, settings_text
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.stages import fits_agent, search_and_deliver
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.options import AUTO, decided_as
from gnnrl_lightning.report.progress import hidden_steps, quiet_lightning, shown_steps
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.integrity import check_files
from gnnrl_lightning.runs.lock import locked
from gnnrl_lightning.search.methods import SearchMethod


@quiet_lightning()
def compress(
    network: nn.Module | NetworkSpec,
    data: LightningDataModule,
    budget: Budget,
    *,
    evaluations: int | None = None,
    by: GraphLearner | SearchMethod | None = None,
    options: Options | None = None,
    groups: GroupOptions | None = None,
    objective: Any = "classification",
    folder: str | Path | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Delivered:
    """Prune a trained network to a budget: search, prune, fine-tune, test once.

    ```
    delivered = compress(network, CIFAR10("data"), Budget(macs=0.5), evaluations=100)
    print(delivered)             # the dense network, uniform pruning, and the smaller one
    smaller = delivered.network  # of the same class, in evaluation mode, on the CPU
    ```

    Args:
        network: The trained network, which is copied and never changed; of a compiled one, what was compiled. Or a
            class path, whose network is trained first.
        data: The data module; one that has nothing to do with this package is read as
            `gnnrl_lightning.data.FromDataModule` says.
        budget: Upper limits on the costs of the pruned network.
        evaluations: Evaluations to spend, in place of `options.search.evaluations`.
        by: What searches: an agent, or a method, which is a name in `gnnrl_lightning.search.methods.METHODS` or your
            own function (problem, seed); None: `GNNRL`.
        options: All other options; None: the defaults.
        groups: Layers to keep, and limits of single groups; None: all may be pruned.
        objective: The task of the network: a name in `gnnrl_lightning.objective.OBJECTIVES`, an import path, a class
            or an objective.
        folder: Folder of the run, with the artifact in `pruned/`; the same call resumes an interrupted run. None:
            nothing is kept.
        seed: Seed of everything random.
        device: Device on which candidates are pruned, repaired and scored.
        progress: Show progress.

    Returns:
        The pruned network, its widths and all figures.

    Raises:
        UserError: The input is invalid, or the folder has a run with other settings that decide its result.
    """
    check_kinds(network=network, data=data, budget=budget, evaluations=evaluations, by=by, options=options)
    check_kinds(groups=groups, folder=folder, seed=seed, progress=progress)
    options = options or Options()
    if evaluations is not None:
        options = replace(options, search=replace(options.search, evaluations=evaluations))
    agent = GNNRL(seed=seed) if by is None else by
    task = Task(network, as_example_data(data), seed=seed, groups=groups or GroupOptions(), objective=objective)
    runtime = Runtime(shown=shown_steps if progress else hidden_steps, device=as_device(device))
    earlier = None if folder is None else RunFolder(Path(folder))
    if earlier is not None:
        options, budget = _as_decided(options, budget, _settings_in(earlier))
    checked = check(task, budget, options, runtime, earlier, fits=fits_agent(agent))
    with ExitStack() as stack:
        path = Path(stack.enter_context(TemporaryDirectory()) if folder is None else folder)
        run = RunFolder(path)
        run.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(run.path))
        _open(run, _settings(checked, agent))
        delivered = search_and_deliver(checked, agent, run)
        assert delivered is not None  # there is one process
        return delivered if folder is not None else replace(delivered, folder=None)


def _settings_in(run: RunFolder) -> dict[str, Any] | None:
    """Return the settings of the run in a folder; None: it has none yet.

    Raises:
        UserError: The folder has something else.
    """
    if not run.config.is_file():
        if run.occupied:
            raise UserError(f"{run.path} is neither empty nor the folder of a run: give a new folder")
        return None
    try:
        found = json.loads(text_of(run.config))
    except ValueError:  # of the command line
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{run.path} has a run that is of another kind; give a new folder, or delete it")
    return found


def _as_decided(options: Options, budget: Budget, earlier: dict[str, Any] | None) -> tuple[Options, Budget]:
    """Replace what is "auto" by what an interrupted run with these settings has measured, if there is one."""
    if earlier is None:
        return options, budget
    try:
        multiple = int(earlier["budget"]["channel_multiple"])
        decided = decided_as(options, earlier["options"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return options, budget  # of another kind, which is refused later
    return decided, budget.aligned(multiple) if budget.channel_multiple == AUTO else budget


def _settings(checked: Checked, by: GraphLearner | SearchMethod) -> str:
    """Return the settings on which the result depends, as JSON."""
    searcher = agent_settings(by) if isinstance(by, GraphLearner) else by if isinstance(by, str) else as_text(by)
    return settings_text(settings_of(checked) | {"by": searcher})


def _open(run: RunFolder, settings: str) -> None:
    """Begin a run with these settings in an empty folder, or check the interrupted one that it has."""
    before = _settings_in(run)
    if before is None:
        run.write_config(settings)
    else:
        check_same(run.path, before, json.loads(settings))
        check_files(run)
