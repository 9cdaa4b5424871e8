"""The masked reference of operators that summarise channels: means over the channels, layer norms.

The masked dense network ignores removed channels where it reads them: weights that multiply them are zero. An operator
without such weights summarises the channels that are kept, as it does in the pruned network. For a layer norm over the
kept channels K,

    y_c = w_c (x_c - m) / sqrt(v + eps) + b_c,   m = mean of x_k over k in K,   v = mean of (x_k - m)^2 over k in K.

While the masked network runs, a mode of `torch.overrides` computes these operators by such formulas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gnnrl_lightning.tracing.axes import Axis


@dataclass(frozen=True)
class Summary:
    """Where a network summarises channels, see `gnnrl_lightning.tracing.records.Statistic`.

    Attributes:
        module: Path of the module that calls the operator.
        operator: Its name.
        number: How many operators of this name the module has called before.
        dim: Dimension of its operand along which the channels lie.
        axis: Their layout.
    """

    module: str
    operator: str
    number: int
    dim: int
    axis: Axis


def layer_norm(
    x: Tensor,
    stays: Tensor,
    dim: int,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm with the statistics of the positions `stays` along `dim`."""
    y = _standardised(x, stays, dim, tuple(range(-len(normalized_shape), 0)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def group_norm(
    x: Tensor,
    stays: Tensor,
    dim: int,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Group norm of a single group with the statistics of the positions `stays` along `dim`."""
    y = _standardised(x, stays, dim, tuple(range(1, x.dim())), eps)
    shape = (-1, *(1,) * (x.dim() - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def rms_norm(
    x: Tensor,
    stays: Tensor,
    dim: int,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """RMS norm with the mean square of the positions `stays` along `dim`."""
    dims = tuple(range(-len(normalized_shape), 0))
    square = x.index_select(dim, stays).square().mean(dims, keepdim=True)
    y = x * (square + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return y if weight is None else y * weight


def _standardised(x: Tensor, stays: Tensor, dim: int, dims: tuple[int, ...], eps: float) -> Tensor:
    kept = x.index_select(dim, stays)
    mean = kept.mean(dims, keepdim=True)
    variance = (kept - mean).square().mean(dims, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


NORMS: dict[str, Callable[..., Tensor]] = {"layer_norm": layer_norm, "group_norm": group_norm, "rms_norm": rms_norm}
"""Name of a norm -> its formula; every other operator is applied to the kept channels."""


class _Summaries(TorchFunctionMode):
    """Computes the given calls of operators from the kept channels only.

    Args:
        kept: Identity of a module, operator, number of the call -> dimension, and positions that are kept.
    """

    def __init__(self, kept: Mapping[tuple[int, str, int], tuple[int, Tensor]]) -> None:
        super().__init__()
        self.kept = kept
        self.operators = {operator for _, operator, _ in kept}
        self.modules: list[int] = []
        self.calls: Counter[tuple[int, str]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name not in self.operators or not self.modules:
            return func(*args, **kwargs)
        key = self.modules[-1], name
        found = self.kept.get((*key, self.calls[key]))
        self.calls[key] += 1
        if found is None:
            return func(*args, **kwargs)
        dim, stays = found
        x, rest = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
        stays = stays.to(x.device)
        if name in NORMS:
            return NORMS[name](x, stays, dim, *rest, **kwargs)
        return func(x.index_select(dim, stays), *rest, **kwargs)

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


def summarise_kept(network: nn.Module, summaries: Sequence[Summary], positions: Mapping[Axis, Tensor]) -> None:
    """Let a network summarise only the kept positions of channels, in place.

    Args:
        network: The masked network.
        summaries: Where it summarises channels.
        positions: The kept positions of each axis.
    """
    if not summaries:
        return
    mode = _Summaries(
        {
            (id(network.get_submodule(item.module)), item.operator, item.number): (item.dim, positions[item.axis])
            for item in summaries
        }
    )
    for module in network.modules():
        module.register_forward_pre_hook(mode.start)
        module.register_forward_hook(mode.end, always_call=True)
