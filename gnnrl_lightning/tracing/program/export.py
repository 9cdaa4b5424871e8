"""Export of a network, with an example input, to a functionalised program."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.tracing.program.older_torch import attention_of_heads, kept_in_attributes
from gnnrl_lightning.tracing.program.regions import enter_regions, region_name, regions
from gnnrl_lightning.tracing.program.sources import in_line, line_of, module_of, source_of
from gnnrl_lightning.tracing.program.writes import replace_slice_writes
from gnnrl_lightning.trees import call, leaves, map_tensors, tensors

Inputs = tuple[Any, ...] | dict[str, Any]
"""Positional or keyword arguments of `forward`; tensors may be nested in tuples, lists and dictionaries."""

Calls = dict[str, tuple[Any, Any]]
"""Path of a module -> positional and keyword arguments of its first call, with their tensors on the meta device."""


def one_example(inputs: Inputs) -> Inputs:
    """Return the inputs with only the first example of the batch."""
    examples = next(len(tensor) for tensor in tensors(inputs) if tensor.dim())
    return map_tensors(lambda tensor: tensor[:1] if tensor.dim() and len(tensor) == examples else tensor, inputs)


def two_examples(inputs: Inputs) -> Inputs:
    """Return the inputs with a single example duplicated: batch statistics need more than one value."""
    return map_tensors(
        lambda tensor: torch.cat([tensor, tensor]) if tensor.dim() and len(tensor) == 1 else tensor, inputs
    )


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments."""
    return ((), inputs) if isinstance(inputs, dict) else (inputs, {})


def unused_tensors(program: ExportedProgram) -> tuple[list[str], list[str]]:
    """Return the parameters and the buffers of the network, with channels, that are unused in its program."""
    signature = program.graph_signature
    unused = [
        node.name
        for node in program.graph.nodes
        if node.op == "placeholder" and not node.users and getattr(node.meta.get("val"), "ndim", 0)
    ]
    named = signature.inputs_to_parameters, signature.inputs_to_buffers
    parameters, buffers = ([names[name] for name in unused if name in names] for names in named)
    return parameters, buffers


def run(network: nn.Module, inputs: Inputs) -> Any:
    """Run one forward pass without gradients; if the inputs are on the meta device, so is what the code creates."""
    device = next(tensor.device for tensor in tensors(inputs))
    with torch.no_grad(), attention_of_heads():
        if device.type != "meta":
            return call(network, inputs)
        with device, _masks_as_given():
            return call(network, inputs)


DATA: Any = Tensor.data
"""The attribute `data` of tensors."""


class _DataDetached(TorchFunctionMode):
    """Lets code read `x.data` as `x.detach()`: `torch.export` has no operator for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or detach."""
        return args[0].detach() if func == DATA.__get__ else func(*args, **(kwargs or {}))


def exported_program(network: nn.Module, inputs: Inputs, **options: Any) -> ExportedProgram:
    """Call `torch.export.export`, which raises what it raises, with its further arguments.

    Args:
        network: The network; what its code keeps of a pass has no values afterwards, see `shared_copy`.
        inputs: Arguments of `forward`.
        options: Further arguments of `torch.export.export`.
    """
    with _DataDetached(), kept_in_attributes(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tensor attributes? ", UserWarning)  # that code keeps something
        return torch.export.export(network, *arguments(inputs), strict=False, **options)


def export(network: nn.Module, inputs: Inputs) -> tuple[ExportedProgram, Calls]:
    """Export a network as a graph without regions and without in-place writes through views.

    In-place operators on whole tensors (`relu_`, `add_`) remain: the walk handles them like the out-of-place ones.
    Regions are entered and writes into slices are replaced; if there are writes into other views, the program is
    functionalised. The outputs are a flat list of tensors.

    Args:
        network: A network in evaluation mode whose forward pass runs and that may be modified (see `shared_copy`).
        inputs: Arguments of `forward`.

    Returns:
        The program, and the arguments of the network's modules in it.

    Raises:
        UserError: `torch.export` fails, the network has a region that cannot be entered, such as `torch.cond`, a tensor
            has a size that depends on values, or it returns an object that may hide tensors.
    """
    name = type(network).__name__
    hook = network.register_forward_hook(_flat)
    try:
        with torch.no_grad(), _quiet(), _masks_as_given(), _noted_calls(network) as calls:
            program = exported_program(network, inputs)
            entered = enter_regions(program.graph_module)
            if not replace_slice_writes(program.graph):
                again = exported_program(network, inputs) if entered else program
                program = again.run_decompositions({})  # enters regions as well, but forgets where their code is
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} cannot be traced: {_why(error)}") from error
    finally:
        hook.remove()
    for region in regions(program.graph):
        where = f" ({source})" if (source := source_of(module_of(region), line_of(region))) else ""
        raise UserError(
            f"{name} cannot be traced: it calls {region_name(region)}{where}, whose graph cannot be entered: "
            "write it without, for instance torch.where in place of torch.cond"
        )
    for node in program.graph.nodes:
        if not has_sizes(node, first=1):  # it may pick examples
            raise sized_by_values(node)
    return program, calls


@contextmanager
def _noted_calls(network: nn.Module) -> Iterator[Calls]:
    """Note the arguments of modules; not where their sizes depend on values of tensors."""
    found: Calls = {}

    def on_meta(tensor: Tensor) -> Tensor:
        with _disable_current_modes():
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    def note(path: str) -> Any:
        def hook(module: nn.Module, *given: Any) -> None:
            if path not in found and all(type(size) is int for tensor in tensors(given) for size in tensor.shape):
                args, kwargs = map_tensors(on_meta, given)
                found[path] = args, kwargs

        return hook

    modules = network.named_modules(remove_duplicate=False)
    handles = [module.register_forward_pre_hook(note(path), with_kwargs=True) for path, module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def has_sizes(node: Node, first: int = 0) -> bool:
    """Whether the tensors that a node makes have the same sizes, from a dimension on, whatever their values are."""
    value = node.meta.get("val")
    made = [item for item in (value if isinstance(value, (tuple, list)) else [value]) if isinstance(item, Tensor)]
    return all(isinstance(size, int) for item in made for size in item.shape[first:])


def sized_by_values(node: Node) -> UserError:
    """The error about a node whose sizes, or number of MACs, depend on the values of a tensor."""
    where = f" ({source})" if (source := source_of(module_of(node), line_of(node))) else ""
    return UserError(
        f"the network cannot be traced: the values of a tensor decide the size of another one{where}: "
        "pick elements by a buffer of their numbers, or set those that do not count to zero with torch.where"
    )


CONSTANTS = (
    type,
    type(None),
    Enum,
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.Size,
    Mapping,
    list,
)
"""Types of outputs that hold no tensors; dictionaries and lists are empty ones."""


def _flat(network: nn.Module, _: Any, outputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of the outputs."""
    for leaf in leaves(outputs):
        if not isinstance(leaf, (Tensor, *CONSTANTS)):
            raise UserError(
                f"{type(network).__name__} returns a {type(leaf).__name__}, whose tensors cannot be found: "
                "return them in tuples, lists, dictionaries or dataclasses"
            )
    return tuple(tensors(outputs))


@contextmanager
def _masks_as_given() -> Iterator[None]:
    """Let `nn.Transformer` use a mask whose `is_causal` is not given without reading whether it is causal.

    That only selects a kernel, and there are no values to read in an export or on the meta device.
    """
    former = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = former


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's own pages about an error that is raised as well, in its log and on the standard error output."""
    printed = io.StringIO()
    loggers = [logging.getLogger(f"torch.{name}") for name in ("_subclasses.fake_tensor", "fx.experimental")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with redirect_stderr(printed):
            yield
        sys.stderr.write(printed.getvalue())  # of the network's own code
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


VALUES = ("data-dependent", ".numpy()", "GuardOnDataDependent")
"""Words in the errors of `torch.export` about code that reads values of tensors."""


def _why(error: Exception) -> str:
    """Say in one line why a network cannot be exported, with the line of its code."""
    where = in_line(error)
    if any(word in str(error) for word in VALUES):
        return (
            f"its code depends on the values of a tensor{where}: "
            "write torch.where, clamp or a mask in place of if, float(), item() and numpy()"
        )
    return f"torch.export says{where}: {first_line(error)}"
