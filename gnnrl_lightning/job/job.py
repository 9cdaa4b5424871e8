"""What all stages of a job share: the task, the limits, the options, and where and how it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Trainer
from torch import nn

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.networks import load_weights, save_weights
from gnnrl_lightning.processes import from_first, rank
from gnnrl_lightning.report.progress import ShownSteps, hidden_steps
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.environments import Environments
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer
from gnnrl_lightning.trees import Tree, to_device

# Names of what phases leave in `checkpoints/`, beside AGENT.
DENSE, SENSITIVITY, POLICY = "dense", "sensitivity", "policy"
DELIVERED = UNIFORM, PRUNED = ("uniform", "pruned")

PhaseTrainers = Callable[[str], Callable[..., Trainer]]
"""Phase ("dense", "uniform", "pruned") -> what makes the trainer of that phase."""


def quiet_trainers(phase: str) -> Callable[..., Trainer]:
    """Trainers that show and write nothing."""
    return quiet_trainer


@dataclass(frozen=True)
class Runtime:
    """Where and how a job works; nothing of it changes the result on one device.

    Args:
        trainers: Makes the trainers of the training phases.
        shown: Shows progress of what else takes long.
        device: Where candidates are pruned, repaired and scored: the dense network, the calibration examples and, as
            far as they fit, the held-out examples are kept there.
    """

    trainers: PhaseTrainers = quiet_trainers
    shown: ShownSteps = hidden_steps
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Job:
    """A checked task: what is to be compressed, and how.

    Args:
        task: The network and its data.
        graph: The traced network.
        limits: What the smaller network may cost.
        options: All options, every "auto" decided.
        runtime: Where and how it works.
    """

    task: Task
    graph: ComputationGraph
    limits: BoundBudget
    options: Options
    runtime: Runtime

    @property
    def evaluation_examples(self) -> int:
        """Forward passes of one example that an evaluation takes."""
        data = self.task.data
        return self.options.evaluation_examples(len(data.holdout), min(data.batch_size, len(data.train)))

    def calibration(self, examples: int) -> Tree:
        """Training examples as the network reads them, on the job's device."""
        return to_device(self.task.data.calibration(examples), self.runtime.device)

    def environments(self, limits: BoundBudget | None = None, episode: EpisodeOptions | None = None) -> Environments:
        """What makes an agent's environments.

        Args:
            limits: What a candidate may cost; None: the job's.
            episode: What the episodes are; None: as configured.
        """
        episode = episode or self.options.episode
        return Environments(self.graph, limits or self.limits, episode, self.options.measure(episode), self.task.goal)

    def train(
        self,
        phase: str,
        network: nn.Module,
        options: TrainingOptions,
        folder: RunFolder,
        teacher: nn.Module | None = None,
    ) -> None:
        """Train a network in place and save its weights, or load those that the folder has.

        Args:
            phase: "dense", "uniform" or "pruned".
            network: Trained in place.
            options: How.
            folder: Keeps checkpoint and weights.
            teacher: The network to distil from, where the options ask for that.
        """
        weights, checkpoint = folder.weights(phase), folder.checkpoint(phase)
        if from_first(weights.is_file()):
            load_weights(network, weights)
            return
        self.task.train(network, options, self.runtime.trainers(phase), teacher=teacher, checkpoint=checkpoint)
        if rank() == 0:
            save_weights(network, weights)
            checkpoint.unlink(missing_ok=True)
