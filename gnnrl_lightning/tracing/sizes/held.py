"""Sizes that a module of the user's code holds as attributes: `self.num_heads` in `view(-1, self.num_heads, width)`.

An attribute may have the value of a size by chance, so nothing is assumed: a copy of the module runs with another value
of the attribute, and those arguments of its calls that change to this value are the attribute. The module runs alone,
on the meta device, with the arguments that it has in the network, see `tracing.sizes.recorder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.tracing.numbers import Keys, numbers_of, set_number
from gnnrl_lightning.tracing.program.sources import source_of_error
from gnnrl_lightning.tracing.records import SizedCall, SplitCall
from gnnrl_lightning.tracing.sizes.recorder import Call, Given, Recorder, Sizes
from gnnrl_lightning.tracing.sizes.resize import Resize
from gnnrl_lightning.trees import map_tensors, tensors


@dataclass
class Module:
    """A module, on the meta device, with the arguments of its first call.

    Attributes:
        module: The module.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    module: nn.Module
    args: Any
    kwargs: Any

    @property
    def has_parameters(self) -> bool:
        """Whether it has parameters; a module without any gets all of its channels from outside."""
        return next(self.module.parameters(), None) is not None

    @cached_property
    def numbers(self) -> dict[Keys, int]:
        """The integers that the module itself holds."""
        return numbers_of(self.module)

    def choices(self, resize: Resize) -> list[Resize]:
        """Return the ways to resize the inputs, see `Resize.choices`."""
        return resize.choices(tensors((self.args, self.kwargs)))

    def sizes(
        self,
        calls: Sequence[SizedCall | SplitCall],
        values: Mapping[Keys, int],
        answers: Mapping[Call, Sizes],
        resize: Resize | None = None,
    ) -> Given:
        """Run the module with other numbers, and return the sizes and numbers that its calls are given.

        Args:
            calls: Calls that are of interest.
            values: Where the module holds a number -> its other value.
            answers: The sizes that follow from others, -1 in the call.
            resize: Other sizes of the module's inputs, and of what its layers make.
        """
        recorder = Recorder({(call.operator, call.number) for call in calls}, answers)
        self._run(recorder, values, resize)  # what it has called until an error counts
        return recorder.given

    def refuses(self, values: Mapping[Keys, int], resize: Resize) -> str:
        """Return the line of code at which the module fails with other numbers and other sizes, or ""."""
        error = self._run(Recorder(set(), {}), values, resize)
        return "" if error is None else source_of_error(error)

    def _run(self, recorder: Recorder, values: Mapping[Keys, int], resize: Resize | None) -> Exception | None:
        copied = independent_copy(self.module)
        for keys, value in values.items():
            set_number(copied, keys, value)
        for child in copied.modules():
            if child is not copied:
                child.register_forward_pre_hook(recorder.start)
                child.register_forward_hook(recorder.end, always_call=True)
        for path, size in resize.layers.items() if resize is not None else ():
            copied.get_submodule(path).register_forward_hook(_with_size(*size))
        given = self.args, self.kwargs
        args, kwargs = given if resize is None else (map_tensors(resize.of, item) for item in given)
        try:
            with torch.no_grad(), torch.device("meta"), recorder:
                copied(*args, **kwargs)
        except Exception as error:  # the user's code may raise anything at other sizes
            return error
        return None


def _with_size(dim: int, size: int) -> Any:
    """Return a hook that gives the output of a layer another size."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or output.dim() < -dim:
            return output
        shape = list(output.shape)
        shape[dim] = size
        return output.new_empty(shape)

    return hook
