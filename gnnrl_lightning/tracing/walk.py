"""State of a walk over the exported graph, and the table of rules that propagate labels through operators.

One rule per operator (see `rules/`) defines how labels pass through it. The walk (see `carry`) collects the labels of
every parameter dimension, the contractions (operators that cost MACs and read channels), the gathers through index
buffers, and the feature maps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from gnnrl_lightning.registry import Registry
from gnnrl_lightning.tracing.labels import FIXED, Labels, Value, leading, support
from gnnrl_lightning.tracing.program.composites import INNER
from gnnrl_lightning.tracing.program.export import Calls
from gnnrl_lightning.tracing.program.macs import macs_of
from gnnrl_lightning.tracing.program.sources import module_of, without_slices
from gnnrl_lightning.tracing.records import (
    Blocks,
    Contraction,
    Gather,
    Heads,
    ModuleSize,
    Scaling,
    Shared,
    SizedCall,
    SplitCall,
    Statistic,
    Step,
)

Rule = Callable[..., Any]


@dataclass(frozen=True)
class RuleRow:
    """The rule that propagates labels through an operator, and the operator's kind in the state graph."""

    apply: Rule
    kind: str


def _as_rule(given: Any) -> RuleRow:
    if not isinstance(given, RuleRow):
        raise TypeError(f"expected a RuleRow, not a {type(given).__name__}")
    return given


RULES: Registry[RuleRow] = Registry("operator rule", _as_rule)
"""Name of an ATen operator, without overload -> rule."""


def rule(*operators: str, kind: str) -> Callable[[Rule], Rule]:
    """Register a rule `(walk, *args, **kwargs) -> Value`, called with the operator's arguments, tensors as `Value`.

    Args:
        operators: Names of ATen operators without overload and, of those that write in place, without underscore.
        kind: Their kind in the state graph.

    Raises:
        UserError: One of them has a rule already.
    """

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES.register(operator, RuleRow(function, kind))
        return function

    return register


@dataclass
class Walk:
    """Results of the walk so far, and the current operator.

    Attributes:
        network: The network.
        arguments: The arguments of its modules in the program.
        labels: The labels, with joins, ties and freezes.
        parameters: Parameters and buffers: name -> value with one label tensor per dimension.
        inputs: Inputs: name -> labels of its channels.
        aliases: Identity of a tensor -> its first name.
        contractions: Operators that cost MACs.
        training: Contractions that exist in training mode only.
        trained: Whether the network was walked in training mode as well.
        gathers: Selections of channels through buffers.
        sizes: Numbers of channels that modules hold as attributes.
        heads: Channels along heads of attention, by their labels.
        shared: Channels of which every head meets the same others.
        blocks: Grouped convolutions.
        created: Node of zeros that the code makes -> its operator, number of the call and sizes.
        calls_of_sizes: Calls whose arguments are sizes of labelled dimensions.
        splits: Calls that cut channels into parts of given sizes.
        tied: Module, operator and number of calls whose sizes, and of products whose numbers, have been compared with
            what the module reads and makes.
        scalings: Products of numbers of the code and channels, or scores.
        scores: Node of a product of two feature maps, such as scores of attention, or of a summary over channels ->
            labels that it contracts or summarises.
        statistics: Operators that summarise channels together.
        calls: Number of calls of such operators, by module and name.
        steps: Operators in order, for the state graph.
        results: Nodes whose outputs the network returns.
        produced: Labels of channels that operators produce, with the modules that name them.
        consumed: Labels of weight dimensions along which channels are read.
        computed: Those of weights that are computed from parameters; their operators are among `statistics`.
        trainable: Names of parameters, without buffers.
        joined_parameters: Pairs of labels joined by operators on parameters only.
        derived: Nodes that are computed from parameters only.
        least: Labels `(n,)` of channels, and how many of them must remain: a variance divides by fewer than its values.
        repeats: Labels of dimensions along which the code repeats a tensor, see `tracing.repeats`.
        unlabelled: Channels without labels that must be kept, each as the fields of a `FrozenGroup`.
        norms: Node -> parameters of the batch norm that is its only reader.
        names: Identity of a value -> name of the parameter.
        hyper: Kernel, stride and groups of the current operator.
        node: The current operator.
        operator: Name of the current operator.
        line: Line of the user's code that calls the current operator.
        source: The line and its module.
        module: Module that calls the current operator.
    """

    network: nn.Module
    arguments: Calls
    labels: Labels = field(default_factory=Labels)
    parameters: dict[str, Value] = field(default_factory=dict)
    inputs: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    aliases: dict[int, str] = field(default_factory=dict)
    contractions: list[Contraction] = field(default_factory=list)
    training: list[Contraction] = field(default_factory=list)
    trained: bool = False
    gathers: list[Gather] = field(default_factory=list)
    sizes: list[ModuleSize] = field(default_factory=list)
    heads: dict[tuple[bytes, int], Heads] = field(default_factory=dict)
    shared: list[Shared] = field(default_factory=list)
    blocks: list[Blocks] = field(default_factory=list)
    created: dict[Node, tuple[str, int, tuple[int, ...]]] = field(default_factory=dict)
    calls_of_sizes: list[SizedCall] = field(default_factory=list)
    splits: list[SplitCall] = field(default_factory=list)
    tied: set[tuple[str, str, int]] = field(default_factory=set)
    scalings: list[Scaling] = field(default_factory=list)
    scores: dict[Node, Tensor] = field(default_factory=dict)
    statistics: list[Statistic] = field(default_factory=list)
    calls: Counter[tuple[int, str]] = field(default_factory=Counter)
    steps: list[Step] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    produced: list[tuple[str, Tensor]] = field(default_factory=list)
    consumed: list[Tensor] = field(default_factory=list)
    computed: list[Tensor] = field(default_factory=list)
    trainable: list[str] = field(default_factory=list)
    joined_parameters: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    derived: set[Node] = field(default_factory=set)
    least: list[tuple[Tensor, int]] = field(default_factory=list)
    repeats: set[int] = field(default_factory=set)
    unlabelled: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    norms: dict[str, dict[str, str]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    hyper: dict[str, tuple[int, ...]] = field(default_factory=dict)
    node: Node | None = None
    operator: str = ""
    line: str = ""
    source: str = ""
    module: str = ""

    def parameter_name(self, value: Any) -> str | None:
        """Return the name of the parameter or buffer if `value` is one, unmodified; else None."""
        return self.names.get(id(value)) if isinstance(value, Value) else None

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """Join labels because of the current operator, see `Labels.join`."""
        if self.node in self.derived:
            self.joined_parameters.append((a, b))
        result = self.labels.join(a, b, self.operator, self.source)
        if self.is_repeat(a) == self.is_repeat(b):
            return result
        others = b if self.is_repeat(a) else a
        return torch.where(others >= 0, others, result)  # what is repeated has the others' labels

    def is_repeat(self, labels: Tensor) -> bool:
        """Whether labels are those of a dimension along which the code repeats a tensor."""
        return bool(self.repeats) and labels.numel() > 0 and int(labels.max()) in self.repeats

    def freeze(self, value: Value | Tensor | None, reason: str) -> None:
        """Freeze all labels of a value because of the current operator."""
        for labels in (value,) if isinstance(value, Tensor) else value.labels if value is not None else ():
            self.labels.freeze(labels, self.operator, self.source, reason)

    def keep(self, channels: int, reason: str) -> None:
        """Record that the current operator has channels without labels, which must be kept."""
        self.unlabelled.append((self.name, channels, self.operator, reason, self.source))

    def tie(self, labels: Tensor) -> None:
        """Tie the rows of `labels` because of the current operator, see `Labels.tie`."""
        self.labels.tie(labels, self.operator, self.source)

    def module_of(self, node: Node) -> str:
        """Return the path of the module that calls an operator."""
        return without_slices(module_of(node), self.network)

    @property
    def caller(self) -> nn.Module | None:
        """The module that calls the current operator; None if the network makes it in its forward pass."""
        try:
            return self.network.get_submodule(self.module)
        except AttributeError:
            return None

    def call_number(self, called: str | None = None) -> int:
        """Count the calls of the current operator by its module; return the number of calls before this one.

        Operators of which another one is composed are no calls of the user's code: they do not count, and have -1.

        Args:
            called: Name of the function of torch that calls the operator; None: it has the operator's name.
        """
        if self.node is not None and INNER in self.node.meta:
            return -1
        key = id(self.caller), called or self.operator
        self.calls[key] += 1
        return self.calls[key] - 1

    def statistic(self, number: int, dim: int, labels: Tensor, called: str | None = None) -> None:
        """Record that the current operator reads channels along `dim`, see `Statistic` and `call_number`.

        Args:
            number: How many operators of this name the module has called before.
            dim: The dimension, the last one if there are several.
            labels: Labels `(n,)` of the channels or, if they lie along several dimensions, a label tensor.
            called: Name of the function that the module calls, if it is not that of the operator.
        """
        if self.caller is not None:
            called = called or self.operator.removeprefix("native_")
            shape = tuple(labels.shape) if labels.dim() > 1 else ()
            self.statistics.append(Statistic(self.module, called, number, dim, labels.flatten(), shape))

    def together(self, labels: Tensor, dims: Collection[int]) -> Tensor:
        """Join labels along `dims`, where only all of them or none can be removed; return them with size 1 there."""
        first = leading(labels, dims)
        self.join(first, labels)
        return first

    def only_along(self, labels: Tensor, dim: int) -> Tensor:
        """Join labels along dimensions other than `dim`: a linear layer has made all places of a channel."""
        others = [each for each in support(labels) if each != dim]
        return self.together(labels, others) if others and labels.shape[dim] > 1 else labels

    def produce(self, labels: Tensor) -> None:
        """Record that the current operator produces these channels; its module names them."""
        self.produced.append((self.name, labels))

    @property
    def name(self) -> str:
        """The module that calls the current operator or, if the network itself does, the operator."""
        return self.module or (self.node.name if self.node else "")

    @property
    def contracted(self) -> set[str]:
        """Names of the nodes that cost MACs."""
        return {contraction.node for contraction in self.contractions}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the current operator's output."""
        return tuple(self.value_of_output().shape)

    def value_of_output(self) -> Tensor:
        """Return the fake output tensor of the current operator; the first one if there are several."""
        assert self.node is not None
        value = self.node.meta["val"]
        return value[0] if isinstance(value, (tuple, list)) else value

    def macs(self) -> int:
        """Return the current operator's MACs for the whole example batch."""
        assert self.node is not None
        return macs_of(self.node)

    def contract(self, sizes: tuple[Tensor, ...], **more: Any) -> None:
        """Record the cost of the current operator, see `Contraction`."""
        factor, rest = divmod(self.macs(), math.prod(len(size) for size in sizes))
        if rest:
            raise AssertionError(f"{self.operator}: its MACs are not a product of its sizes")
        assert self.node is not None
        self.contractions.append(Contraction(self.node.name, more.pop("weight", None), factor, sizes, **more))


def find_rule(target: Any) -> RuleRow | None:
    """Return the rule of an operator: its own row, or the row of all pointwise operators, or None."""
    name = operator_name(target)
    if name in RULES or not isinstance(target, torch._ops.OpOverload):
        return RULES.get(name)
    functional = getattr(torch.ops.aten, name, None) if target.namespace == "aten" else None
    overloads = [getattr(functional, overload) for overload in functional.overloads()] if functional else [target]
    return RULES["pointwise"] if any(torch.Tag.pointwise in overload.tags for overload in overloads) else None


ALIASES = {
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "true_divide": "div",
    "multiply": "mul",
    "subtract": "sub",
    "negative": "neg",
    "absolute": "abs",
    "swapdims": "transpose",
    "moveaxis": "movedim",
}
"""Another name of an operator -> its name."""


def operator_name(target: Any) -> str:
    """Return the operator's name: `aten.conv2d.default` -> `conv2d`, `aten.relu_.default` -> `relu`."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[-1]
        name = name.rstrip("_") if target._schema.is_mutable else name
        return ALIASES.get(name, name)
    return getattr(target, "__name__", str(target))


def fixed_labels(value: Value) -> Tensor:
    """Return the first label tensor of a value, or FIXED labels if it has none."""
    return value.labels[0] if value.labels else torch.full((1,) * len(value.shape), FIXED)
