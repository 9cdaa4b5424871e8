"""What all parts of a job share: task, limits, options and runtime."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from gnnrl_lightning.checks import shown
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.errors import Diverged, UserError
from gnnrl_lightning.files import replacing
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.arguments import as_device
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.origin import Origin
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks import load_weights, read_notes, save_weights
from gnnrl_lightning.processes import from_first, rank
from gnnrl_lightning.report.progress import ShownSteps, hidden_steps
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.environments import Environments
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.runs.folder import DELIVERED, RunFolder
from gnnrl_lightning.speed.latency import Latency
from gnnrl_lightning.speed.timer import Timer
from gnnrl_lightning.training.distillation import Teacher
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer
from gnnrl_lightning.trees import Tree, to_device

HOLDOUT = "holdout"
"""Name of the figures on the holdout after each epoch, in the file with a phase's weights."""

PhaseTrainers = Callable[[str], Callable[..., Trainer]]
"""Phase ("dense", "uniform", "pruned") -> factory of the trainer of that phase."""


def quiet_trainers(phase: str) -> Callable[..., Trainer]:
    """Return trainers without output."""
    return quiet_trainer


@dataclass(frozen=True)
class Runtime:
    """Device, trainers and progress of a job. On a given device they do not change the result.

    Args:
        trainers: Creates the trainers of the training phases.
        shown: Shows progress of other long steps.
        device: Device on which candidates are pruned, repaired and scored. The dense network, the calibration examples
            and, if they fit, the held-out examples are kept there.
        timer: Measures latency; None: this machine does, as `latency` of the options says, see `check`.

    Raises:
        UserError: A value is of another type, or the device cannot be used here.
    """

    trainers: PhaseTrainers = quiet_trainers
    shown: ShownSteps = hidden_steps
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    timer: Timer | None = None

    def __post_init__(self) -> None:
        for name in ("trainers", "shown"):
            if not callable(getattr(self, name)):
                raise UserError(f"runtime.{name} is {shown(getattr(self, name))}: expected a function")
        object.__setattr__(self, "device", as_device(self.device))
        if self.timer is not None and not isinstance(self.timer, Timer):
            raise UserError(f"runtime.timer is {shown(self.timer)}: expected a timer, or None")


@dataclass(frozen=True)
class Job:
    """A checked task with its limits and options.

    Args:
        task: The network and its data.
        graph: The traced network.
        limits: Upper limits on the costs of the pruned network.
        options: All options, with every "auto" resolved.
        runtime: Device, trainers and progress.
        latency: Predicted latency, with the measurements behind it; None: the budget does not limit it.
        origin: The dense network of the run, if earlier stages have pruned it; None: the task's network is dense.
    """

    task: Task
    graph: ComputationGraph
    limits: BoundBudget
    options: Options
    runtime: Runtime
    latency: Latency | None = None
    origin: Origin | None = None

    @property
    def dense_graph(self) -> ComputationGraph:
        """The graph of the dense network with which the run began."""
        return self.graph if self.origin is None else self.origin.graph

    @property
    def dense_latency(self) -> Latency | None:
        """Latency of the dense network with which the run began; None: the budget does not limit it."""
        return self.latency if self.origin is None else self.origin.latency

    @property
    def dense_milliseconds(self) -> float:
        """Measured latency of the dense network with which the run began, on the clock of `latency`."""
        found = self.dense_latency
        assert found is not None, "the latency is not limited"
        return found.milliseconds[0]

    def dense_widths(self, widths: Sequence[int] | Tensor) -> Tensor:
        """Return widths of a candidate in the groups of `dense_graph`, int64."""
        given = torch.as_tensor(widths)
        return given if self.origin is None else self.origin.widths_of(self.graph, given)

    @property
    def timer(self) -> Timer:
        """Measures the latency of networks."""
        assert self.runtime.timer is not None  # `check` has made it
        return self.runtime.timer

    @property
    def evaluation_examples(self) -> int:
        """Forward passes of single examples in an evaluation."""
        data = self.task.data
        return self.options.evaluation_examples(len(data.holdout), min(data.batch_size, len(data.train)))

    def iterations(self, agent: GraphLearner, processes: int = 1) -> int:
        """Return the number of iterations of an agent in the real environment.

        Args:
            agent: The agent.
            processes: Number of processes; each plays the agent's episodes per iteration.

        Raises:
            UserError: The evaluations do not suffice for one iteration.
        """
        episodes = processes * agent.episodes_per_iteration
        return self.options.iterations(self.limits, self.evaluation_examples, episodes)

    @property
    def final_examples(self) -> int:
        """Training examples on which delivered networks are calibrated."""
        examples = self.options.delivery.calibration_examples
        assert isinstance(examples, int)  # resolved
        return min(examples, len(self.task.data.train))

    def calibration(self, examples: int) -> Tree:
        """Normalised training examples on the job's device."""
        return to_device(self.task.data.calibration(examples), self.runtime.device)

    def for_stage(self, budget: Budget, epochs: int) -> Job:
        """Return the job of an earlier stage of the same network: its budget, and its epochs of fine-tuning."""
        finetuning = replace(self.options.finetuning, epochs=epochs)
        return replace(self, limits=self.limits.bind(budget), options=replace(self.options, finetuning=finetuning))

    def environments(self, limits: BoundBudget | None = None, episode: EpisodeOptions | None = None) -> Environments:
        """Return the factory of an agent's environments.

        Args:
            limits: Upper limits on the costs of a candidate; None: those of the job.
            episode: Options of the episodes; None: as configured.

        Raises:
            UserError: The episodes do not fit the other options.
        """
        options = self.options.playing(episode)
        return Environments(self.graph, limits or self.limits, options.episode, options.measure(), self.task.goal)

    def train(
        self,
        phase: str,
        network: nn.Module,
        options: TrainingOptions,
        folder: RunFolder,
        teacher: Teacher | None = None,
    ) -> list[dict[str, float]]:
        """Train a network in place and save its weights, or load them if the folder has them.

        A fine-tuning that diverges is undone, with a warning: the network is as it was before.

        Args:
            phase: "dense", "uniform" or "pruned".
            network: Trained in place.
            options: Training options.
            folder: Run folder for checkpoint and weights.
            teacher: What to distil from, if the options include distillation.

        Returns:
            The figures on the holdout after each epoch; none if the training was undone.

        Raises:
            Diverged: The training of the dense network diverged.
        """
        weights, checkpoint = folder.weights(phase), folder.checkpoint(phase)
        if from_first(weights.is_file()):
            load_weights(network, weights)
            return read_notes(weights)[HOLDOUT]
        figures: list[dict[str, float]] = []
        with undone_if_diverged(network, phase) if phase in DELIVERED else nullcontext():
            trainer = self.runtime.trainers(phase)
            figures = self.task.train(network, options, trainer, teacher=teacher, checkpoint=checkpoint)
        if rank() == 0:
            with replacing(weights, checksum=True) as partial:
                save_weights(network, partial, {HOLDOUT: figures})
            checkpoint.unlink(missing_ok=True)
        return figures


@contextmanager
def undone_if_diverged(network: nn.Module, name: str) -> Iterator[None]:
    """Undo a fine-tuning in this block that diverges, with a warning that names the network: it is as it was before."""
    start = copy.deepcopy(network.state_dict())
    try:
        yield
    except Diverged as error:
        warnings.warn(f"{name} network: {error}; the network before fine-tuning is delivered", stacklevel=4)
        network.load_state_dict(start)
