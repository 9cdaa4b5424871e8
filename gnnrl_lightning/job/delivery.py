"""The last part: prune, fine-tune, test and save the best candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.checks import instance
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.job.arguments import check_folder
from gnnrl_lightning.job.choosing import choose, files_of, recosted
from gnnrl_lightning.job.cuts import Cut, cut
from gnnrl_lightning.job.finetuning import keyed
from gnnrl_lightning.job.job import Job
from gnnrl_lightning.job.latency import latency_figures
from gnnrl_lightning.job.lossy import format_figures
from gnnrl_lightning.job.prediction import front_figures
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.processes import rank
from gnnrl_lightning.report.table import as_text, print_result
from gnnrl_lightning.rl.environments import AGENT
from gnnrl_lightning.runs.folder import PRUNED, UNIFORM, RunFolder
from gnnrl_lightning.speed.machine import machine
from gnnrl_lightning.surrogate.diagnostics import proxy_figures
from gnnrl_lightning.versions import versions


@dataclass(frozen=True, repr=False)
class Delivered:
    """The result of a job.

    Args:
        network: The pruned, fine-tuned network, in evaluation mode, on the CPU.
        figures: The measured figures, as in result.json.
        widths: Name of each group -> its width.
        folder: Folder of the artifact; None: nothing was kept.
    """

    network: nn.Module
    figures: Mapping[str, Any]
    widths: Mapping[str, int]
    folder: Path | None

    def __str__(self) -> str:
        """The figures as a table."""
        return as_text(lambda console: print_result(dict(self.figures), console))

    def __repr__(self) -> str:
        """The same, for notebooks and the Python prompt."""
        return str(self)


def deliver(searched: Searched, folder: RunFolder) -> Delivered | None:
    """Prune the best candidate and the uniform one, fine-tune both with the same settings, test once and save.

    What the options want after a search chooses the best candidate, see `gnnrl_lightning.job.choosing`.

    Args:
        searched: The finished search.
        folder: Folder of the run.

    Returns:
        The result. With several processes, all of them train, and only the first one tests and saves; the others
        return None.
    """
    instance("searched", searched, Searched, "what search has returned")
    check_folder(folder)
    searched = choose(searched, files_of(folder))
    chosen, job = {PRUNED: searched.best}, searched.trained.job
    if searched.uniform is not None and job.origin is None:  # else its widths would owe to the earlier searches
        chosen = {UNIFORM: recosted(searched, searched.uniform), **chosen}
    budget = job.limits.budget.as_record()
    return finish(searched.trained, chosen, folder, budget, search_figures(searched) if rank() == 0 else {})


def finish(
    trained: Trained,
    chosen: Mapping[str, Evaluation],
    folder: RunFolder,
    budget: Mapping[str, Any],
    search: Mapping[str, Any],
) -> Delivered | None:
    """Prune candidates, fine-tune them with the same settings, test once, and save the one named "pruned".

    A fine-tuning that has made a network worse on the holdout is undone, see `gnnrl_lightning.job.finetuning`.

    Args:
        trained: The job, its dense network trained.
        chosen: Phase ("pruned", and optionally "uniform" for comparison) -> scored candidate.
        folder: Folder of the run.
        budget: The budget that they meet, for the record; empty if there was none.
        search: Figures of the search.

    Returns:
        As `deliver`.
    """
    job, cuts = trained.job, cut(trained, chosen, folder)
    if rank() > 0:
        return None
    tested = _tested(trained, cuts)
    result = {
        "network": job.task.name,
        "dataset": job.task.data.name,
        "objective": record(job.task.goal),
        "budget": dict(budget),
        **tested,
        "latency": latency_figures(job, tested),
        "test_examples": len(job.task.data.test),
        "search": dict(search),
        **_structure(job, cuts),
        **_stages(cuts[PRUNED], budget, search),
        "machine": machine(job.runtime.device),
        "versions": versions(),
    }
    made = cuts[PRUNED]
    loaded = made.save(folder.pruned, budget, result[PRUNED], job.options.delivery.formats)
    result["formats"] = format_figures(job, folder.pruned, loaded, made.network)
    folder.write_result(result)
    widths = dict(zip(result["groups"], made.widths, strict=True))
    return Delivered(made.network, result, widths, folder.pruned)


def _tested(trained: Trained, cuts: Mapping[str, Cut]) -> dict[str, dict[str, Any]]:
    """Return the figures of the dense and the pruned networks; only lossy formats are tested besides, see `lossy`."""
    job, task, dense = trained.job, trained.job.task, trained.dense
    tested = {"dense": dense} | {f"{name} before": each.before for name, each in cuts.items()}
    tested |= {f"{name} after": each.after.network for name, each in cuts.items()}
    different = {id(network): network for network in tested.values()}  # without fine-tuning, before and after are one
    timed = {"dense": dense, **{name: each.after.network for name, each in cuts.items()}}
    latency = dict(zip(timed, job.timer.networks(list(timed.values())), strict=True))
    found: dict[int, dict[str, float]] = {}
    with job.runtime.shown("test", len(different)) as advance:
        for key, network in different.items():
            found[key] = task.figures(network, task.data.test)
            advance()
    scores = {name: found[id(network)] for name, network in tested.items()}
    rows = {
        name: {
            **each.costs,
            **each.scores,
            **keyed("test_before", scores[f"{name} before"]),
            **keyed("test_after", scores[f"{name} after"]),
            "latency_ms": latency[name],
            "widths": each.widths,
        }
        for name, each in cuts.items()
    }
    return {"dense": {**job.limits.dense, **keyed("test", scores["dense"]), "latency_ms": latency["dense"]}, **rows}


def _stages(last: Cut, budget: Mapping[str, Any], search: Mapping[str, Any]) -> dict[str, Any]:
    """Return the records of all stages, if there were several."""
    origin = last.trained.job.origin
    if origin is None:
        return {}
    number = len(last.trained.job.options.stages.shares) + 1
    return {"stages": [*map(dict, origin.stages), stage_record(number, last, budget, search)]}


def stage_record(number: int, made: Cut, budget: Mapping[str, Any], search: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stage (from 1 on) has come to, in plain JSON types; none of it is measured on the test examples."""
    spent = {name: search[name] for name in ("evaluations", "examples", "seconds", "found_by") if name in search}
    return {
        "stage": number,
        "budget": dict(budget),
        **made.costs,
        **made.scores,
        "widths": made.widths,
        "search": spent,
    }


def _structure(job: Job, cuts: Mapping[str, Cut]) -> dict[str, Any]:
    """Return the dense width of every group, the masked ones, and MACs and time of every layer in order of computation.

    The times are predicted if the budget limits the latency: those of `LatencyModel.operators`, scaled so that all
    operators together take as long as the network is predicted to take.
    """
    graph, names = job.dense_graph, ("dense", *cuts)
    widths = torch.stack([graph.widths, *(torch.tensor(each.widths) for each in cuts.values())])
    macs = graph.cost.operator_macs(widths)
    layers = [
        {
            "name": operator.name.rpartition(":")[0] or operator.name,
            "macs": dict(zip(names, column.tolist(), strict=True)),
        }
        for operator, column in zip(graph.operators, macs.T, strict=True)
        if column[0] > 0
    ]
    found: dict[str, Any] = {"groups": {group.name: group.width for group in graph.groups}}
    found |= {"masked": list(graph.masked)} if graph.masked else {}
    found["layers"] = layers
    if job.dense_latency is not None:
        milliseconds, computes = graph.latency.operators(widths), macs[0] > 0
        total = milliseconds.sum(1)
        milliseconds *= (graph.latency(widths) / total.where(total > 0, 1.0))[:, None]
        for layer, column in zip(layers, milliseconds[:, computes].T, strict=True):
            layer["latency_ms"] = dict(zip(names, column.tolist(), strict=True))
        found["other_latency_ms"] = dict(zip(names, milliseconds[:, ~computes].sum(1).tolist(), strict=True))
    return found


def search_figures(searched: Searched) -> dict[str, Any]:
    """Return the cost of a search, the proposer of the winner to deliver, and the contributions of agent and proxy."""
    # The one to deliver, if it is the agent's: another one may have the best reward, and a worse primary figure.
    agent, proxy = searched.best if searched.best.proposer == AGENT else searched.best_by(AGENT), None
    checks = {"latency_checks": [*map(dict, searched.latency_checks)]} if searched.latency_checks else {}
    job = searched.trained.job
    primary = job.task.goal.primary
    if searched.sensitivity is not None and searched.episodes is not None:
        proxy = proxy_figures(list(searched.history), searched.sensitivity, AGENT, searched.episodes, primary)
    return {
        "evaluations": searched.evaluations,
        "examples": searched.examples,
        "seed": job.task.seed,
        "found_by": searched.best.proposer,
        # If all candidates of the agent were dropped, there are only estimates and no best one.
        "agent_best": None if agent is None or agent.dropped else agent.scores[primary],
        "proxy": proxy,
        "seconds": searched.seconds,
        "finals": None if searched.finals is None else searched.finals.as_record(job.task.goal),
        **checks,
        **({"alike": [*map(dict, searched.alike)]} if searched.alike else {}),
        **front_figures(job.graph, job.limits, searched.front),
        **({} if job.origin is None else {"groups": [group.name for group in job.graph.groups]}),
    }
