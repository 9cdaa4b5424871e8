"""What a pruned network learns from the dense one besides its targets: a table of distillation losses.

```
DISTILLATIONS.find("outputs")                 # by name
DISTILLATIONS.find("my_package.my_loss")      # a function from Lesson to a loss `()`
```

Channels of a pruned network are channels of the dense one, so what its layers read is compared directly, without
layers that translate between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from gnnrl_lightning.objective import Objective
from gnnrl_lightning.registry import Registry, as_callable
from gnnrl_lightning.trees import Tree

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Modules whose inputs are compared: the last dimension of a linear layer's are channels, the second of all others."""


@dataclass(frozen=True)
class Teacher:
    """A network to distil from.

    Args:
        network: The network, run in evaluation mode.
        kept: Name of a layer's weight -> positions `(C,)`, among the channels that the teacher's layer reads, of those
            that the student's layer reads; layers that are missing are not compared.
    """

    network: nn.Module
    kept: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson:
    """What student and teacher have made of a batch.

    Args:
        objective: The objective of the training.
        temperature: Temperature that softens outputs which are log-probabilities.
        outputs: Outputs of the student.
        taught: Outputs of the teacher.
        features: For each layer of `Teacher.kept`, what it reads in the student and, in the same channels, in the
            teacher; two floating-point tensors of one shape.
    """

    objective: Objective
    temperature: float
    outputs: Tree
    taught: Tree
    features: Sequence[tuple[Tensor, Tensor]] = ()


Distillation = Callable[[Lesson], Tensor]
"""`(lesson) -> loss`, shape `()`, differentiable in what the student has made."""


def outputs(lesson: Lesson) -> Tensor:
    """Distance between the outputs, by the objective: for classifiers the softened divergence.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531, section 2.
    """
    return lesson.objective.distillation(lesson.outputs, lesson.taught, lesson.temperature)


def features(lesson: Lesson) -> Tensor:
    r"""Distance between the outputs, plus the mean relative squared error of what the layers read.

    .. math::
        d(y, y') + \frac{1}{L} \sum_{l=1}^L \frac{\|x_l - x'_l\|^2}{\|x'_l\|^2}

    Source: Romero et al., FitNets, https://arxiv.org/abs/1412.6550, equation 3, for kept channels.
    """
    errors = [_relative(student, teacher) for student, teacher in lesson.features]
    return outputs(lesson) + (torch.stack(errors).mean() if errors else 0.0)


def _relative(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error as a share of the teacher's square; where the teacher has zeros only, nothing is compared."""
    square = teacher.square().sum()
    return (student - teacher).square().sum() / torch.where(square > 0, square, torch.inf)


def _as_distillation(given: Any) -> Distillation:
    return as_callable(given, "a function from Lesson to a loss, or a class of such functions", 1)


DISTILLATIONS: Registry[Distillation] = Registry("distillation", _as_distillation)
"""Name -> distillation loss."""

DISTILLATIONS.register("outputs", outputs)
DISTILLATIONS.register("features", features)


@contextmanager
def read_by(network: nn.Module, kept: Mapping[str, Tensor | None]) -> Iterator[dict[str, list[Tensor]]]:
    """Record what layers read while the network runs.

    Args:
        network: The network.
        kept: Name of a layer's weight -> positions of the channels to record; None: all. Weights that are not those of
            a convolution or a linear layer here are passed over.

    Returns:
        Name -> what the layer has read in each of its calls, in float32.
    """
    found: dict[str, list[Tensor]] = {}
    modules, hooks = dict(network.named_modules()), []

    def record(name: str, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        read, positions = given[0] if given else named["input"], kept[name]
        if positions is not None:
            channels = -1 if isinstance(module, nn.Linear) else read.dim() + 1 - cast(Tensor, module.weight).dim()
            read = read.index_select(channels, positions.to(read.device))
        found.setdefault(name, []).append(read.float())

    for name in kept:
        path, _, tensor = name.rpartition(".")
        module = modules.get(path)
        if tensor == "weight" and isinstance(module, LAYERS):
            hooks.append(module.register_forward_pre_hook(partial(record, name), with_kwargs=True))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def paired(
    student: Mapping[str, Sequence[Tensor]], teacher: Mapping[str, Sequence[Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Pair what the layers of two networks have read, call by call.

    Layers that one of them lacks, or has called more often than the other one, are left out: a layer may have been
    removed, or be skipped at random in training.

    Args:
        student: Name of a layer's weight -> what it has read, see `read_by`.
        teacher: The same of the teacher.
    """
    both = [(student[name], teacher[name]) for name in student if name in teacher]
    return [pair for ours, theirs in both if len(ours) == len(theirs) for pair in zip(ours, theirs, strict=True)]
