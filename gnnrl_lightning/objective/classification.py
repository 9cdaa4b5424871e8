"""One class for each example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gnnrl_lightning.checks import real
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.objective.outputs import main_output
from gnnrl_lightning.objective.protocol import AGREEMENT, Figure, Measured, Objective
from gnnrl_lightning.trees import Tree

SAME_CLASS = 0.99
"""Share of the examples that must get a class as good as the reference's for two precisions to agree."""

AS_GOOD = 0.1
"""Log-probability, nats, by which a class may be below the best and still be as good: untrained networks have ties."""

TOP = 5

TEMPERATURE = 4.0
"""Temperature at which outputs are compared with the dense network's."""


@dataclass(frozen=True)
class Classification(Objective):
    """Logits `(N, classes)` and classes `(N,)`; candidates are ranked by top-1 accuracy, then by cross-entropy.

    The logits are the network's only output or the one that is named so, see `gnnrl_lightning.objective.outputs`.

    Args:
        label_smoothing: Label smoothing of the training loss, from 0 to 1.
        divergence_temperature: Temperature of `distance`, at least 1. At 1 the divergence of a few confident mistakes
            hides all else; at 4 a held-out image tells about twice as much of which candidate is better.

    Raises:
        UserError: The share or the temperature is out of range.
    """

    label_smoothing: float = 0.0
    divergence_temperature: float = TEMPERATURE

    figures: ClassVar[Mapping[str, Figure]] = {
        "top1": Figure("top-1", "%", higher_is_better=True),
        "top5": Figure("top-5", "%", higher_is_better=True),
        "cross_entropy": Figure("cross-entropy", "nats", digits=4),
    }
    ranking: ClassVar[tuple[str, ...]] = ("top1", "cross_entropy")
    divergence: ClassVar[Figure] = Figure("divergence", "nats", digits=4, logarithmic=True)

    def __post_init__(self) -> None:
        check_softness(self.label_smoothing, self.divergence_temperature)

    def loss(self, outputs: Tree, targets: Tensor) -> Tensor:
        """Mean cross-entropy, nats."""
        found = logits(outputs)
        with within(found.shape[1]):
            return F.cross_entropy(found, targets, label_smoothing=self.label_smoothing)

    def measure(self, outputs: Tree, targets: Tensor) -> Measured:
        """Return correctness of each example; sums for top-1, top-5 (with more than five classes) and cross-entropy."""
        log_probs = F.log_softmax(logits(outputs).float(), 1)
        right = log_probs.argmax(1) == targets
        sums = {"top1": 100.0 * right.sum()}
        if log_probs.shape[1] > TOP:
            sums["top5"] = 100.0 * (log_probs.topk(TOP, 1).indices == targets[:, None]).sum()
        with within(log_probs.shape[1]):
            sums["cross_entropy"] = F.nll_loss(log_probs, targets, reduction="sum")
        return Measured(right, sums)

    def distance(self, outputs: Tree, reference: Tree) -> Tensor:
        """Terms `(n, classes)` of the softened divergence from the reference, see `softened_divergence`, nats."""
        return softened_divergence(logits(outputs), logits(reference), self.divergence_temperature)

    def distillation(self, outputs: Tree, teacher: Tree, temperature: float) -> Tensor:
        """Softened divergence from the teacher, see `softened_divergence`, mean over the batch."""
        return softened_divergence(logits(outputs), logits(teacher), temperature).sum() / len(logits(outputs))

    def agrees(self, outputs: Tree, reference: Tree) -> bool:
        """Return True if `SAME_CLASS` of the examples get a class as good, and the divergence is negligible."""
        outputs, reference = logits(outputs), logits(reference)
        theirs = F.log_softmax(reference.float(), 1)
        chosen = theirs.gather(1, outputs.argmax(1, keepdim=True))[:, 0]
        as_good = (chosen >= theirs.amax(1) - AS_GOOD).float().mean()
        divergence = softened_divergence(outputs, reference, 1.0).sum() / len(outputs)
        return float(as_good) >= SAME_CLASS and float(divergence) <= AGREEMENT

    def draw(self, outputs: Tree, generator: torch.Generator) -> Tensor:
        """Draw a class for each example, `(N,)`, from the network's own probabilities."""
        chances = logits(outputs).softmax(1)
        return torch.multinomial(chances.cpu(), 1, generator=generator).flatten().to(chances.device)

    def check(self, outputs: Tree, targets: Tree, data: Any = None) -> None:
        """Refuse outputs that are not `(examples, classes)`, or not of as many classes as the data has."""
        found = logits(outputs)
        if len(found) != len(targets):
            raise UserError(f"the network returns {tuple(found.shape)} for {len(targets)} examples: expected one each")
        if targets.ndim != 1:
            raise UserError(
                f"the targets have shape {tuple(targets.shape)}: expected (examples,), one class for each, such as the "
                "argmax of one-hot targets; several classes for each need an objective of your own, and mixed examples "
                "finetuning.mixup"
            )
        for each in known_targets(data, targets):
            check_classes(found.shape[1], each, data)


def softened_divergence(outputs: Tensor, reference: Tensor, temperature: float) -> Tensor:
    r"""Terms of :math:`T^2 \, KL(softmax(z_r / T) \,\|\, softmax(z / T))`, in nats.

    The factor keeps the size of its gradients: where outputs are close, it is half the variance of their differences
    under the softened reference.

    Args:
        outputs: Logits `(n, classes, ...)`.
        reference: Logits of the reference, of the same shape.
        temperature: Temperature T; 1: the Kullback-Leibler divergence itself.

    Returns:
        Terms of the sum over the classes, `(n, classes, ...)`, float32.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531, section 2.
    """
    ours, theirs = (F.log_softmax(each.float() / temperature, 1) for each in (outputs, reference))
    return temperature**2 * F.kl_div(ours, theirs, log_target=True, reduction="none")


def check_softness(label_smoothing: float, temperature: float) -> None:
    """Refuse options of a classifier's loss and divergence.

    Args:
        label_smoothing: Share, from 0 to 1.
        temperature: Temperature of the divergence, at least 1 and finite.

    Raises:
        UserError: One is out of range.
    """
    real("label_smoothing", label_smoothing, 0, 1)
    real("divergence_temperature", temperature, 1)


@contextmanager
def within(classes: int, other: str = "") -> Iterator[None]:
    """Refuse, on the CPU, a target that is not among the classes: of examples that are read late, they are not known.

    Args:
        classes: Number of the network's classes.
        other: What else is expected, for the message.

    Raises:
        UserError: PyTorch has found one within this block.
    """
    try:
        yield
    except IndexError as error:
        raise UserError(
            f"the network has {classes} classes: {one_line(error)}; expected targets from 0 to {classes - 1}{other}"
        ) from error


def known_targets(data: Any, some: Tensor) -> list[Tensor]:
    """Return the targets of a data module, without those of the test examples; where none are known, `some`."""
    splits = [getattr(data, name, None) for name in ("train", "holdout")]
    known = [getattr(split, "targets", getattr(split, "labels", None)) for split in splits]
    return [targets for targets in known if targets is not None] or [some]


def check_classes(classes: int, targets: Tensor, data: Any, other: str = "") -> None:
    """Refuse targets that are no classes, and a network whose number of classes differs from that of the data.

    Args:
        classes: Number of the network's classes.
        targets: The targets, or some of them.
        data: The data module, which may have `num_classes`.
        other: What else is expected of a target, for the message.

    Raises:
        UserError: The targets are no whole numbers, the numbers differ, or a target is not among the network's classes.
    """
    if targets.dtype not in (torch.int64, torch.uint8):
        numbers = "; for other numbers, set objective: regression" if targets.is_floating_point() else ""
        raise UserError(
            f"the targets are {targets.dtype}: expected classes, whole numbers from 0 on in torch.int64{numbers}"
        )
    known = getattr(data, "num_classes", None)
    if known is not None and classes != known:
        raise UserError(f"the network has {classes} classes, the data has {known}: set `num_classes` of the network")
    if not targets.numel():
        return
    lowest, highest = (int(end) for end in targets.aminmax())
    if lowest < 0 or highest >= classes:
        given = lowest if lowest < 0 else highest
        expected = f"0 to {classes - 1}{other}"
        raise UserError(f"the network has {classes} classes, and a target is {given}: expected {expected}")


def logits(outputs: Any) -> Tensor:
    """Return the logits `(N, classes)` of a network's outputs.

    Raises:
        UserError: There are none, see `gnnrl_lightning.objective.outputs.main_output`.
    """
    return main_output(outputs, "logits (examples, classes)", 2, 2)
