"""The first part: a job with validated input. Nothing has been trained or written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from gnnrl_lightning.artifacts.formats import check_exportable
from gnnrl_lightning.checks import instance
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.cost.metrics import METRICS
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.importance import Calibration
from gnnrl_lightning.job.arguments import check_kinds
from gnnrl_lightning.job.deciding import decided, without_auto
from gnnrl_lightning.job.job import Job, Runtime
from gnnrl_lightning.job.latency import latency_for
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.origin import Origin
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trial import try_own
from gnnrl_lightning.networks import eval_mode
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.objective.protocol import untrained
from gnnrl_lightning.options import AUTO
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.speed.alignment import Alignment, align, multiples_for
from gnnrl_lightning.speed.timer import RealTimer
from gnnrl_lightning.speed.training import TunedTraining
from gnnrl_lightning.speed.tuning import Tuned
from gnnrl_lightning.surgery.layers import kept_inputs
from gnnrl_lightning.training.distillation import Teacher
from gnnrl_lightning.trees import Tree, call, floats, take, to_device

LEAST_CUT = 1 - 1e-9
"""A share of the dense network's cost that any pruned network meets."""

TRIED = 8
"""Calibration examples on which what is of the user's own is tried."""


def check(
    task: Task,
    budget: Budget,
    options: Options | None = None,
    runtime: Runtime | None = None,
    folder: RunFolder | None = None,
    origin: Origin | None = None,
    fits: Callable[[Checked, bool], None] = lambda checked, measured: None,
) -> Checked:
    """Validate the input of a job and resolve every "auto" option. Nothing is written.

    ```
    checked = check(task, Budget(macs=0.5), Options(search=SearchOptions(evaluations=200)))
    trained = train(checked, folder)
    delivered = deliver(search(trained, GNNRL(), folder), folder)
    ```

    Args:
        task: The network and its data.
        budget: Upper limits on the costs of the pruned network.
        options: Options of all parts; None: the defaults.
        runtime: Device, trainers and progress; None: the CPU, without output.
        folder: Folder of an interrupted run, whose measurements of latency are used; None: there is none.
        origin: The dense network with which the run began, if the task's artifact is what earlier stages have left of
            it, see `gnnrl_lightning.job.stages`; shares of the budget refer to it.
        fits: `(job, whether its latency is known)`, which refuses what does not fit the job: called before anything is
            measured, with what is known by then, and with the result, see `gnnrl_lightning.job.stages.fits_agent`.

    Raises:
        UserError: The input is invalid.
    """
    instance("task", task, Task, "a Task, such as Task(network, Digits())")
    check_kinds(budget=budget, options=options)
    options = Options() if options is None else options
    runtime = Runtime() if runtime is None else runtime
    instance("runtime", runtime, Runtime, "a Runtime, or None")
    if folder is not None:
        instance("folder", folder, RunFolder, "a RunFolder, or None")
    network = task.build()
    graph = task.trace(network) if origin is None else task.trace_again(network).limited_as(origin.graph)
    if task.masked:
        raise UserError(
            f"{task.artifact} has masked weights ({', '.join(task.masked)}), which a further search would not keep: "
            "begin with the dense network, or train this one further with finetune"
        )
    check_prunable(graph, task.path)
    options = without_auto(options, graph, len(task.data.train))
    if graph.masks and options.stages.shares:
        raise UserError("groups.masks and stages.shares do not go together yet: leave one of them out")
    if not task.trained:
        task.check_training(network, options.pretraining, "pretraining")
        if options.pretraining.epochs > 0 and isinstance(task.network, NetworkSpec):
            task.network.check_random(network, task.seed)
    task.check_training(network, options.finetuning, "finetuning", teacher=_itself(graph, network))
    check_exportable(options.delivery.formats, network, task.example())
    near = budget if origin is not None else options.stages.first(budget)
    if folder is not None and near is not budget:
        folder = folder.stage(1)
    network.to(runtime.device)
    job = Job(task, graph, unmeasured(near).on(graph, origin and origin.graph), options, runtime, origin=origin)
    if origin is None:
        _before_measuring(job, network, near, fits)
    timer = runtime.timer or RealTimer(options.latency, runtime.device, task.example(), runtime.shown)
    job, alignment = replace(job, runtime=replace(runtime, timer=timer)), None
    if budget.channel_multiple == AUTO:
        alignment = align(graph, network, budget, timer, options.latency.batch_size)
        budget, near = (each.aligned(alignment.multiple) for each in (budget, near))
    latency = latency_for(job, network, near, folder)
    if latency is not None:
        graph = graph.with_latency(latency.model)
    job = replace(job, graph=graph, limits=limits_on(graph, budget, task.path, origin), latency=latency)
    if origin is None:
        options.stages.budgets(job.limits)  # refused now, not after the first stage
    if latency is None and alignment is None:
        timer.check(network)
    options, tuned = decided(job, network)
    job = replace(job, options=options)
    calibration = job.calibration(options.candidate.calibration_count)
    checked = Checked(job, network, calibration, tuned if alignment is None else (alignment, *tuned))
    fits(checked, True)
    return checked


def _itself(graph: ComputationGraph, network: nn.Module) -> Teacher:
    """The network as the teacher of one that keeps all of its channels: what is tried reads features as well."""
    return Teacher(network, kept_inputs(graph, graph.plan(network, graph.widths).selection))


def _before_measuring(job: Job, network: nn.Module, budget: Budget, fits: Callable[[Checked, bool], None]) -> None:
    """Refuse what does not depend on measurements, of which the multiple of channels may be one."""
    calibration = job.calibration(job.options.candidate.calibration_count)
    tried = Calibration(take(calibration, slice(TRIED)), None, job.task.goal)
    try_own(job, network, tried)
    coarsest = max(multiples_for(job.graph)) if budget.channel_multiple == AUTO else 1
    for multiple in sorted({1, coarsest}, reverse=True):  # the coarser, the fewer examples for the sensitivity
        try:
            limits = unmeasured(budget, multiple).on(job.graph)
        except UserError:  # the budget cannot be met with it
            continue
        try:
            return fits(Checked(replace(job, limits=limits), network, calibration), False)
        except UserError:
            if multiple == 1:
                raise


def unmeasured(budget: Budget, channel_multiple: int = 1) -> Budget:
    """Return what is known of a budget before anything is measured: the limits on all other metrics.

    A multiple of channels that is to be measured is replaced by the given one.
    """
    multiple = channel_multiple if budget.channel_multiple == AUTO else budget.channel_multiple
    limits = {key: limit for key, limit in budget.limits.items() if not METRICS.find(key).measured}
    return Budget(limits or {"macs": LEAST_CUT}, multiple, budget.min_width)


def check_prunable(graph: ComputationGraph, name: str) -> None:
    """Refuse a network that has no prunable channels; `name` is its name in the message."""
    if not graph.groups:
        raise UserError(f"{name} has no channels that can be pruned: see the reasons in inspect, or in `graph.frozen`")


def limits_on(graph: ComputationGraph, budget: Budget, name: str, origin: Origin | None = None) -> BoundBudget:
    """Bind a budget to a network; what earlier stages have left of `origin` may meet it already.

    Raises:
        UserError: The network meets the budget already, or cannot meet it.
    """
    limits = budget.on(graph, origin and origin.graph)
    if origin is None and limits.met(graph.widths):
        raise UserError(f"{name} meets the budget already: give a smaller one")
    return limits


@dataclass(frozen=True)
class Checked:
    """A job with validated input.

    Args:
        job: The task with its limits and options.
        network: The dense network, on the job's device; it may be untrained.
        calibration: Normalised training examples for importance, repair and sensitivity.
        measured: Measurements behind the options that were "auto", each with a line for the user.
    """

    job: Job
    network: nn.Module
    calibration: Tree
    measured: tuple[Alignment | Tuned | TunedTraining, ...] = ()

    @property
    def met(self) -> bool:
        """Whether the network meets the budget as it is: only what earlier stages have left may."""
        return bool(self.job.limits.met(self.job.graph.widths))

    def prepare(self, agent: GraphLearner, episode: EpisodeOptions | None = None) -> None:
        """Create the agent's policy in an environment without scores, and call its reward once.

        Args:
            agent: The agent.
            episode: Options of its episodes; None: as configured.

        Raises:
            UserError: The policy cannot be made, does not fit, the reward fails, or the episodes do not fit the other
                options.
        """
        environments = self.job.environments(episode=episode)
        holdout = self.job.options.scoring.count(len(self.job.task.data.holdout))
        environments.prepare(agent, self._untrained(), self.job.evaluation_examples, holdout)

    def _untrained(self) -> dict[str, float]:
        """Return the scores of a candidate that guesses."""
        task, holdout = self.job.task, self.job.task.data.holdout
        some = take((holdout.inputs, holdout.targets), slice(task.data.eval_batch_size))
        inputs, targets = to_device((task.data.normalize(some[0]), some[1]), self.job.runtime.device)
        with eval_mode(self.network), torch.inference_mode():
            outputs = floats(call(self.network, inputs))
        return untrained(task.goal, outputs, targets)
