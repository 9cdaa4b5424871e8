"""Where the code of a network fixes a size that pruning changes.

The exported graph does not show which sizes are constants of the code (`view(-1, 16)`) and which follow the tensors
(`view(-1, x.shape[1])`). The calls of the pruned network's own forward pass show it: the first one whose output has
another shape than the graph predicts, or that fails, has a constant.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gnnrl_lightning.errors import chain, first_line
from gnnrl_lightning.tracing.groups import Fault
from gnnrl_lightning.tracing.program.export import Inputs, run
from gnnrl_lightning.tracing.program.sources import calls_networks, is_users, source_of_error, where

Shape = tuple[int, ...]

SIZED = ("view", "reshape", "unflatten", "split", "expand", "repeat", "[", "narrow", "tile")
"""Calls whose arguments are sizes."""

DOES_NOT_FOLLOW = "the network's own code does not follow when it is pruned"

LONGEST = 60
"""Number of characters of a call that is written with its arguments."""

REMEDY = "write it with the tensor's own size, such as x.shape[1] // 2 or flatten(1)"
SAME_PATH = (
    "decide by attributes that the module is given when it is made, or by the layers that it has, such as "
    "`if self.project is not None`"
)
GROUPS = "write groups=x.shape[1], or hold their number as an attribute of the module"


@dataclass(frozen=True)
class Call:
    """A call of torch by the user's code: its name, how it reads, where it is, and the shapes of what it returns.

    `forward` is the line of the module's `forward` that leads to the call: exported graphs know only these lines.
    """

    name: str
    text: str
    line: str
    forward: str
    shapes: tuple[Shape, ...] = ()


class Recorder(TorchFunctionMode):
    """Record the calls of torch in the user's code.

    Attributes:
        calls: The calls that returned.
        failed: The last call that raised an error, and the error.
        error: The error that ended the pass, of torch or of the code's own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.failed: tuple[Call, Exception] | None = None
        self.error: Exception | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record a call."""
        name = getattr(func, "__name__", str(func)).strip("_")
        text, (line, forward) = _text(name, args, kwargs or {}), lines()
        try:
            result = func(*args, **(kwargs or {}))
        except Exception as error:
            self.failed = Call(name, text, line, forward), error
            raise
        shapes = tuple(tuple(item.shape) for item in tree_leaves(result) if isinstance(item, Tensor))
        self.calls.append(Call(name, text, line, forward, shapes))
        return result


Expected = Mapping[tuple[str, Shape], set[Shape]]
"""Line and dense shape of an output -> shapes that it may have after pruning."""


def explain_shapes(reason: str, network: nn.Module, dense: nn.Module, inputs: Inputs, expected: Expected) -> Fault:
    """Find the call that makes a pruned network fail, or makes its MACs others than predicted.

    Args:
        reason: How it fails, for code that no call explains.
        network: The pruned network; it and the next two may be on the meta device.
        dense: The network itself.
        inputs: Inputs of both.
        expected: Shapes that the graph predicts.
    """
    before, after = _record(dense, inputs), _record(network, inputs)
    found = _difference(before, after, expected)
    if found:
        return replace(found, reason=f"{DOES_NOT_FOLLOW}: {found.reason}")
    return Fault(reason) if after.error is None else _explain_error(after.error, after.failed)


def explain_values(reason: str, network: nn.Module, dense: nn.Module, inputs: Inputs, expected: Expected) -> Fault:
    """Find the call that makes a pruned network compute something else, see `explain_shapes`."""
    found = _difference(_record(dense, inputs), _record(network, inputs), expected)
    return replace(found, reason=f"{reason}: {found.reason}") if found else Fault(reason)


def _difference(before: Recorder, after: Recorder, expected: Expected) -> Fault | None:
    """Return the first call that is another one, or has another shape: `[:, :3] gives 1x3 instead of 1x1`."""
    for old, new in zip(*([call for call in item.calls if call.line] for item in (before, after)), strict=False):
        if (old.name, old.line) != (new.name, new.line):
            if after.error is not None:  # of a layer that is gone, the calls are missing, too
                return None
            return Fault(
                f"its code takes another path, and calls {new.text} instead of {old.text}; {SAME_PATH}", new.line
            )
        for was, now in zip(old.shapes, new.shapes, strict=False):
            meant = expected.get((new.forward, was), {now})
            if now not in meant:
                gives = f"{new.text} gives {_sizes(now)} instead of {_sizes(min(meant))}"
                return Fault(f"{gives}, a size is a constant of the code; {REMEDY}", new.line)
    return None


def _explain_error(error: Exception, failed: tuple[Call, Exception] | None) -> Fault:
    """Describe the error that ended a pass of the pruned network, and the call of torch that caused it, if one did."""
    said = first_line(error)[:160]
    if failed is None or failed[1] not in chain(error):
        return Fault(f"{DOES_NOT_FOLLOW}: {said}", source_of_error(error))
    call = failed[0]
    if call.text.startswith(SIZED):
        return Fault(f"{DOES_NOT_FOLLOW}: {call.text} has a size that is a constant of the code; {REMEDY}", call.line)
    if call.text.startswith("conv") and "groups=" in call.text:  # PyTorch's own modules give them without a name
        return Fault(f"{DOES_NOT_FOLLOW}: {call.text} has groups that are a constant of the code; {GROUPS}", call.line)
    return Fault(f"{DOES_NOT_FOLLOW}: {call.text} fails: {said}", call.line)


def _record(network: nn.Module, inputs: Inputs) -> Recorder:
    recorder = Recorder()
    try:
        with recorder:
            run(network, inputs)
    except Exception as error:  # the user's code may raise anything at other widths
        recorder.error = error
    return recorder


def lines() -> tuple[str, str]:
    """Return the user's line that calls the caller of this, and the line of `forward` that leads to it."""
    frame, found = sys._getframe(2), []
    while frame is not None and not (found and found[-1][0] == "forward"):
        code = frame.f_code
        if calls_networks(code.co_filename) and code.co_name != "__torch_function__":  # of another mode
            break
        if is_users(code.co_filename):
            line = linecache.getline(code.co_filename, frame.f_lineno)
            found.append((code.co_name, where(code.co_filename, frame.f_lineno, line)))
        frame = frame.f_back
    return (found[0][1], found[-1][1]) if found else ("", "")


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"


def _text(name: str, args: Any, kwargs: Mapping[str, Any]) -> str:
    """Write a call without its tensors: `view(-1, 16)`, `[:, :16]`."""
    if name == "getitem":
        return f"[{_argument(args[1]).strip('()')}]"
    given = [part for item in args if (part := _argument(item))]
    given += [
        f"{key}={part}"
        for key, item in kwargs.items()
        if item is not None and key != "device" and (part := _argument(item))
    ]
    text = f"{name}({', '.join(given)})"
    return text if len(text) <= LONGEST else f"{name}(...)"


def _argument(item: Any) -> str:
    """Write an argument, "" for tensors; slices of an index as in the code."""
    if isinstance(item, Tensor):
        return ""
    if isinstance(item, slice):
        ends = ("" if end is None else str(end) for end in (item.start, item.stop))
        return ":".join(ends) + ("" if item.step is None else f":{item.step}")
    if isinstance(item, (tuple, list)):
        parts = [_argument(part) or "..." for part in item]
        return f"({', '.join(parts)})"
    return "..." if item is Ellipsis else str(item)
