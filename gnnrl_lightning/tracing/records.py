"""What a walk records of the operators and modules of a network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gnnrl_lightning.tracing.labels import Value
from gnnrl_lightning.tracing.numbers import Keys

CONVOLUTIONS = tuple(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
"""Names of convolutions."""


@dataclass(frozen=True)
class Contraction:
    """An operator that costs MACs: `macs = factor * product of the sizes of its labelled dimensions`.

    Attributes:
        node: Name of the operator in the exported graph.
        weight: Parameter that it reads, if it reads one unmodified.
        factor: MACs for one example when every size in `sizes` is 1.
        sizes: Label vectors; the factor is multiplied by the number of kept channels of each.
        reads: Labels `(C_in,)` that it contracts; `(groups, C_in / groups)` for grouped convolutions.
        writes: Labels `(C_out,)` of its output channels.
        groups: Number of groups of a convolution.
        bias: Parameter that is added to the outputs, if it is one unmodified.
        transposed: Whether the weight's first dimension is the input dimension.
    """

    node: str
    weight: str | None
    factor: int
    sizes: tuple[Tensor, ...]
    reads: Tensor | None = None
    writes: Tensor | None = None
    groups: int = 1
    bias: str | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Gather:
    """A selection of channels through an integer buffer: `out[j] = x[index[j]]`."""

    buffer: str
    reads: Tensor
    """Labels `(n,)` of the channels of x; ZERO for a channel that is always zero."""


@dataclass(frozen=True)
class Step:
    """One operator of the walk with its input and output tensors, for the state graph.

    `storage` is the identity of the memory of the output: views, and what is written in place, share it.
    `line` is the user's code that calls the operator.
    """

    node: str
    module: str
    operator: str
    kind: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    output: Value
    hyper: dict[str, tuple[int, ...]]
    storage: int = 0
    line: str = ""


@dataclass(frozen=True)
class ModuleSize:
    """A number of channels that a module holds: `LayerNorm.normalized_shape[0]`, `self.config.widths[-1]`.

    Attributes:
        module: Path of the module.
        keys: Where it holds the number, see `tracing.numbers`.
        labels: Labels `(n,)` of the channels that it counts.
        unit: Number of channels that count as one: the channels of one group of a `GroupNorm` for its `num_groups`.
    """

    module: str
    keys: Keys
    labels: Tensor
    unit: int = 1


@dataclass(frozen=True)
class Statistic:
    """An operator that reads channels, and has no weight of its own to mask: a mean, a layer norm.

    Attributes:
        module: Path of the module that calls it.
        operator: Name of the function that the module calls.
        number: How many operators of this name the module has called before.
        dim: Dimension of its operand along which the channels lie, the last one if there are several.
        labels: Labels `(n,)` of these channels.
        shape: If the channels lie along several dimensions, the shape in which their labels broadcast to the operand.
        power: If not 0, the operator multiplies by a number of the code, in which there is this power of the share of
            channels that is kept: `q * q.shape[-1] ** -0.5`.
    """

    module: str
    operator: str
    number: int
    dim: int
    labels: Tensor
    shape: tuple[int, ...] = ()
    power: float = 0.0


@dataclass(frozen=True)
class Heads:
    """Channels that lie along heads of attention: `(head, channel of the head)`.

    Attributes:
        labels: Labels `(heads,)` of the heads themselves.
        channels: Labels `(heads, n)` of their channels.
        row: Labels `(n,)` of the channels of the first head; costs refer to it for the width of a head.
        module: Module in which they are multiplied.
        operator: Operator that multiplies them.
        source: Line of the user's code that calls it.
    """

    labels: Tensor
    channels: Tensor
    row: Tensor
    module: str
    operator: str
    source: str


@dataclass(frozen=True)
class Shared:
    """Channels of which every head meets the same others: keys that all heads share, the weight of a norm within heads.

    If whole heads go, the common channels stay; if channels of every head go, all heads keep the same ones, together
    with the common ones. Which of the two it is, is decided after the walk, see `tracing.sizes.shared`.

    Attributes:
        channels: Labels `(heads, n)` of the channels of the heads.
        common: Labels `(n,)` of what each head meets.
        operator: Operator in which they meet.
        source: Line of the user's code that calls it.
    """

    channels: Tensor
    common: Tensor
    operator: str
    source: str


@dataclass(frozen=True)
class Blocks:
    """The blocks of a grouped convolution, of which all keep equal counts, or which go as a whole.

    Attributes:
        weight: Its weight; None if that is computed: the blocks go as a whole.
        inputs: Labels `(groups, C_in / groups)`.
        outputs: Labels `(groups, C_out / groups)`.
        module: Path of the module that calls it.
        operator: Its operator.
        source: Line of the user's code that calls it.
    """

    weight: str | None
    inputs: Tensor
    outputs: Tensor
    module: str
    operator: str
    source: str


@dataclass(frozen=True)
class SizedCall:
    """A call whose arguments are sizes of labelled dimensions: `view(-1, self.heads, self.width)`.

    Attributes:
        module: Path of the module that calls it.
        operator: Name of the operator.
        number: How many operators of this name the module has called before.
        sizes: The sizes of its output that it is given; -1 for one that follows from the others.
        shape: Shape of its output.
        labels: Labels of its output.
        source: Line of the user's code.
    """

    module: str
    operator: str
    number: int
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    labels: Tensor
    source: str


@dataclass(frozen=True)
class SplitCall:
    """A call that cuts channels into parts whose sizes may be an attribute of the module.

    Attributes:
        module: Path of the module that calls it.
        number: How many calls of this name the module has made before.
        sizes: The sizes that it is given: one for all parts, or one for each of them; the ends of a slice.
        parts: Labels of each part; of a slice, those before, in and after it, or written into it.
        source: Line of the user's code.
        operator: Name of the function: "split", "slice", or "slice_scatter" for a write into a slice.
        held: Whether an attribute of the module has the value of one of the sizes.
        rows: How many rows of channels, such as heads, are each cut so.
    """

    module: str
    number: int
    sizes: tuple[int, ...]
    parts: tuple[Tensor, ...]
    source: str
    operator: str = "split"
    held: bool = True
    rows: int = 1


@dataclass(frozen=True)
class Scaling:
    """A product or quotient of channels, of heads or of scores, and a number of the code.

    Attributes:
        module: Path of the module that calls it.
        operator: Name of the operator.
        number: How many operators of this name the module has called before.
        value: The number; None if the code holds it in a tensor.
        labels: Labels of the tensor; of scores and sums, those that they have contracted.
    """

    module: str
    operator: str
    number: int
    value: float | None
    labels: Tensor
