"""The passes over a network from which its channels follow: in evaluation mode and, where needed, in training mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType

from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.tracing.carry import walk, walk_training
from gnnrl_lightning.tracing.copies import shared_copy, structural_copy
from gnnrl_lightning.tracing.export import Inputs, export, run, two_examples, unused_tensors
from gnnrl_lightning.tracing.heads import decide_heads
from gnnrl_lightning.tracing.keep import keep_layers
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
    program = export(shared_copy(network), inputs)
    walked = walk(program, network)
    parameters, buffers = unused_tensors(program)
    if parameters or buffers or training:
        _walk_training(walked, network, inputs, parameters)
    kept = keep_layers(walked, network, keep)
    decide_heads(walked, network, inputs)
    return walked, kept


def _walk_training(walked: Walk, network: nn.Module, inputs: Inputs, parameters: Sequence[str]) -> None:
    """Walk the network in training mode; where it runs but cannot be exported, the test of training decides."""
    walked.trained, two = True, two_examples(inputs)
    try:
        program = export(shared_copy(network).train(), two)
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
    copied = structural_copy(network, {}).train()  # its statistics change
    try:
        run(copied, two_examples(inputs))
    except Exception as error:  # the network's own code may raise anything
        return error
    return None


def reads_training(network: nn.Module) -> bool:
    """Whether code of the network, other than that of PyTorch's own modules, reads whether it is in training mode."""
    return any(
        "training" in code.co_names for kind in {type(item) for item in network.modules()} for code in _code(kind)
    )


def _code(kind: type) -> Iterator[CodeType]:
    """Yield the code of the methods of a module's class, those of PyTorch left out."""
    waiting = [
        item.__code__
        for base in kind.__mro__
        if not base.__module__.startswith("torch.")
        for item in vars(base).values()
        if isinstance(item, FunctionType)
    ]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [item for item in code.co_consts if isinstance(item, CodeType)]
