"""The masked reference of operators that summarise channels: means over the channels, layer norms.

The masked dense network ignores removed channels where it reads them: weights that multiply them are zero. An operator
without such weights summarises the channels that are kept, as it does in the pruned network: a spectral norm is the
norm of the kept part of the weight. For a layer norm over the kept channels K,

    y_c = w_c (x_c - m) / sqrt(v + eps) + b_c,   m = mean of x_k over k in K,   v = mean of (x_k - m)^2 over k in K.

While the masked network runs, a mode of `torch.overrides` computes these operators by such formulas.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gnnrl_lightning.surgery.formulas import FORMULAS, KINDS, Places, Shape, summary
from gnnrl_lightning.tracing.program.composed import COMPOSED, call_within
from gnnrl_lightning.tracing.records import Statistic
from gnnrl_lightning.tracing.sizes.recorder import SCALINGS

CallOf = tuple[int, str, int]
"""Identity of a module, operator, and how many of this name the module has called before."""

FIRST = ("input", "query", "x1", "equation", "self")
"""Names of the first argument of functions of torch."""

OPERATORS: dict[str, str] = dict.fromkeys(("norm", "normalize"), "linalg_vector_norm")
"""Functions of torch -> the operator that they call, where the names differ."""


def _operator_name(function: Any) -> str:
    """Return the name of an operator of torch: `__matmul__` -> `matmul`."""
    name = getattr(function, "__name__", "")
    if name in SCALINGS:
        return SCALINGS[name]
    return name.strip("_") if name.startswith("__") else name


class _Summaries(TorchFunctionMode):
    """Computes the given calls of operators from the kept channels only.

    Args:
        kept: Identity of a module, operator, number of the call -> positions that are kept, by dimension.
        factors: The same of products with a number -> what they are multiplied by as well.
    """

    def __init__(self, kept: Mapping[CallOf, Places], factors: Mapping[CallOf, float]) -> None:
        super().__init__()
        self.kept, self.factors = kept, factors
        self.operators = {operator for _, operator, _ in (*kept, *factors)}
        self.modules: list[int] = []
        self.calls: Counter[tuple[int, str]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, _operator_name(func)
        if func in COMPOSED:
            return call_within(self, func, *args, **kwargs)
        operator = OPERATORS.get(name, name)
        if operator not in self.operators or not self.modules:
            return func(*args, **kwargs)
        key = self.modules[-1], operator
        found = self.kept.get((*key, self.calls[key]))
        self.calls[key] += 1
        if found is None:
            result = func(*args, **kwargs)
            factor = self.factors.get((*key, self.calls[key] - 1))
            return result if factor is None else result * factor
        x, rest = (args[0], args[1:]) if args else (kwargs.pop(next(name for name in FIRST if name in kwargs)), ())
        places = found if isinstance(x, str) else {dim: stays.to(x.device) for dim, stays in found.items()}
        if name in FORMULAS:
            return FORMULAS[name](x, places, *rest, **kwargs)
        return KINDS.get(name, summary)(x, places, *rest, operator=func, **kwargs)

    def start(self, module: nn.Module, _: Any) -> None:
        """Note that a module runs; the first one is the network."""
        if not self.modules:
            self.calls.clear()
            self.__enter__()
        self.modules.append(id(module))

    def end(self, *_: Any) -> None:
        """Note that the module has run."""
        self.modules.pop()
        if not self.modules:
            self.__exit__(None, None, None)


def summarise_kept(network: nn.Module, summaries: Sequence[tuple[Statistic, Tensor]]) -> None:
    """Let a network summarise only the kept positions of channels, in place.

    Args:
        network: The masked network.
        summaries: Where it summarises channels, and the positions that are kept there.
    """
    if not summaries:
        return
    kept: dict[CallOf, dict[int | Shape, Tensor]] = defaultdict(dict)
    factors: dict[CallOf, float] = {}
    for item, stays in summaries:
        call = id(network.get_submodule(item.module)), item.operator, item.number
        if item.power:
            factors[call] = (len(stays) / len(item.labels)) ** item.power
        else:
            kept[call][item.shape or item.dim] = _or_nothing_kept(item, stays) if item.shape else stays
    mode = _Summaries(kept, factors)
    for module in network.modules():
        module.register_forward_pre_hook(mode.start, prepend=True)
        module.register_forward_hook(mode.end, always_call=True)


def _or_nothing_kept(item: Statistic, stays: Tensor) -> Tensor:
    """The kept positions of rows such as heads; all of those of a row that keeps none, which nothing reads.

    Zeros there would be divided by.
    """
    kept = torch.zeros(math.prod(item.shape), dtype=torch.bool, device=stays.device)
    kept[stays] = True
    kept = kept.reshape(item.shape)
    return (kept | ~kept.any(item.dim, keepdim=True)).flatten().nonzero().flatten()
