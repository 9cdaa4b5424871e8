"""A network, its examples and what it is for: what every subcommand works on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from gnnrl_lightning.cost.metrics import METRICS, metric_name
from gnnrl_lightning.data import ExampleData, Examples
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job import artifact
from gnnrl_lightning.job.groups import GroupOptions
from gnnrl_lightning.networks import check_finite, check_runs, load_weights
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.objective import Figure, Objective, find_objective
from gnnrl_lightning.report.costs import cost_names
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import figures, train
from gnnrl_lightning.trees import Tree


@dataclass(frozen=True)
class Task:
    """A network, its examples, and what it is for.

    Args:
        network: The network's class path and arguments, or the trained network itself, which is copied and never
            changed.
        data: The examples.
        checkpoint: File with the network's weights; None for fresh ones, or those of the given network.
        seed: Seed of fresh weights and of training.
        groups: What of it may be pruned.
        artifact: Folder of a network that was pruned from this one, which is compressed further; None: this one is.
        objective: What the network is for: a name of `gnnrl_lightning.objective.OBJECTIVES`, an import path, both also
            as `class_path` with `init_args`, a class, or an objective.

    Raises:
        UserError: There are both an artifact and a checkpoint, or there is no such objective.
    """

    network: NetworkSpec | nn.Module
    data: ExampleData
    checkpoint: str | None = None
    seed: int = 0
    groups: GroupOptions = field(default_factory=GroupOptions)
    artifact: str | Path | None = None
    objective: Any = "classification"

    def __post_init__(self) -> None:
        if self.artifact is not None and self.checkpoint is not None:
            raise UserError("--artifact and --checkpoint exclude each other: set one of them to null")
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
        """Where the network's class or function comes from."""
        if isinstance(self.network, NetworkSpec):
            return self.network.class_path
        return f"{type(self.network).__module__}.{type(self.network).__qualname__}"

    @property
    def record(self) -> dict[str, Any]:
        """Class path and arguments, as a recipe has them; of a network that was given itself the arguments are null."""
        if isinstance(self.network, NetworkSpec):
            return json.loads(json.dumps(asdict(self.network), default=str))
        return {"class_path": self.path, "init_args": None}

    @property
    def trained(self) -> bool:
        """Whether the network needs no training: it has weights from a file, or was given itself."""
        return self.checkpoint is not None or self.artifact is not None or isinstance(self.network, nn.Module)

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The prunings that have led to the network, see `gnnrl_lightning.job.artifact.step`."""
        return [] if self.artifact is None else artifact.read_recipe(self.artifact)["steps"]

    def _load_examples(self) -> None:
        """Fetch the examples where the data module is asked to, and read them."""
        self.data.prepare_data()
        self.data.setup()

    def example(self, examples: int = 1) -> Tree:
        """Normalised inputs of training examples."""
        return self.data.calibration(examples)

    def original(self) -> nn.Module:
        """The network that no step has pruned yet, in evaluation mode: with fresh weights, or a copy of the given one.

        Raises:
            UserError: It cannot be made.
        """
        if isinstance(self.network, nn.Module):
            return copy.deepcopy(self.network).cpu().eval()
        with isolate_rng():
            torch.manual_seed(self.seed)
            return self.network.build().eval()

    def build(self) -> nn.Module:
        """The network in evaluation mode, checked against the data.

        Raises:
            UserError: Examples or weights are missing, or do not fit the network.
        """
        if self.artifact is not None:
            return self.restore(self.artifact).network
        self._load_examples()
        network = self.original()
        if self.checkpoint is not None:
            load_weights(network, self.checkpoint)
        return self._checked(network)

    def trace(self, network: nn.Module | None = None) -> ComputationGraph:
        """The network's computational graph, on one of its examples.

        Args:
            network: What `build` has given; None: build it.

        Raises:
            UserError: The network cannot be traced, or has not what is to be kept or limited.
        """
        return self.groups.trace(network or self.build(), self.example())

    def restore(self, folder: str | Path) -> artifact.Restored:
        """The pruned network of an artifact, checked against the data.

        Raises:
            UserError: Examples or files are missing, damaged, or do not fit.
        """
        recipe = artifact.read_recipe(folder)
        self._check_recipe(recipe, folder)
        restored = artifact.restore(folder, self.original(), torch.zeros(1, *recipe["input"]["shape"]))
        self._checked(restored.network)
        return restored

    def _check_recipe(self, recipe: Mapping[str, Any], folder: str | Path) -> None:
        """Refuse a recipe of another network or other images; the path that it names is never imported."""
        given = self.record
        if recipe["network"] != given:
            raise UserError(
                f"{folder} was pruned from {_call(recipe['network'])}, network is {_call(given)}: "
                "set network as the recipe has it"
            )
        self._load_examples()
        for name, value in self.data.transform_record().items():
            recorded = recipe["transform"].get(name, value)
            if name in ("mean", "std", "size") and recorded != value:
                raise UserError(f"{folder} reads images of {name} {recorded}, the data module gives {value}")

    def _checked(self, network: nn.Module) -> nn.Module:
        check_finite(network)
        some = self.data.some(2)
        self.goal.check(check_runs(network, self.data.normalize(some.inputs)), some.targets, self.data)
        return network.eval()

    def train(
        self,
        network: nn.Module,
        options: TrainingOptions,
        trainer: Callable[..., Trainer],
        teacher: nn.Module | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """Train a network in place, with a teacher where the options ask for distillation.

        Args:
            network: Inputs to outputs.
            options: How to train.
            trainer: Makes the trainer.
            teacher: Network to distil from.
            checkpoint: File of each epoch's checkpoint, from which the training is resumed; None: it keeps none.

        Raises:
            UserError: The training diverged.
        """
        settings = {"trainer": trainer, "seed": self.seed, "teacher": teacher, "checkpoint": checkpoint}
        train(network, self.data, options, self.goal, **settings)
        check_finite(network)

    def figures(self, network: nn.Module, examples: Examples) -> dict[str, float]:
        """The objective's figures of a network, by name."""
        return figures(network, examples, self.data, self.goal)

    def line(self, where: str, scores: Mapping[str, float]) -> str:
        """The primary figure and where it was measured, for the user."""
        return f"{self.primary.label} on the {where}: {self.primary.with_unit(scores[self.goal.primary])}"


def _call(network: Mapping[str, Any]) -> str:
    return f"{network.get('class_path')} with init_args {network.get('init_args')}"


def inspect(graph: ComputationGraph, metrics: Iterable[Any] = METRICS) -> dict[str, Any]:
    """What can be pruned: groups with lowest and highest widths, kept layers, frozen groups with reasons, costs.

    The smallest cost is that of the lowest widths, which `min_width` of a budget may raise further.

    Args:
        graph: The traced network.
        metrics: The metrics to show, see `ComputationGraph.cost_of`.
    """
    both, costs = torch.stack([graph.widths, graph.smallest]), {}
    for metric in metrics:
        name, (dense, smallest) = metric_name(metric), graph.cost_of(metric)(both).tolist()
        costs |= {name: dense, f"smallest_{name}": smallest}
    frozen = [asdict(group) for group in graph.frozen]
    groups = [
        {
            "name": group.name,
            "width": group.width,
            "lowest": lowest,
            "highest": highest,
            "members": [asdict(member) for member in group.members],
        }
        for group, lowest, highest in zip(
            graph.groups, graph.ranges.lowest.tolist(), graph.ranges.highest.tolist(), strict=True
        )
    ]
    return {
        **costs,
        "kept": list(graph.kept),
        "groups": groups,
        "frozen": frozen,
    }


def save_finetuned(task: Task, network: nn.Module, scores: Mapping[str, float], folder: Path) -> None:
    """Save the pruned network of a task's artifact, which was trained further, as an artifact of its own.

    Args:
        task: Has the artifact that the network is from.
        network: The network.
        scores: The objective's figures of it on the holdout.
        folder: Folder of the new artifact.

    Raises:
        UserError: The task has no artifact.
    """
    if task.artifact is None:
        raise UserError("the task has no artifact: its network was not pruned")
    recipe = artifact.read_recipe(task.artifact)
    costs = {name: recipe["figures"][name] for name in cost_names(recipe["figures"])}
    figures = costs | {f"{name}_search_after": value for name, value in scores.items()}
    description = artifact.Description(recipe["network"], recipe["budget"], task.data.transform_record(), figures)
    artifact.save(
        folder,
        network,
        dense=task.original(),
        steps=recipe["steps"],
        example=task.example(),
        description=description,
    )
