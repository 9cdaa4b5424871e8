"""A task: network, data and objective, the input of every subcommand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.recipe import folder_of
from gnnrl_lightning.checks import as_path, instance
from gnnrl_lightning.data import ExampleData, Examples
from gnnrl_lightning.data.batch_hooks import check_batch_hooks
from gnnrl_lightning.data.from_data_module import as_example_data
from gnnrl_lightning.errors import Diverged, UserError
from gnnrl_lightning.evaluation.racing import random_order
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.arguments import check_kinds
from gnnrl_lightning.job.group_options import GroupOptions
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.networks import check_finite, check_runs, check_stored, load_weights, not_finite
from gnnrl_lightning.networks.copies import independent_copy, uncompiled
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.objective import Figure, Objective, find_objective
from gnnrl_lightning.objective.trial import try_objective
from gnnrl_lightning.speed.training import TunedTraining, tune_training
from gnnrl_lightning.training.distillation import Teacher
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import scored, train
from gnnrl_lightning.training.trial import check_training
from gnnrl_lightning.trees import Tree, device_of, floats, take, to_device, zeros_of

TUNED = 32
"""Examples of a step of training that is measured, at most: the fastest precision hardly depends on their number."""


@dataclass(frozen=True)
class Task:
    """A network, its data and its objective.

    Args:
        network: The network's class path and arguments, or the trained network itself, which is copied and never
            changed.
        data: The data module, of this package or any other, see `gnnrl_lightning.data.FromDataModule`; as an attribute
            it is one of this package.
        checkpoint: File with the network's weights; None: random ones, or those of the given network.
        seed: Seed of random weights and of training.
        groups: Layers to keep and limits of widths.
        artifact: Folder of a network that was pruned from this one and is pruned further; None: prune this one.
        objective: A name in `gnnrl_lightning.objective.OBJECTIVES` or an import path (both also as `class_path` with
            `init_args`), a class, or an objective.

    Raises:
        UserError: A value is of another type, both an artifact and a checkpoint are given, or the objective is
            unknown.
    """

    network: NetworkSpec | nn.Module
    data: ExampleData
    checkpoint: str | None = None
    seed: int = 0
    groups: GroupOptions = field(default_factory=GroupOptions)
    artifact: str | Path | None = None
    objective: Any = "classification"

    def __post_init__(self) -> None:
        check_kinds(network=self.network, data=self.data, seed=self.seed)
        if isinstance(self.network, nn.Module):
            object.__setattr__(self, "network", uncompiled(self.network))
        object.__setattr__(self, "data", as_example_data(self.data))
        instance("groups", self.groups, GroupOptions, "GroupOptions")
        if self.checkpoint is not None:
            as_path("checkpoint", self.checkpoint, other=", or None")
        if self.artifact is not None:
            as_path("artifact", self.artifact, "folder", ", or None")
        if self.artifact is not None and self.checkpoint is not None:
            raise UserError("artifact and checkpoint exclude each other: set one of them to null")
        self.goal  # noqa: B018  (checked here)

    @cached_property
    def goal(self) -> Objective:
        """The objective itself."""
        return find_objective(self.objective)

    @property
    def primary(self) -> Figure:
        """The objective's primary figure."""
        return self.goal.figures[self.goal.primary]

    @property
    def name(self) -> str:
        """The network's name: the last part of its path."""
        return self.path.rpartition(".")[2]

    @property
    def path(self) -> str:
        """Import path of the network's class or function."""
        if isinstance(self.network, NetworkSpec):
            return self.network.class_path
        return f"{type(self.network).__module__}.{type(self.network).__qualname__}"

    @property
    def record(self) -> dict[str, Any]:
        """Class path and arguments for the recipe; the arguments are null if the network itself was given."""
        if isinstance(self.network, NetworkSpec):
            return json.loads(json.dumps(asdict(self.network), default=str))
        return {"class_path": self.path, "init_args": None}

    @property
    def trained(self) -> bool:
        """True if the network needs no training: its weights are read from a file, or the network itself was given."""
        return self.checkpoint is not None or self.artifact is not None or isinstance(self.network, nn.Module)

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The earlier prunings of the network, see `gnnrl_lightning.artifacts.artifact.step`."""
        return [] if self.artifact is None else artifact.read_recipe(self.artifact)["steps"]

    @property
    def masked(self) -> tuple[str, ...]:
        """Names of the weights of the artifact that are masked, see `gnnrl_lightning.surgery.masks`."""
        return tuple(self.steps[-1].get("masks", {})) if self.steps else ()

    def _load_examples(self) -> None:
        """Download the examples if the data module is configured to, and read them."""
        self.data.prepare_data()
        self.data.setup()

    def example(self, examples: int = 1) -> Tree:
        """Return normalised inputs of training examples."""
        return self.data.calibration(examples)

    def original(self) -> nn.Module:
        """Return the unpruned network in evaluation mode: with random weights, or a copy of the given one.

        Raises:
            UserError: It cannot be created, its weights are not in float32, or it is a LightningModule that changes
                batches by hooks.
        """
        given = isinstance(self.network, nn.Module)
        network = self.network if isinstance(self.network, nn.Module) else self.network.build(self.seed)
        if isinstance(network, LightningModule):
            check_batch_hooks(network, type(network).__qualname__)
        check_stored(network)
        return independent_copy(network).cpu().eval() if given else network.eval()

    def build(self) -> nn.Module:
        """Create the network in evaluation mode and check it against the data.

        Raises:
            UserError: Examples or weights are missing, or do not fit the network.
        """
        if self.artifact is not None:
            return self.restore(self.artifact).network
        self._load_examples()
        network = self.original()
        if self.checkpoint is not None:
            self._load_dense(network, self.checkpoint)
        return self._checked(network)

    @staticmethod
    def _load_dense(network: nn.Module, path: str) -> None:
        try:
            load_weights(network, path)
        except UserError as error:
            if (folder := folder_of(path)) is None:
                raise
            raise UserError(f"{path} has the weights of a pruned network: give it as artifact: {folder}") from error

    def trace(self, network: nn.Module | None = None) -> ComputationGraph:
        """Trace the network's computational graph with one example.

        Args:
            network: Result of `build`; None: build it.

        Raises:
            UserError: The network cannot be traced, or lacks a layer to keep or limit.
        """
        return self.groups.trace(network or self.build(), self.example())

    def trace_again(self, network: nn.Module) -> ComputationGraph:
        """Trace what was pruned from the network, with the same layers kept, and without limits on widths.

        These are shares of the widths of the network before.
        """
        return replace(self.groups, limits={}).trace(network, self.example())

    def restore(self, folder: str | Path) -> artifact.Restored:
        """Load the pruned network of an artifact and check it against the data.

        Raises:
            UserError: Examples or files are missing, damaged, or do not fit.
        """
        recipe = artifact.read_recipe(folder)
        self._check_recipe(recipe, folder)
        restored = artifact.restore(folder, self.original(), zeros_of(recipe["input"]))
        self._checked(restored.network)
        return restored

    def _check_recipe(self, recipe: Mapping[str, Any], folder: str | Path) -> None:
        """Refuse a recipe of a different network or preprocessing; the path in the recipe is never imported."""
        given = self.record
        if recipe["network"] != given:
            raise UserError(
                f"{folder} was pruned from {_call(recipe['network'])}, network is {_call(given)}: "
                "set network as in the recipe"
            )
        self._load_examples()
        for name, value in self.data.transform_record().items():
            recorded = recipe["transform"].get(name, value)
            if name in ("mean", "std", "size", "resize") and recorded != value:
                raise UserError(
                    f"{folder} was saved with {name} {recorded}, the data module has {value}: set it as in the recipe"
                )

    def _checked(self, network: nn.Module) -> nn.Module:
        check_finite(network)
        some = self.data.some(2)
        outputs = check_runs(network, self.data.normalize(some.inputs))
        self.goal.check(outputs, some.targets, self.data)
        try_objective(self.goal, floats(outputs), some.targets)
        held = self.data.holdout.subset(torch.arange(min(2, len(self.data.holdout))))
        self.goal.check(check_runs(network, self.data.normalize(held.inputs)), held.targets)
        return network.eval()

    def train(
        self,
        network: nn.Module,
        options: TrainingOptions,
        trainer: Callable[..., Trainer],
        teacher: Teacher | None = None,
        checkpoint: Path | None = None,
        seed: int | None = None,
    ) -> list[dict[str, float]]:
        """Train a network in place, with a teacher if the options include distillation.

        Args:
            network: The network.
            options: Training options.
            trainer: Creates the trainer.
            teacher: What to distil from.
            checkpoint: File of the checkpoint after each epoch, from which training resumes; None: keep none.
            seed: Seed of order, augmentation, mixup and dropout; None: that of the task.

        Returns:
            The figures on the holdout after each epoch.

        Raises:
            Diverged: The network has NaN or infinite weights or statistics after it.
        """
        seed = self.seed if seed is None else seed
        settings = {"trainer": trainer, "seed": seed, "teacher": teacher, "checkpoint": checkpoint}
        found = train(network, self.data, options, self.goal, **settings)
        if (broken := not_finite(state_tensors(network))) is not None:
            raise Diverged(f"the training diverged: the network has {broken}; try a smaller learning_rate")
        return found

    def check_training(
        self, network: nn.Module, options: TrainingOptions, name: str, teacher: Teacher | None = None
    ) -> None:
        """Refuse training options that do not fit the network and the data.

        Args:
            network: The network to train, or one with the same kinds of parameters.
            options: Training options.
            name: Name of their section, for the message.
            teacher: What to distil from.

        Raises:
            UserError: See `gnnrl_lightning.training.trial.check_training`.
        """
        try:
            check_training(network, options, self.goal, self.data, teacher)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error

    def tune_training(self, network: nn.Module) -> TunedTraining:
        """Measure the fastest precision and memory format to train a network with, on its device.

        Args:
            network: The network to train, or one of the same shapes.
        """
        holdout = self.data.holdout
        order = random_order(len(holdout))[: min(TUNED, self.data.batch_size)]
        inputs, targets = to_device(take((holdout.inputs, holdout.targets), order), device_of([*network.parameters()]))
        return tune_training(network, self.data.normalize(inputs), targets, self.goal)

    def figures(self, network: nn.Module, examples: Examples) -> dict[str, float]:
        """Return the objective's figures of a network, by name."""
        return self.scored(network, examples)[1]

    def scored(self, network: nn.Module, examples: Examples) -> tuple[Tensor, dict[str, float]]:
        """Return the score of each example `(N,)`, higher is better, and the objective's figures by name."""
        return scored(network, examples, self.data, self.goal)

    def line(self, where: str, scores: Mapping[str, float]) -> str:
        """Format the primary figure and the split on which it was measured."""
        return f"{self.primary.label} on the {where}: {self.primary.with_unit(scores[self.goal.primary])}"


def _call(network: Mapping[str, Any]) -> str:
    return f"{network.get('class_path')} with init_args {network.get('init_args')}"
