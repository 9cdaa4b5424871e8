"""A network and its images: what every subcommand works on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from safetensors.torch import save_file
from torch import Tensor, nn

from gnnrl_lightning.cost.metrics import METRICS, metric_name
from gnnrl_lightning.data import ImageData, Images
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import replacing
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job import artifact
from gnnrl_lightning.job.groups import GroupOptions
from gnnrl_lightning.networks import check_finite, check_num_classes, load_weights
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.processes import rank
from gnnrl_lightning.report.costs import cost_names
from gnnrl_lightning.training.finetune import TrainingOptions, top1, train


@dataclass(frozen=True)
class Task:
    """A network and its images.

    Args:
        network: The network's class path and arguments.
        data: The images.
        checkpoint: File with the network's weights; None for fresh ones.
        seed: Seed of fresh weights and of training.
        groups: What of it may be pruned.
    """

    network: NetworkSpec
    data: ImageData
    checkpoint: str | None = None
    seed: int = 0
    groups: GroupOptions = field(default_factory=GroupOptions)

    def _load_images(self) -> None:
        """Fetch the images where the data module is asked to, and read them."""
        self.data.prepare_data()
        self.data.setup()

    def example(self, images: int = 1) -> Tensor:
        """Normalised training images, shape (images, C, H, W)."""
        return self.data.calibration(images)

    def build(self) -> nn.Module:
        """The network in evaluation mode, checked against the images.

        Raises:
            UserError: Images or weights are missing, or do not fit the network.
        """
        self._load_images()
        with isolate_rng():
            torch.manual_seed(self.seed)
            network = self.network.build()
        if self.checkpoint is not None:
            load_weights(network, self.checkpoint)
        return self._checked(network)

    def trace(self, network: nn.Module | None = None) -> ComputationGraph:
        """The network's computational graph, on one of its images.

        Args:
            network: What `build` has given; None: build it.

        Raises:
            UserError: The network cannot be traced, or has not what is to be kept or limited.
        """
        return self.groups.trace(network or self.build(), self.example())

    def restore(self, folder: str | Path) -> artifact.Restored:
        """The pruned network of an artifact, checked against the images.

        Raises:
            UserError: Images or files are missing, damaged, or do not fit.
        """
        recipe = artifact.read_recipe(folder)
        self._check_recipe(recipe, folder)
        restored = artifact.restore(folder, self.network.build(), torch.zeros(1, *recipe["input"]["shape"]))
        self._checked(restored.network)
        return restored

    def _check_recipe(self, recipe: Mapping[str, Any], folder: str | Path) -> None:
        """Refuse a recipe of another network or other images; the path that it names is never imported."""
        given = json.loads(json.dumps(asdict(self.network), default=str))
        if recipe["network"] != given:
            raise UserError(
                f"{folder} was pruned from {_call(recipe['network'])}, network is {_call(given)}: "
                "set network as the recipe has it"
            )
        self._load_images()
        for name, value in self.data.transform_record().items():
            recorded = recipe["transform"].get(name, value)
            if name in ("mean", "std", "size") and recorded != value:
                raise UserError(f"{folder} reads images of {name} {recorded}, the data module gives {value}")

    def _checked(self, network: nn.Module) -> nn.Module:
        check_finite(network)
        check_num_classes(network, self.example(2), self.data.num_classes)
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
            network: Images to logits.
            options: How to train.
            trainer: Makes the trainer.
            teacher: Network to distil from.
            checkpoint: File of each epoch's checkpoint, from which the training goes on; None: it keeps none.

        Raises:
            UserError: The training diverged.
        """
        train(network, self.data, options, trainer=trainer, seed=self.seed, teacher=teacher, checkpoint=checkpoint)
        check_finite(network)

    def top1(self, network: nn.Module, images: Images) -> float:
        """Top-1 accuracy in percent."""
        return top1(network, images, self.data)


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


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a network's weights without pickle; `load_weights` reads them."""
    state = network.state_dict()
    with replacing(path) as partial:
        save_file({name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}, partial)


def finetune_artifact(
    task: Task,
    restored: artifact.Restored,
    options: TrainingOptions,
    folder: Path,
    trainer: Callable[..., Trainer],
) -> float:
    """Train a restored network further and save it as an artifact of its own.

    Args:
        task: The images; the network is the artifact's.
        restored: The pruned network, trained in place.
        options: How to train.
        folder: Folder of the new artifact.
        trainer: Makes the trainer.

    Returns:
        Top-1 accuracy on the search split, percent.
    """
    recipe = restored.recipe
    task.train(restored.network, options, trainer)
    accuracy = task.top1(restored.network, task.data.search)
    if rank() > 0:
        return accuracy
    costs = {name: recipe["figures"][name] for name in cost_names(recipe["figures"])}
    figures = costs | {"top1_search_after": accuracy}
    artifact.save(
        folder,
        restored.network,
        dense=task.network.build().eval(),
        graph=restored.graph,
        plan=restored.plan,
        example=task.example(),
        description=artifact.Description(recipe["network"], recipe["budget"], task.data.transform_record(), figures),
        formats=list(recipe["formats"]),
    )
    return accuracy
