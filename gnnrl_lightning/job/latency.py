"""Latency in a job whose budget limits it: measured before the search, the same in all processes, kept with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.cost.metrics import LATENCY
from gnnrl_lightning.job.job import Job
from gnnrl_lightning.job.saved import write_json
from gnnrl_lightning.processes import from_first, rank
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.integrity import read_figures
from gnnrl_lightning.speed.latency import Latency, latency_of_record, measure_latency

CHANGED = "the latency is measured again, and candidates in the journal may miss the budget"


def latency_for(job: Job, network: nn.Module, budget: Budget, folder: RunFolder | None) -> Latency | None:
    """Return the latency of the network at any widths if the budget limits it, else None.

    That of a network that earlier stages have pruned is on the clock of the dense one: the machine may have become
    slower since that was measured, so both are measured in alternation first.

    Args:
        job: What is known of the job before that.
        network: The network, on the job's device.
        budget: Upper limits on the costs.
        folder: Folder of an interrupted run, whose measurements are used; None: there is none.

    Raises:
        UserError: See `measure_latency`; or the measurements of the folder were damaged or edited.
    """
    if LATENCY not in budget.parsed:
        return None
    if folder is not None and folder.latency.is_file():
        return latency_of_record(read_figures(folder.latency, CHANGED), job.graph, network, job.options.latency)
    measured, origin = (job.task.example(), job.options.latency, job.timer, job.runtime.shown), job.origin
    measure = partial(measure_latency, job.graph, network, *measured)
    if origin is None or origin.latency is None or not origin.latency.milliseconds:
        return measure(budget)
    dense, now = job.timer.networks([origin.network, network])
    most = budget.parsed[LATENCY].of(dense)
    # Other limits are shares of the dense network, or may be met already.
    near = Budget({LATENCY: f"{most} ms"}, budget.channel_multiple, budget.min_width)
    found = measure(near if most < now else None)
    factor = origin.latency.milliseconds[0] / dense * now / found.milliseconds[0]
    return replace(found, milliseconds=tuple(factor * each for each in found.milliseconds)).fitted()


def shared_latency(job: Job, network: nn.Module, folder: RunFolder | None) -> Job:
    """Return the job with the measurements of the first process, which the folder of the run keeps, if there is one."""
    if job.latency is None:
        return job
    own = job.latency.as_record()
    found = from_first(own)
    if folder is not None and rank() == 0 and not folder.latency.is_file():
        write_json(folder.latency, found)
    if found == own:
        return job
    return with_latency(job, latency_of_record(found, job.graph, network, job.options.latency))


def with_latency(job: Job, latency: Latency) -> Job:
    """Return the job with another model of the latency, and its budget bound to that."""
    graph = job.graph.with_latency(latency.model)
    return replace(job, graph=graph, limits=job.limits.on(graph), latency=latency)


def latency_figures(job: Job, figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how latency was measured and, if it is limited, the limit and the latency that was reached.

    Args:
        job: The job.
        figures: Name -> figures of the dense and the pruned networks, with `latency_ms`.
    """
    options = job.options.latency
    conditions = {name: getattr(options, name) for name in ("batch_size", "precision", "backend")}
    conditions["threads"] = options.threads or torch.get_num_threads()
    if job.latency is None:
        return conditions
    dense, pruned = (figures[name]["latency_ms"] for name in ("dense", "pruned"))
    most = job.limits.budget.parsed[LATENCY].of(dense)
    return {**conditions, **job.latency.summary(), "limit": most, "measured": pruned, "exceeds_by": pruned / most - 1}
