"""The objective: everything that depends on the task of a network.

A subclass defines how outputs are trained, measured and compared; the rest of the package is independent of the task.
For example, counting objects:

```
class Counting(Objective):
    figures = {"count_error": Figure("count error", digits=3)}
    ranking = ("count_error",)

    def loss(self, outputs, targets):
        return poisson_nll_loss(outputs, targets)

    def measure(self, outputs, targets):
        error = (outputs.exp() - targets).abs()
        return Measured(-error, {"count_error": error.sum()})
```

Outputs and targets are tensors, or nested tuples, lists and dictionaries of tensors, with the examples first.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gnnrl_lightning.checks import shown
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.trees import Tree, count, map_tensors, tensors

LINEAR = 1000.0
"""Size up to which a reward is the figure itself; beyond it grows with the figure's logarithm, whatever its unit."""

WORST = 20 * LINEAR
"""Upper limit of a loss as a reward: outputs that overflow have an infinite loss, but rewards must be finite."""

SMALLEST = 1e-6
"""Lower limit of a value before its logarithm."""


@dataclass(frozen=True)
class Figure:
    """A figure that an objective reports.

    Args:
        label: Its name in tables.
        unit: Its unit; "%" for shares of 100.
        higher_is_better: Its direction.
        digits: Digits behind the point in tables.
        logarithmic: Whether values range over orders of magnitude, so that a reward is their logarithm.
    """

    label: str
    unit: str = ""
    higher_is_better: bool = False
    digits: int = 2
    logarithmic: bool = False

    @property
    def heading(self) -> str:
        """Name and unit."""
        return f"{self.label} in {self.unit}" if self.unit else self.label

    def text(self, value: float, sign: bool = False) -> str:
        """A value without its unit.

        Args:
            value: The value.
            sign: Whether a plus is written.
        """
        return f"{value:{'+' if sign else ''}.{self.digits}f}"

    def with_unit(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.text(value)} {self.unit}".rstrip()

    def merit(self, value: float) -> float:
        """Return the value, or its negative if lower is better; minus infinity for values that are not finite."""
        if not math.isfinite(value):
            return -math.inf
        return value if self.higher_is_better else -value

    def reward(self, value: float) -> float:
        """Return the reward of a value: minus the error as a fraction for percentages, else the merit, compressed.

        That of a logarithmic figure is its logarithm, negated if lower is better. Merits of a size s above `LINEAR` are
        compressed to LINEAR (1 + log(s / LINEAR)), at most `WORST`, so that larger ones still differ. That of values
        that are not finite is minus `WORST`.
        """
        if not math.isfinite(value):
            return -WORST
        if self.logarithmic:
            value = math.log(max(value, SMALLEST))
        if self.unit == "%" and self.higher_is_better:
            return value / 100 - 1
        merit = self.merit(value)
        if abs(merit) <= LINEAR:
            return merit
        return math.copysign(min(LINEAR * (1 + math.log(abs(merit) / LINEAR)), WORST), merit)


@dataclass(frozen=True)
class Measured:
    """The measurements of a batch.

    Args:
        scores: A score for each example `(n,)`, higher is better: bool if examples are right or wrong, else floating
            point. Races compare them example by example.
        sums: Name -> sum over the examples of the batch, a tensor of any shape; the summands are never negative.
            Figures are computed from the means over all examples, see `Objective.values`.
    """

    scores: Tensor
    sums: Mapping[str, Tensor]


class Objective(ABC):
    """The task of a network.

    Attributes:
        figures: Name -> figure, for each name that `values` returns.
        ranking: Names of the figures that rank candidates: the primary one, then those that break its ties.
        divergence: The figure that reports the distance to the dense network's outputs.
    """

    figures: ClassVar[Mapping[str, Figure]]
    ranking: ClassVar[tuple[str, ...]]
    divergence: ClassVar[Figure] = Figure("divergence", digits=4, logarithmic=True)
    __reference: Sequence[Tree] | None = None  # see `relative_to`
    __scales: Sequence[Tensor] | None = None  # those of the reference, once they are needed

    @abstractmethod
    def loss(self, outputs: Tree, targets: Tree) -> Tensor:
        """The loss that training minimises, mean over the batch, shape `()`."""

    @abstractmethod
    def measure(self, outputs: Tree, targets: Tree) -> Measured:
        """Scores and sums of a batch."""

    def values(self, means: Mapping[str, Tensor]) -> dict[str, float]:
        """Compute the figures from means over examples of the sums of `measure`; by default these means themselves.

        Args:
            means: Name -> mean, float64: `()` for a single number, else the elements `(k,)`. They may be estimates, but
                are never negative.
        """
        return {name: float(mean) for name, mean in means.items()}

    def distance(self, outputs: Tree, reference: Tree) -> Tensor:
        """Return the distance of outputs to the dense network's for each example; by default `relative_distance`.

        The default is relative to the outputs of `relative_to`, and without them to those of the batch.

        Args:
            outputs: Outputs of a pruned network.
            reference: The dense network's outputs for the same inputs.

        Returns:
            `(n, ...)`; the distance of an example is the sum over all other dimensions, and never negative.
        """
        if self.__scales is None and self.__reference is not None:
            object.__setattr__(self, "_Objective__scales", scales_of(self.__reference))
        return relative_distance(outputs, reference, self.__scales)

    def relative_to(self, reference: Sequence[Tree]) -> Objective:
        """Return the same objective, whose default distances are relative to all of these outputs, not to a batch's.

        Args:
            reference: The dense network's outputs, in batches.
        """
        made = copy.copy(self)
        object.__setattr__(made, "_Objective__reference", reference)
        object.__setattr__(made, "_Objective__scales", None)
        return made

    def distillation(self, outputs: Tree, teacher: Tree, temperature: float) -> Tensor:
        """Return the distillation loss, shape `()`; by default the mean squared difference from the teacher's outputs.

        Of several tensors, it is the mean over them; integers do not count. Source of the default: Ba and Caruana, Do
        Deep Nets Really Need to be Deep?, https://arxiv.org/abs/1312.6184, equation 1.

        Args:
            outputs: Outputs of the student.
            teacher: Outputs of the teacher.
            temperature: Softens both if they are log-probabilities; ignored otherwise.

        Raises:
            UserError: No floating-point tensor is among the outputs.
        """
        parts = [(ours - theirs).square().mean() for ours, theirs in zip(_rows(outputs), _rows(teacher), strict=True)]
        return torch.stack(parts).mean()

    def agrees(self, outputs: Tree, reference: Tree) -> bool:
        """Return True if outputs equal the reference up to rounding.

        Args:
            outputs: Float32 outputs of a network in a lower precision.
            reference: Those in float32.
        """
        finite = all(bool(tensor.isfinite().all()) for tensor in tensors(outputs))
        return finite and float(self.distance(outputs, reference).sum() / count(outputs)) <= AGREEMENT

    def draw(self, outputs: Tree, generator: torch.Generator) -> Tree:
        """Draw targets from the network's own predictions, for an importance without targets.

        Args:
            outputs: Outputs for a batch.
            generator: Source of the randomness, on the CPU.

        Raises:
            UserError: The objective does not implement it.
        """
        raise UserError(
            f"objective {type(self).__name__} draws no targets: choose an importance that needs no loss, or override "
            "`draw`"
        )

    def check(self, outputs: Tree, targets: Tree, data: Any = None) -> None:
        """Refuse a network whose outputs do not fit the data; by default nothing is checked.

        Args:
            outputs: Outputs for a few examples.
            targets: Their targets.
            data: The data module, for further attributes such as `num_classes`.

        Raises:
            UserError: They do not fit.
        """
        return

    @property
    def primary(self) -> str:
        """Name of the primary figure."""
        return self.ranking[0]

    @property
    def reported(self) -> dict[str, Figure]:
        """All figures by name, the divergence from the dense network included."""
        return {**self.figures, "divergence": self.divergence}

    def merit(self, scores: Mapping[str, float]) -> tuple[float, ...]:
        """Return the sort key of a candidate from its figures; higher is better."""
        return tuple(self.figures[name].merit(scores[name]) for name in self.ranking)


AGREEMENT = 0.01
"""Largest mean distance of two precisions. Candidates differ by tenths of nats, bfloat16 on ResNet-56 by 1e-5."""


ROUNDING = 1e-14
"""Share of the mean square below which a variance is that of rounding to float32."""


def relative_distance(outputs: Tree, reference: Tree, scales: Sequence[Tensor] | None = None) -> Tensor:
    r"""Return the squared distance of outputs to a reference, relative to the reference's variance.

    For each tensor with elements j it is :math:`\sum_j (y_{nj} - r_{nj})^2 / s`, and the mean over the tensors.
    Integers do not count.

    Args:
        outputs: Tensors `(n, ...)`.
        reference: Tensors of the same shapes.
        scales: The scale s of each floating-point tensor, see `scales_of`; None: of the reference itself.

    Returns:
        `(n,)` float32.

    Raises:
        UserError: No floating-point tensor is among the outputs.
    """
    scales = scales_of([reference]) if scales is None else scales
    pairs = zip(_rows(outputs), _rows(reference), scales, strict=True)
    return torch.stack([(ours - theirs).square().sum(1) / scale for ours, theirs, scale in pairs]).mean(0)


def scales_of(reference: Sequence[Tree]) -> tuple[Tensor, ...]:
    r"""Return the variance over the examples, summed over the elements, of each floating-point tensor.

    It is :math:`\sum_j \mathrm{Var}_n(r_{nj})`, or the mean sum of squares of a tensor that does not vary.

    Args:
        reference: Tensors `(n, ...)`, in batches.

    Returns:
        `()` float32 for each tensor, above zero.

    Raises:
        UserError: There is no floating-point tensor.
    """
    scales, examples = [], sum(map(count, reference))
    for batches in zip(*map(_rows, reference), strict=True):
        mean = torch.stack([batch.double().sum(0) for batch in batches]).sum(0) / examples
        variance = torch.stack([(batch - mean).square().sum() for batch in batches]).sum() / examples
        square = torch.stack([batch.double().square().sum() for batch in batches]).sum() / examples
        scale = torch.where(variance > ROUNDING * square, variance, square).float()
        scales.append(scale.clamp(min=torch.finfo(torch.float32).tiny))
    return tuple(scales)


def _rows(outputs: Tree) -> list[Tensor]:
    """Return the floating-point tensors among outputs, `(n, elements)` float32 each."""
    found = [tensor.float().reshape(len(tensor), -1) for tensor in tensors(outputs) if tensor.is_floating_point()]
    if not found:
        raise UserError("the network's outputs have no floating-point tensor: expected one, to measure distances")
    return found


def added_up(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, list[float]]:
    """Add up sums over several batches.

    Args:
        batches: Name -> sums for each batch, tensors of any shape, the same in each batch.

    Returns:
        Name -> elements, added in float64 in the order of the batches.
    """
    # One transfer from the device, after all batches.
    rows = (
        torch.stack([torch.cat([part.double().flatten() for part in sums.values()]) for sums in batches]).cpu().tolist()
    )
    totals = iter([sum(column) for column in zip(*rows, strict=True)])
    return {name: [next(totals) for _ in range(part.numel())] for name, part in batches[0].items()}


def measure(objective: Objective, totals: Mapping[str, Sequence[float]], examples: int) -> dict[str, float]:
    """Compute the figures from sums over a number of examples."""
    means = {name: torch.tensor(values, dtype=torch.float64) / examples for name, values in totals.items()}
    return figures_of(objective, {name: mean[0] if len(mean) == 1 else mean for name, mean in means.items()})


def figures_of(objective: Objective, means: Mapping[str, Tensor]) -> dict[str, float]:
    """Compute the figures from means over examples, see `Objective.values`, which may also give them as tensors `()`.

    Raises:
        UserError: A figure is not a number.
    """
    found = dict[str, float]()
    for name, value in objective.values(means).items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"objective {type(objective).__name__}: values gives {shown(value)} as {name}: expected a number"
            ) from error
    return found


def untrained(objective: Objective, outputs: Tree, targets: Tree) -> dict[str, float]:
    """Return all figures of a network whose outputs are zero.

    Args:
        objective: Measures them.
        outputs: Float outputs of a network, for their shapes, and as the reference of the divergence.
        targets: The targets.
    """
    nothing = map_tensors(torch.zeros_like, outputs)
    figures = measure(objective, added_up([objective.measure(nothing, targets).sums]), count(targets))
    return figures | {"divergence": float(objective.distance(nothing, outputs).sum() / count(targets))}


def record(objective: Objective) -> dict[str, Any]:
    """Return the objective's primary figure in plain JSON types, for tables of results."""
    return {"primary": objective.primary, **asdict(objective.figures[objective.primary])}


def primary_figure(result: Mapping[str, Any]) -> tuple[str, Figure]:
    """Return the name and the figure that `record` wrote under `objective`."""
    values = dict(result["objective"])
    return values.pop("primary"), Figure(**values)
