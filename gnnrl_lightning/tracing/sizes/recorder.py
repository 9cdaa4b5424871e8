"""A recorder of the sizes and numbers that a module's code gives to its calls, at whatever sizes it runs.

Sizes that do not fit the tensors are no error there: a call returns what it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from gnnrl_lightning.tracing.program.composed import COMPOSED, call_within
from gnnrl_lightning.tracing.records import CONVOLUTIONS

Call = tuple[str, int]
"""Name of an operator, and how many of this name the module has called before."""

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Given:
    """What a module gives to its calls.

    Attributes:
        sizes: The sizes of their outputs.
        factors: Numbers by which products and quotients multiply.
        parts: How many parts each split has made.
    """

    sizes: dict[Call, Sizes]
    factors: dict[Call, float]
    parts: dict[Call, int] = field(default_factory=dict)


SCALINGS = {
    **dict.fromkeys(("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply"), "mul"),
    **dict.fromkeys(("div", "div_", "__truediv__", "__itruediv__", "divide", "true_divide"), "div"),
}
"""Name of a function that multiplies or divides -> name of its operator."""

TERMS = ("add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "__sub__", "__rsub__", "__isub__")
"""Names of functions that add or subtract."""

CREATED = ("zeros", "new_zeros")
"""Calls that make a tensor of given sizes."""

VIEWS = ("view", "reshape", "unflatten", "expand", "repeat", "repeat_interleave")
"""Calls whose arguments are sizes of their output."""


class Recorder(TorchFunctionMode):
    """Records sizes that a module gives to its calls, and returns tensors of these sizes.

    Args:
        wanted: Calls of interest.
        answers: Sizes of their outputs that follow from others.
    """

    def __init__(self, wanted: set[Call], answers: Mapping[Call, Sizes]) -> None:
        super().__init__()
        self.wanted, self.answers = wanted, answers
        self.given = Given({}, {})
        self.calls: Counter[str] = Counter()
        self.depth = 0

    def start(self, *_: Any) -> None:
        """Note that a part of the module runs, whose calls are not its own."""
        self.depth += 1

    def end(self, *_: Any) -> None:
        """Note that the part has run."""
        self.depth -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record a call."""
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func in COMPOSED:
            return call_within(self, func, *args, **kwargs)
        if name in ("__getitem__", "__setitem__", "narrow") and not self.depth:
            self._note_slices(name, args, kwargs)
        key = None
        if name in (*VIEWS, *CONVOLUTIONS, *CREATED, "split") and not self.depth:
            key = name, self.calls[name]
            self.calls[name] += 1
        if key in self.wanted and key is not None:
            given = _given(name, args, kwargs)
            self.given.sizes[key] = given
            if name in CREATED:
                return func(*args, **kwargs)
            if name == "split":
                return self._note_parts(key, _parts(*args, **kwargs))
            return self._of_sizes(key, args[0], given)
        if name in SCALINGS and not self.depth:
            scaling = SCALINGS[name], self.calls[SCALINGS[name]]
            self.calls[scaling[0]] += 1
            for item in args:
                if isinstance(item, (int, float)) or _holds_number(item):
                    self.given.factors[scaling] = float(item)
        if name == "tensor" and args and isinstance(args[0], (int, float)):
            return func(*args, **{**kwargs, "device": "cpu"})  # its value counts
        if name in ("to", "cuda", "type_as") and args and _holds_number(args[0]):
            return args[0]
        try:
            result = func(*args, **kwargs)
            return self._note_parts(key, result) if name == "split" else result
        except (RuntimeError, ValueError):
            if key is not None and name in VIEWS:
                return self._of_sizes(key, args[0], _given(name, args, kwargs))
            if name == "split":
                return _parts(*args, **kwargs)
            if name == "linear" and len(args) > 1:  # its weight has the dense sizes
                return args[0].new_empty(*args[0].shape[:-1], len(args[1]))
            if name.startswith("conv"):  # so has a convolution
                x, weight = args[0], args[1]
                channels = weight.shape[0] if "transpose" in name else weight.shape[1] * _groups(args, kwargs)
                return func(x.new_empty(len(x), channels, *x.shape[2:]), *args[1:], **kwargs)
            if name in ("batch_norm", "group_norm", "layer_norm", "rms_norm"):
                return args[0]
            if name == "scaled_dot_product_attention" and len(args) > 2:  # its mask may have the dense heads
                return args[0].new_empty(*args[0].shape[:-1], args[2].shape[-1])
            if name in (*SCALINGS, *TERMS) and all(isinstance(item, Tensor) for item in args[:2]):
                return _larger(*args[:2])  # one of them is a parameter of dense size
            raise

    def _of_sizes(self, key: Call, x: Tensor, given: Sizes) -> Tensor:
        """Return a tensor of the sizes that a call is given, and of those that it has where they follow from others."""
        answers = self.answers.get(key, ())
        answers = answers if len(answers) == len(given) else (1,) * len(given)
        both = zip(given, answers, strict=True)
        return x.new_empty([max(answer, 1) if size == -1 else size for size, answer in both])

    def _note_parts(self, key: Call | None, parts: Any) -> Any:
        if key is not None:
            self.given.parts[key] = len(parts)
        return parts

    def _note_slices(self, name: str, args: Any, kwargs: Any) -> None:
        """Record the ends of slices that are parts of a dimension."""
        called = "slice_scatter" if name == "__setitem__" else "slice"
        for size, start, stop in _slices(name, *args, **kwargs):
            key = called, self.calls[called]
            if (start, stop) != (0, size):
                self.calls[called] += 1
                if key in self.wanted:
                    self.given.sizes[key] = (start, stop)


def _holds_number(item: Any) -> bool:
    """Whether a tensor is a number of the code, `torch.tensor(x.shape[1])`: all others are on the meta device."""
    return isinstance(item, Tensor) and item.dim() == 0 and not item.is_meta


def _slices(name: str, x: Tensor, *args: Any, **kwargs: Any) -> list[tuple[int, int, int]]:
    """Return size, start and end of the slices that a call takes of a tensor's dimensions."""
    if name == "narrow":
        dim, start, length = (kwargs.get(key, args[i] if i < len(args) else None)
                              for i, key in enumerate(("dim", "start", "length")))  # fmt: skip
        if not (isinstance(dim, int) and isinstance(start, int) and isinstance(length, int)):
            return []
        return [(x.shape[dim], start % x.shape[dim], start % x.shape[dim] + length)]
    index = args[0] if isinstance(args[0], tuple) else (args[0],)
    dim, found = 0, []
    for place, item in enumerate(index):
        if item is Ellipsis:
            dim = x.dim() - sum(each is not None for each in index[place + 1 :])
            continue
        if isinstance(item, slice) and dim < x.dim():
            found.append((x.shape[dim], *item.indices(x.shape[dim])[:2]))
        dim += item is not None
    return found


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """Return a tensor of the shape of an elementwise result, with the larger size where two do not fit."""
    ndim = max(a.dim(), b.dim())
    return a.new_empty([max(pair) for pair in zip(*((1,) * (ndim - t.dim()) + t.shape for t in (a, b)), strict=True)])


def _parts(x: Tensor, sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Return tensors in the shapes of the parts of a tensor, whether or not their sizes fit it."""
    if isinstance(sizes, int):
        return x.split(sizes, dim)
    dim %= x.dim()
    return tuple(x.new_empty(*x.shape[:dim], size, *x.shape[dim + 1 :]) for size in sizes)


def _groups(args: Any, kwargs: Any) -> int:
    """Return the number of groups that a convolution is given."""
    return kwargs.get("groups", args[6] if len(args) > 6 else 1)


def _given(name: str, args: Any, kwargs: Any) -> Sizes:
    """Return the sizes of the output that a call is given; for a depthwise convolution, its groups."""
    if name == "zeros":
        args = (None, *args)
    x, *rest = args
    if name in CONVOLUTIONS:
        positions = kwargs.get("weight", rest[0] if rest else x).dim() - 2
        return (*(-1,) * (x.dim() - positions - 1), _groups(args, kwargs), *(-1,) * positions)
    if name == "split":
        sizes = next((kwargs[key] for key in ("split_size_or_sections", "split_size") if key in kwargs), *rest[:1])
        return (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if name.startswith("repeat"):
        return _repeated(name, x, rest, kwargs)
    sizes = kwargs.get("shape", kwargs.get("size", kwargs.get("sizes", rest[-1] if rest else ())))
    if name == "unflatten":
        dim = kwargs.get("dim", rest[0] if rest else 0) % x.dim()
        return (*x.shape[:dim], *sizes, *x.shape[dim + 1 :])
    return tuple(sizes) if isinstance(sizes, (tuple, list)) else tuple(rest)


def _repeated(name: str, x: Tensor, rest: Any, kwargs: Any) -> Sizes:
    """Return the sizes of the output of `repeat` or `repeat_interleave`; () if they depend on values."""
    if name == "repeat":
        times = kwargs.get("repeats", rest[0] if len(rest) == 1 else rest)
        times = (times,) if isinstance(times, int) else tuple(times)
        return tuple(t * s for t, s in zip(times, (*(1,) * (len(times) - x.dim()), *x.shape), strict=True))
    times, dim = (kwargs.get(key, rest[i] if i < len(rest) else None) for i, key in enumerate(("repeats", "dim")))
    if not isinstance(times, int) or dim is None:
        return ()
    return tuple(size * (times if d == dim % x.dim() else 1) for d, size in enumerate(x.shape))
