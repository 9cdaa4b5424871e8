"""The passes over a network from which its channels follow: in evaluation mode and, where needed, in training mode."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType

from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.tracing.keep import keep_layers
from gnnrl_lightning.tracing.program.copies import shared_copy
from gnnrl_lightning.tracing.program.export import Inputs, export, run, two_examples, unused_tensors
from gnnrl_lightning.tracing.sizes.blocks import settle_blocks
from gnnrl_lightning.tracing.sizes.carry import walk, walk_training
from gnnrl_lightning.tracing.sizes.heads import decide_heads
from gnnrl_lightning.tracing.walk import Walk


def walk_network(
    network: nn.Module, inputs: Inputs, keep: Sequence[str | type[nn.Module]], training: bool = False
) -> tuple[Walk, tuple[str, ...]]:
    """Propagate labels through a network, and decide what the user keeps and how heads go.

    Tensors that only training uses (auxiliary heads) must shrink with their inputs: the network is then walked in
    training mode as well.

    Args:
        network: The network.
        inputs: Its inputs for one example.
        keep: Layers that are not pruned, see `keep_layers`.
        training: Whether it is walked in training mode even if all its tensors are used in evaluation mode.

    Returns:
        The walk, and the names of the modules and parameters that are kept.

    Raises:
        UserError: It cannot be exported, or needs more than its inputs for training, which alone uses some parameters.
    """
    # Each pass gets a copy of its own: the network's code may keep the tensors of a pass.
    program, calls = export(shared_copy(network), inputs)
    walked = walk(program, network, calls)
    parameters, buffers = unused_tensors(program)
    if parameters or buffers or training:
        _walk_training(walked, network, inputs, parameters)
    kept = keep_layers(walked, network, keep)
    decide_heads(walked)
    settle_blocks(walked)
    return walked, kept


def _walk_training(walked: Walk, network: nn.Module, inputs: Inputs, parameters: Sequence[str]) -> None:
    """Walk the network in training mode; where it runs but cannot be exported, the test of training decides."""
    walked.trained, two = True, two_examples(inputs)
    try:
        program, _ = export(shared_copy(network).train(), two)
    except UserError as error:
        if not parameters or training_error(network, inputs) is None:
            return
        raise UserError(
            f"{error} (in training mode, which alone uses {parameters[0]}: give the network the example in a form "
            "with which it trains, or remove these parameters)"
        ) from error
    walk_training(walked, program)


def training_error(network: nn.Module, inputs: Inputs) -> Exception | None:
    """Run a copy of the network in training mode, on two examples, and return the error that it raises, or None."""
    copied = independent_copy(network).train()  # its statistics change
    try:
        run(copied, two_examples(inputs))
    except Exception as error:  # the network's own code may raise anything
        return error
    return None


def reads_training(network: nn.Module) -> bool:
    """Whether code of the network may do something else in training mode, beside what PyTorch's own modules do.

    Code that only passes the mode to functions of `torch.nn.functional` (`F.dropout(x, training=self.training)`)
    computes the same shapes in both modes.
    """
    return any(
        _names_training(method.__code__) and not _passes_on_training(method)
        for kind in {type(item) for item in network.modules()}
        for method in _methods(kind)
    )


def _methods(kind: type) -> Iterator[FunctionType]:
    """Yield the methods of a module's class, those of PyTorch left out."""
    for base in kind.__mro__:
        if not base.__module__.startswith("torch."):
            yield from (item for item in vars(base).values() if isinstance(item, FunctionType))


def _names_training(code: CodeType) -> bool:
    """Whether code, or a function that it defines, names the mode."""
    inner = (item for item in code.co_consts if isinstance(item, CodeType))
    return "training" in code.co_names or any(map(_names_training, inner))


def _passes_on_training(method: FunctionType) -> bool:
    """Whether all that a method does with the mode is to give it to functions of `torch.nn.functional`."""
    try:
        nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))))
    except (OSError, TypeError, SyntaxError):  # its source is not to be found
        return False
    calls = [node for node in nodes if isinstance(node, ast.Call) and _is_functional(node.func, method.__globals__)]
    given = [item for call in calls for item in (*call.args, *(keyword.value for keyword in call.keywords))]
    return 0 < sum(map(_is_training, nodes)) == sum(map(_is_training, given))


def _is_training(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "training"


def _is_functional(node: ast.expr, names: Mapping[str, object]) -> bool:
    """Whether an expression, `F.dropout`, is a function of `torch.nn.functional`."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.append(node.attr)
        node = node.value
    found = names.get(node.id) if isinstance(node, ast.Name) else None
    for name in reversed(path):
        found = getattr(found, name, None)
    return getattr(found, "__module__", None) == "torch.nn.functional"
