"""Comparison of the agent with other search methods on one problem: same pruner, examples and evaluations.

```
comparison = Comparison(checked, CompareOptions(seeds=[0, 1]), {"agent": AgentRow(make_agent, EpisodeOptions())})
figures = comparison.run(folder)  # compare.json; what was finished before in this folder is not run again
```
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.data import Examples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.job.arguments import check_folder
from gnnrl_lightning.job.checked import Checked
from gnnrl_lightning.job.choosing import choose
from gnnrl_lightning.job.compare_options import DDPG_METHOD, HALVES, CompareOptions, in_place
from gnnrl_lightning.job.finetuning import teacher_of
from gnnrl_lightning.job.identity import agent_settings, check_same, settings_of, settings_text
from gnnrl_lightning.job.job import undone_if_diverged
from gnnrl_lightning.job.saved import write_json
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.job.searching import search_in_memory
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.report.comparison import LATENCY, summarise
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.runs.folder import PRUNED, RunFolder
from gnnrl_lightning.runs.integrity import read_figures
from gnnrl_lightning.search.methods import METHODS
from gnnrl_lightning.search.problem import NotApplicable
from gnnrl_lightning.speed.machine import machine
from gnnrl_lightning.surgery.masks import zeros_held
from gnnrl_lightning.versions import versions

SETTINGS = "settings.json"
"""File with what decides the results of a comparison's runs."""


@dataclass(frozen=True)
class AgentRow:
    """An agent to compare.

    Args:
        make: Seed -> the learner, before its policy is created.
        episode: Options of its episodes. Candidates are made and scored as the comparison is configured.
    """

    make: Callable[[int], GraphLearner]
    episode: EpisodeOptions


class Comparison:
    """Runs methods x seeds x budgets, each with its own evaluator, and collects the figures.

    Args:
        checked: The checked job; each method may spend its `search.evaluations`.
        options: The methods, seeds and budgets.
        agents: Name -> agent, for "agent", "ddpg" and the variants among the methods.
        report: Called with the figures of each finished run.

    Raises:
        UserError: A budget cannot be reached, or there are no test examples.
    """

    def __init__(
        self,
        checked: Checked,
        options: CompareOptions,
        agents: Mapping[str, AgentRow],
        report: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        self.checked, self.options, self.agents, self.report = checked, options, agents, report
        limits = checked.job.limits
        given = options.budgets
        self.limits = {limits.label: limits} if given is None else dict(in_place(limits, each) for each in given)
        for label, each in self.limits.items():
            if each.met(checked.job.graph.widths):
                raise UserError(f"budget {label} is met by the dense network: give a smaller one")
        if checked.job.options.stages.shares:
            raise UserError(
                "compare has no stages: set stages.shares to [], and compare runs of fit by report --compare"
            )
        learning = (AGENT, DDPG_METHOD, *options.variants)
        missing = [name for name in learning if name in options.methods and name not in agents]
        if missing:
            raise UserError(
                f"compare.methods has {', '.join(missing)}, but no agent of that name was given: add it to "
                "the agents, or leave it out"
            )
        examples = checked.job.task.data.test
        indices = torch.arange(len(examples))[HALVES[options.test_half]]
        if not len(indices):
            raise UserError(f"compare.test_half is {options.test_half}: the test set has no such example; expected all")
        self.test: Examples = examples.subset(indices)

    def runs(self) -> Iterator[tuple[float | str, str, int | None]]:
        """Label of the budget, method and seed of every run.

        Without fine-tuning, deterministic methods run once, without a seed.
        """
        for budget in self.limits:
            for position, seed in enumerate(self.options.seeds):
                for method in self.options.methods:
                    if self.options.finetune or method in self.agents or METHODS.find(method).seeded:
                        yield budget, method, seed
                    elif position == 0:
                        yield budget, method, None

    def run(self, folder: RunFolder) -> dict[str, Any]:
        """Run everything that has no figures in the folder yet.

        Args:
            folder: Run folder; `compare/` receives a JSON file and a journal for each run, `compare.json` all figures.

        Returns:
            The contents of compare.json.

        Raises:
            UserError: The folder does not exist, its runs have other settings, or a file was damaged.
        """
        check_folder(folder)
        self._settle(folder.comparison / SETTINGS)
        trained = train(self.checked, folder)
        # Computed once and shared: its time must not count for the first method.
        trained.pruner.prune(trained.pruner.plan(trained.job.graph.widths))
        rows, refused = [], []
        for budget, method, seed in self.runs():
            path = folder.comparison / f"{stem(method, budget, seed)}.json"
            named = {"method": method, "seed": seed, "budget": budget}
            if path.is_file():
                rows.append(read_figures(path, "this run is repeated"))
                continue
            try:
                row = named | self._row(trained.under(self.limits[budget]), method, seed, path)
            except NotApplicable as error:
                row = named | {"refused": str(error)}
                refused.append(row)
            else:
                rows.append(row)
                write_json(path, row, indent=2)
                for file in _unfinished_files(path):
                    file.unlink(missing_ok=True)
            self.report(row)
        figures = self._figures(trained, rows, refused)
        write_json(folder.compare, figures, indent=2)
        return figures

    def _settle(self, path: Path) -> None:
        """Write what decides the results of all runs, or compare it with that of earlier ones in this folder.

        Agents and budgets may come and go: those of both are compared.
        """
        budgets = {str(label): limits.budget.as_record() for label, limits in self.limits.items()}
        agents = {
            name: agent_settings(row.make(0)) | {"episode": asdict(row.episode)} for name, row in self.agents.items()
        }
        rules = {"finetune": self.options.finetune, "test_half": self.options.test_half}
        now = json.loads(settings_text(settings_of(self.checked) | rules | {"budget": budgets, "agents": agents}))
        if path.is_file():
            before = read_figures(path, "its runs are taken for those of this comparison")
            for part in ("budget", "agents"):
                now[part] = before[part] | now[part]
                before[part] = now[part] | before[part]
            check_same(path.parent, before, now)
        write_json(path, now, indent=2)

    def _row(self, trained: Trained, method: str, seed: int | None, path: Path) -> dict[str, Any]:
        """Run a method under the budget of the job, fine-tune its winner if asked for, and test it."""
        job, primary = trained.job, trained.job.task.goal.primary
        if not self.options.finetune:
            return self._winner(trained.without_finetuning(), method, seed, path)
        found, checkpoint = _unfinished_files(path)
        if not found.is_file():
            checkpoint.unlink(missing_ok=True)
            write_json(found, self._winner(trained, method, seed, path), indent=2)
        figures = read_figures(found, "this run is repeated")
        pruner = trained.final_pruner
        plan = pruner.plan(torch.tensor(figures["widths"]))
        network, trainer = pruner.prune(plan), job.runtime.trainers(PRUNED)
        given = {"teacher": teacher_of(trained, plan), "checkpoint": checkpoint, "seed": seed}
        with zeros_held(network, job.graph.masked), undone_if_diverged(network, f"{method} {PRUNED}"):
            job.task.train(network, job.options.finetuning, trainer, **given)
        return figures | {f"{primary}_test_after": job.task.figures(network, self.test)[primary]}

    def _winner(self, trained: Trained, method: str, seed: int | None, path: Path) -> dict[str, Any]:
        """Run a method under the budget of the job, and test its winner before any fine-tuning."""
        job, primary = trained.job, trained.job.task.goal.primary
        searched = self._search(trained, method, seed, path.with_suffix(".jsonl"))
        searched = choose(searched, {"finals": path.with_suffix(".finals.jsonl")})
        best, limits, pruner = searched.best, searched.trained.job.limits, trained.final_pruner
        widths = torch.tensor(best.widths)
        network = pruner.prune(pruner.plan(widths))
        figures = {
            "evaluations": searched.evaluations,
            "examples": searched.examples,
            "seconds": searched.seconds,
            f"{primary}_search": best.scores[primary],
            f"{primary}_test_before": job.task.figures(network, self.test)[primary],
            **limits.ratios(best.costs),
            **_latency(searched, network),
            "channel_multiple": limits.budget.channel_multiple,
            "min_width": limits.budget.min_width,
            "widths": list(best.widths),
            "found_by": best.proposer,
        }
        if searched.alike:
            figures["alike"] = [*searched.alike]
        if searched.finals is not None:
            figures["finals"] = searched.finals.as_record(job.task.goal)
        return figures

    def _search(self, trained: Trained, method: str, seed: int | None, journal: Path) -> Searched:
        """Search under the budget of the job.

        Raises:
            NotApplicable: The method does not support this network, or has evaluated nothing within the budget.
        """
        job = trained.job
        journal.unlink(missing_ok=True)
        # Measured before the clock starts, and added for methods that read it.
        sensitivity_seconds = 0.0 if job.options.search.sensitivity is None else trained.sensitivity_seconds
        row = self.agents.get(method)
        episode = None if row is None else row.episode
        problem = trained.problem(trained.journalled(Journal(journal), episode))
        began, seed = time.perf_counter(), seed or 0
        search_in_memory(
            problem, method if row is None else row.make(seed), job.environments(episode=episode), seed, "method"
        )
        seconds = time.perf_counter() - began + (sensitivity_seconds if problem.reads_sensitivity else 0)
        return Searched.of(problem, trained, seconds)

    def _figures(self, trained: Trained, rows: list[dict[str, Any]], refused: list[dict[str, Any]]) -> dict[str, Any]:
        job, primary = trained.job, trained.job.task.goal.primary
        agent = next((name for name in self.options.methods if name in self.agents), None)
        return {
            "network": job.task.name,
            "dataset": job.task.data.name,
            "objective": record(job.task.goal),
            "dense": {f"{primary}_test": job.task.figures(trained.network, self.test)[primary]},
            "options": asdict(job.options),
            "test_half": self.options.test_half,
            "test_examples": len(self.test),
            "rows": rows,
            "refused": refused,
            **summarise(rows, agent, primary),
            "machine": machine(job.runtime.device),
            "versions": versions(),
        }


def _latency(searched: Searched, network: nn.Module) -> dict[str, Any]:
    """Measured latency of a winner, in milliseconds and relative to the dense network's, measured in alternation."""
    job = searched.trained.job
    checks = {tuple(check["widths"]): check for check in searched.latency_checks}
    if searched.best.widths in checks:
        check = checks[searched.best.widths]
        dense, milliseconds = check["dense"], check["measured"]
    else:
        dense, milliseconds = job.timer.networks([searched.trained.network, network])
    return {"latency_ms": milliseconds, LATENCY: milliseconds / dense, "latency_checks": [*checks.values()]}


def stem(method: str, budget: Any, seed: int | None) -> str:
    """Return the name of a run's files in the folder `compare/`, without their suffixes."""
    return f"{method}-{budget}" + ("" if seed is None else f"-seed{seed}")


def _unfinished_files(path: Path) -> tuple[Path, Path]:
    """Files of a run that is not finished: the winner's figures before fine-tuning, and its checkpoint."""
    return path.with_suffix(".found.json"), path.with_suffix(".ckpt")
