"""A deep cut in several stages: search, prune and fine-tune at larger budgets first, each on what the last one left.

```
delivered = search_and_deliver(checked, agent, folder)  # `stages.shares` of the options
```

Every stage before the last one is a run of its own in a sub-folder of the run, from which it resumes. It delivers an
artifact, which the next one traces and prunes further. Shares of the budgets refer to the dense network throughout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gnnrl_lightning.job.checked import Checked, check
from gnnrl_lightning.job.choosing import choose, files_of
from gnnrl_lightning.job.cuts import cut
from gnnrl_lightning.job.delivery import Delivered, deliver, search_figures, stage_record
from gnnrl_lightning.job.given_widths import deliver_widths
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.origin import Origin
from gnnrl_lightning.job.searched import Searched
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.trained import Trained, agreed, train
from gnnrl_lightning.processes import from_first, rank
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.learners.own import check_made
from gnnrl_lightning.runs.folder import DENSE, PRUNED, RunFolder
from gnnrl_lightning.runs.integrity import read_figures
from gnnrl_lightning.search.methods import METHODS, SearchMethod

FORMATS = ("weights",)
"""Formats of the artifact of a stage: what the next one reads."""

EARLIER = "an earlier stage"
"""Proposer of widths that meet the last budget before its search."""

Search = Callable[[Trained, Any, RunFolder, str], Searched]
"""`(trained, agent or method, folder of the stage, name of the stage) -> finished search`; the last one has no name."""


def search_quietly(trained: Trained, by: GraphLearner | SearchMethod, folder: RunFolder, name: str) -> Searched:
    """Search without output, see `gnnrl_lightning.job.searching.search`."""
    return search(trained, by, folder)


def fits_agent(by: GraphLearner | SearchMethod, processes: int = 1) -> Callable[[Checked, bool], None]:
    """Return what refuses a job that an agent does not fit, for `check`; in stages, each has a copy of the agent.

    Args:
        by: The agent, or a method: the object itself or its name.
        processes: Number of processes.

    Returns:
        `(job, whether its latency is known)`, see `Job.iterations` and `Checked.prepare`. Before the latency is known,
        which the states of a trained policy may have, a copy of an agent without such a policy is tried.

    Raises:
        UserError: The method is unknown, or the class of the agent does not call the constructor of its base class.
    """
    if not isinstance(by, GraphLearner):
        METHODS.find(by, "by")
        return lambda checked, measured: None
    check_made(by)

    def fits(checked: Checked, measured: bool) -> None:
        checked.job.iterations(by, processes)
        if measured or by.policy_file is None:
            tried = not measured or checked.job.options.stages.shares
            checked.prepare(copy.deepcopy(by) if tried else by)

    return fits


def search_and_deliver(
    checked: Checked, by: GraphLearner | SearchMethod, folder: RunFolder, search: Search = search_quietly
) -> Delivered | None:
    """Do what follows `check`: all stages, each trained, searched, pruned and fine-tuned; the last one is delivered.

    Args:
        checked: The checked job.
        by: As for `through_stages`.
        folder: Folder of the run.
        search: Searches in a stage.

    Returns:
        As `deliver`.
    """
    last = through_stages(checked, by, folder, search)
    trained = train(last, folder)
    if last.met:
        budget = last.job.limits.budget.as_record()
        return deliver_widths(trained, last.job.graph.widths, folder, EARLIER, budget)
    return deliver(search(trained, by, folder, ""), folder)


def through_stages(
    checked: Checked, by: GraphLearner | SearchMethod, folder: RunFolder, search: Search = search_quietly
) -> Checked:
    """Run the stages before the last one, except those that are finished, and return the job of the last one.

    Args:
        checked: The checked job, with the budget of the last stage.
        by: An agent, of which each stage has a copy, or a method. Prepared for the last stage.
        folder: Folder of the run; the stages are in its sub-folders.
        search: Searches in a stage.

    Returns:
        The job of the last stage, on the network that the others have left; without stages, the given one. If widths
        are coarse, that network may meet the last budget already, see `Checked.met`.

    Raises:
        UserError: A budget cannot be reached by what earlier stages have left, or a file was damaged.
    """
    job, stages = agreed(checked.job), checked.job.options.stages
    if not stages.shares:
        return checked
    task, origin = job.task, None
    plan = zip(stages.budgets(job.limits), stages.epochs_of(job.options.finetuning.epochs), strict=True)
    for number, (budget, epochs) in enumerate(plan, 1):
        run = folder.stage(number)
        found, stage = _finished(run), job.for_stage(budget, epochs)
        stage = replace(stage, runtime=_named(job.runtime, run.path.name))
        at = replace(checked, job=stage) if origin is None else None
        if at is None and found is None:
            at = check(task, budget, stage.options, stage.runtime, run, origin)
            if at.met:
                continue
        if at is not None:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            trained = train(at, run)
            dense = trained.job
            origin = origin or Origin(dense.graph, trained.network, dense.latency, dense.graph.widths)
            found = found or _run(trained, _prepared(at, by), run, number, search)
        assert origin is not None and found is not None
        origin = origin.after(found)
        task = replace(task, artifact=run.pruned, checkpoint=None)
    last = check(task, job.limits.budget, job.options, job.runtime, folder, origin)
    if isinstance(by, GraphLearner) and not last.met:
        last.prepare(by)
    return last


def _prepared(checked: Checked, by: GraphLearner | SearchMethod) -> GraphLearner | SearchMethod:
    """Return a copy of an agent with a policy for this job, or a method."""
    if not isinstance(by, GraphLearner):
        return by
    own = copy.deepcopy(by)
    checked.prepare(own)
    return own


def _finished(run: RunFolder) -> Mapping[str, Any] | None:
    """Return the record of a finished stage, the same in all processes; None: it is not finished."""
    if not from_first(run.result.is_file()):
        return None
    return from_first(read_figures(run.result, "the network of this stage is saved again") if rank() == 0 else {})


def _run(
    trained: Trained, by: GraphLearner | SearchMethod, run: RunFolder, number: int, search: Search
) -> Mapping[str, Any]:
    """Search, prune, fine-tune and save; return the record of the stage, the same in all processes."""
    searched = choose(search(trained, by, run, run.path.name), files_of(run))
    job, found = searched.trained.job, {}
    cuts = cut(searched.trained, {PRUNED: searched.best}, run)
    if rank() == 0:
        budget = job.limits.budget.as_record()
        found = stage_record(number, cuts[PRUNED], budget, search_figures(searched))
        cuts[PRUNED].save(run.pruned, budget, cuts[PRUNED].costs | cuts[PRUNED].scores, FORMATS)
        run.write_result(found)
    return from_first(found)


def _named(runtime: Runtime, name: str) -> Runtime:
    """Return a runtime whose trainings have the name of the stage before theirs; there is one dense network."""
    return replace(runtime, trainers=lambda phase: runtime.trainers(phase if phase == DENSE else f"{name}/{phase}"))
