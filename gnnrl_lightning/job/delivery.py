"""What comes of a search: the best candidate pruned, fine-tuned, tested once, and saved with its figures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.evaluation.result import Evaluation, best_of
from gnnrl_lightning.job import artifact
from gnnrl_lightning.job.compression import Compression
from gnnrl_lightning.job.policy_search import AGENT
from gnnrl_lightning.job.runs import RunFolder, versions
from gnnrl_lightning.processes import rank
from gnnrl_lightning.speed.latency import paired_latency_ms
from gnnrl_lightning.surrogate.diagnostics import proxy_figures

LATENCY_BATCH = 64


def deliver(compression: Compression, folder: RunFolder) -> dict[str, Any]:
    """Prune the best candidate and the uniform one, fine-tune both alike, test once, save.

    Args:
        compression: A job whose search is over.
        folder: Folder of the run.

    Returns:
        The figures, as written to result.json. Of several processes the first one tests and saves; the others, which
        have helped to train, return nothing.

    Raises:
        RuntimeError: There was no search.
    """
    seconds = compression.notes()["seconds"]  # before what is pruned, trained and tested here
    best, uniform = compression.best(), best_of(compression.problem.history, "uniform")
    if best is None or uniform is None:
        raise RuntimeError("deliver() comes after start()")
    chosen = {"uniform": uniform, "pruned": best}
    search = _search_figures(compression, best) | {"seconds": seconds} if rank() == 0 else {}
    return finish(compression, chosen, folder, compression.budget.as_record(), search)


def finish(
    compression: Compression,
    chosen: Mapping[str, Evaluation],
    folder: RunFolder,
    budget: Mapping[str, Any],
    search: Mapping[str, Any],
) -> dict[str, Any]:
    """Prune candidates, fine-tune them alike, test once, and save the one that is called "pruned".

    Args:
        compression: A job whose dense network is trained.
        chosen: Phase ("pruned", and maybe "uniform" to compare it with) -> scored candidate.
        folder: Folder of the run.
        budget: The budget that they meet, for the record; empty where there was none.
        search: Figures of how they were found.

    Returns:
        The figures, as written to result.json. Of several processes the first one tests and saves; the others, which
        have helped to train, return nothing.
    """
    pruner, before = compression.final_pruner(), {}
    plans = {name: pruner.plan(torch.tensor(item.widths)) for name, item in chosen.items()}
    with compression.shown("final pruning", len(plans)) as advance:
        for name, plan in plans.items():
            before[name] = pruner.prune(plan)
            advance()
    after = copy.deepcopy(before)
    for name, network in after.items():
        compression.train_phase(name, network, compression.finetune, folder, teacher=compression.dense)
    if rank() > 0:
        return {}
    result = {
        "network": compression.task.network.name,
        "dataset": compression.task.data.name,
        "budget": dict(budget),
        **_tested(compression, chosen, before, after),
        "search": dict(search),
        "versions": versions(),
    }
    with compression.shown("export", 1) as advance:
        artifact.save(
            folder.pruned,
            copy.deepcopy(after["pruned"]).cpu(),
            dense=copy.deepcopy(compression.dense).cpu(),
            graph=compression.graph,
            plan=plans["pruned"],
            example=compression.task.example(),
            description=artifact.Description(
                asdict(compression.task.network),
                result["budget"],
                compression.task.data.transform_record(),
                result["pruned"],
            ),
            formats=compression.search.formats,
        )
        advance()
    folder.write_result(result)
    return result


def _tested(
    compression: Compression,
    chosen: Mapping[str, Evaluation],
    before: Mapping[str, nn.Module],
    after: Mapping[str, nn.Module],
) -> dict[str, dict[str, Any]]:
    """Figures of the dense network and of the pruned ones: the only place where the test images are read."""
    task, dense, limits = compression.task, compression.dense, compression.limits
    batch = task.example().expand(LATENCY_BATCH, -1, -1, -1).contiguous().to(compression.device)
    tested = {"dense": dense} | {f"{name} before": network for name, network in before.items()}
    tested |= {f"{name} after": network for name, network in after.items()}
    top1 = {}
    with compression.shown("test", len(tested) + 1) as advance:
        latency = paired_latency_ms({"dense": dense, **after}, batch)
        advance()
        for name, network in tested.items():
            top1[name] = task.top1(network, task.data.test)
            advance()
    rows = {
        name: {
            **item.costs,
            **limits.ratios(item.costs),
            "top1_search": item.top1,
            "top1_test_before": top1[f"{name} before"],
            "top1_test_after": top1[f"{name} after"],
            "latency_ms": latency[name],
            "widths": list(item.widths),
        }
        for name, item in chosen.items()
    }
    return {"dense": {**limits.dense, "top1_test": top1["dense"], "latency_ms": latency["dense"]}, **rows}


def _search_figures(compression: Compression, best: Evaluation) -> dict[str, Any]:
    """What the search cost, who found the winner, and what agent and proxy were worth."""
    problem, agent, proxy = compression.problem, compression.best(AGENT), None
    if compression.search.table is not None:
        proxy = proxy_figures(problem.history, compression.sensitivity, AGENT, compression.episodes)
    return {
        "evaluations": problem.spent,
        "images": problem.images,
        "seed": compression.task.seed,
        "found_by": best.proposer,
        # An agent all of whose candidates were dropped has estimates alone, and no best one.
        "agent_best": None if agent is None or agent.dropped else agent.top1,
        "proxy": proxy,
    }
