"""Operators together with what a compiler or runtime computes along with them: batch norms, activations, additions.

```
for use, chain in joined_uses(graph, network):
    run, inputs = chain.made(inputs=16, outputs=32, batch=64)
    run(*inputs)
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from gnnrl_lightning.cost.latency import Use
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.speed.operators import Form, Made, operator_uses

FOLLOWERS = ("norm", "activation", "add", "mul")
"""Kinds of operators that join the one before them."""

HEADS = ("conv", "linear", *FOLLOWERS)
"""Kinds of operators that others join."""


@dataclass(frozen=True)
class Chain:
    """An operator and those that follow it, each the only reader of the one before, with outputs of the same shape.

    Attributes:
        head: The first operator.
        followers: Each of the others, and which of its inputs the operator before it computes.
    """

    head: Form
    followers: tuple[tuple[Form, int], ...] = ()

    @property
    def key(self) -> str:
        """Name of its grid in the table: the operators' names, joined."""
        plain = {self.head.writes}
        rest = (form.name if {*form.reads, form.writes} == plain else form.key for form, _ in self.followers)
        return " + ".join([self.head.key, *rest])

    def made(self, inputs: int, outputs: int, batch: int) -> Made:
        """Make a network of the operators with these channels, and a batch of its inputs, as `Form.made` does."""
        first, given = self.head.made(inputs, outputs, batch)
        functions, places, more = [first], [0], list[Tensor]()
        for form, place in self.followers:
            function, reads = form.made(outputs, outputs, batch)
            functions.append(function)
            places.append(place)
            more += [*reads[:place], *reads[place + 1 :]]
        reading = [len(given), *(len(form.reads) - 1 for form, _ in self.followers)]
        return Chained(functions, places, reading), (*given, *more)


class Called(nn.Module):
    """A function as a network.

    Args:
        function: The function.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        """Call the function."""
        return self.function(*inputs)


def as_module(function: Callable[..., Any]) -> nn.Module:
    """Return a module unchanged, and one that calls a function."""
    return function if isinstance(function, nn.Module) else Called(function)


class Chained(nn.Module):
    """Functions one after the other.

    Args:
        functions: The functions.
        places: For each, which of its inputs the function before it computes; of no meaning for the first one.
        reading: For each, how many inputs of the network it reads beside that.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], places: Sequence[int], reading: Sequence[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(map(as_module, functions))
        self.places, self.reading = tuple(places), tuple(reading)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output of the last function."""
        first, *rest = self.parts
        read = self.reading[0]
        found = first(*inputs[:read])
        for function, place, count in zip(rest, self.places[1:], self.reading[1:], strict=True):
            given = inputs[read : read + count]
            found, read = function(*given[:place], found, *given[place:]), read + count
        return found


def joined_uses(graph: ComputationGraph, network: nn.Module) -> list[tuple[Use, Chain]]:
    """Return the operators of a network that take time, joined with those that follow them, in order.

    An operator of `FOLLOWERS` joins the operator whose only reader it is; of several, as in an addition, the last one.

    Args:
        graph: The traced network.
        network: The network; hyper-parameters that the graph does not have are read from its modules.
    """
    readers = Counter(source for operator in graph.operators for source in set(operator.inputs))
    readers.update(graph.outputs)
    found, ends = list[tuple[Use, Chain]](), dict[int, int]()
    for use, form in operator_uses(graph, network):
        operator = graph.operators[use.operator]
        form = replace(form, name=form.name.rstrip("_"))  # an input of the chain must not be written into
        before = [source for source in operator.inputs if source in ends and readers[source] == 1]
        last = max(before, key=ends.__getitem__, default=None)
        if (
            last is not None
            and not form.copied
            and operator.kind in FOLLOWERS
            and found[ends[last]][1].head.writes == form.writes
        ):
            number = ends.pop(last)
            head, chain = found[number]
            longer = replace(chain, followers=(*chain.followers, (form, operator.inputs.index(last))))
            found[number] = (replace(head, key=longer.key, target=use.target), longer)
        else:
            number = len(found)
            found.append((replace(use, key=form.key), Chain(form)))
        if (
            operator.kind in HEADS
            and not form.copied
            and (operator.kind in ("conv", "linear") or form.writes in form.reads)
        ):
            ends[operator.output] = number
    return found
