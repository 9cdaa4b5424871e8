"""One class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gnnrl_lightning.checks import LARGEST, whole
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective.classification import (
    TEMPERATURE,
    check_classes,
    check_softness,
    softened_divergence,
    within,
)
from gnnrl_lightning.objective.outputs import main_output
from gnnrl_lightning.objective.protocol import AGREEMENT, Figure, Measured, Objective
from gnnrl_lightning.trees import Tree


@dataclass(frozen=True)
class Segmentation(Objective):
    r"""Logits `(N, classes, ...)` and classes `(N, ...)`; ranked by mean intersection over union, then cross-entropy.

    The mean is over the classes c that occur in targets or predictions, with
    :math:`IoU_c = |T_c \cap P_c| / |T_c \cup P_c|` over all pixels of all examples. Races compare the mean IoU of each
    single example. The logits are the network's only output or the one that is named `logits` or `out`.

    Args:
        ignore_index: Target of pixels to ignore.
        label_smoothing: Label smoothing of the training loss, from 0 to 1.
        divergence_temperature: Temperature of `distance`, as in `Classification`.

    Raises:
        UserError: The share or the temperature is out of range.
    """

    ignore_index: int = -100
    label_smoothing: float = 0.0
    divergence_temperature: float = TEMPERATURE

    figures: ClassVar[Mapping[str, Figure]] = {
        "mean_iou": Figure("mean IoU", "%", higher_is_better=True),
        "pixel_accuracy": Figure("pixel accuracy", "%", higher_is_better=True),
        "cross_entropy": Figure("cross-entropy", "nats", digits=4),
    }
    ranking: ClassVar[tuple[str, ...]] = ("mean_iou", "cross_entropy")
    divergence: ClassVar[Figure] = Figure("divergence", "nats", digits=4, logarithmic=True)

    def __post_init__(self) -> None:
        whole("ignore_index", self.ignore_index, -LARGEST)
        check_softness(self.label_smoothing, self.divergence_temperature)

    @property
    def _ignored(self) -> str:
        return f", or ignore_index ({self.ignore_index}) for pixels to ignore"

    def loss(self, outputs: Tree, targets: Tensor) -> Tensor:
        """Return the cross-entropy, nats, mean over all pixels of the batch that are not ignored."""
        smoothing = self.label_smoothing
        found = maps(outputs)
        with within(found.shape[1], self._ignored):
            return F.cross_entropy(found, targets.long(), ignore_index=self.ignore_index, label_smoothing=smoothing)

    def measure(self, outputs: Tree, targets: Tensor) -> Measured:
        """Return mean IoU of each example `(n,)`; sums: intersections, unions `(classes,)`, pixels, cross-entropy."""
        outputs, targets = maps(outputs).float(), targets.long()
        with within(outputs.shape[1], self._ignored):
            cross_entropy = F.cross_entropy(outputs, targets, ignore_index=self.ignore_index, reduction="sum")
        confusion = self._confusion(outputs, targets)
        both = confusion.diagonal(dim1=1, dim2=2)
        either = confusion.sum(1) + confusion.sum(2) - both
        present = either > 0
        scores = (both / either.clamp(min=1)).sum(1) / present.sum(1).clamp(min=1)
        sums = {
            "intersection": both.sum(0),
            "union": either.sum(0),
            "pixels": confusion.sum(),
            "cross_entropy": cross_entropy,
        }
        return Measured(scores.float(), sums)

    def _confusion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Pixels `(n, classes, classes)` float64 of each target (rows) and prediction (columns)."""
        examples, classes = outputs.shape[:2]
        guess, wanted = outputs.argmax(1).flatten(1), targets.flatten(1)
        example = torch.arange(examples, device=outputs.device)[:, None]
        cells = (example * classes + wanted) * classes + guess
        counts = cells[wanted != self.ignore_index].bincount(minlength=examples * classes**2)
        return counts.view(examples, classes, classes).double()

    def values(self, means: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean IoU and pixel accuracy in percent, cross-entropy of a pixel in nats."""
        both, either = means["intersection"], means["union"]
        present = either > 0
        pixels = means["pixels"].clamp(min=torch.finfo(torch.float64).tiny)
        iou = (both[present] / either[present]).clamp(max=1)
        return {
            "mean_iou": 100 * float(iou.mean()) if len(iou) else 0.0,
            "pixel_accuracy": 100 * float((both.sum() / pixels).clamp(max=1)),
            "cross_entropy": float(means["cross_entropy"] / pixels),
        }

    def distance(self, outputs: Tree, reference: Tree) -> Tensor:
        """Terms `(n, classes, ...)` of the softened divergence of an example: the mean over its pixels, nats."""
        return mean_of_pixels(maps(outputs), maps(reference), self.divergence_temperature)

    def distillation(self, outputs: Tree, teacher: Tree, temperature: float) -> Tensor:
        """Softened divergence from the teacher, mean over all pixels."""
        return mean_of_pixels(maps(outputs), maps(teacher), temperature).sum() / len(maps(outputs))

    def agrees(self, outputs: Tree, reference: Tree) -> bool:
        """Return True if the divergence of the pixels from the reference is negligible."""
        outputs, reference = maps(outputs), maps(reference)
        return float(mean_of_pixels(outputs, reference, 1.0).sum() / len(outputs)) <= AGREEMENT

    def draw(self, outputs: Tree, generator: torch.Generator) -> Tensor:
        """Draw a class for each pixel `(N, ...)` from the network's own probabilities."""
        chances = maps(outputs).softmax(1).movedim(1, -1)
        drawn = torch.multinomial(chances.reshape(-1, chances.shape[-1]).cpu(), 1, generator=generator)
        return drawn.view(chances.shape[:-1]).to(chances.device)

    def check(self, outputs: Tree, targets: Tree, data: Any = None) -> None:
        """Refuse outputs that are not `(examples, classes, ...)` in the size of the targets."""
        found = maps(outputs)
        if found[:, 0].shape != targets.shape:
            shape, wanted = tuple(found.shape), (len(targets), "classes", *targets.shape[1:])
            raise UserError(f"the network returns {shape} for targets of {tuple(targets.shape)}: expected {wanted}")
        check_classes(found.shape[1], targets[targets != self.ignore_index], data, self._ignored)


def maps(outputs: Tree) -> Tensor:
    """Return the logits `(N, classes, ...)` of a network's outputs, as `main_output` finds them."""
    return main_output(outputs, "logits (examples, classes, ...) of every pixel", 3)


def mean_of_pixels(outputs: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """Terms `(n, classes, ...)` of an example's softened divergence, which is the mean over its pixels."""
    return softened_divergence(outputs, reference, temperature) / max(1, outputs[0, 0].numel())
