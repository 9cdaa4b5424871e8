"""`torch.compile` as a back end.

Inductor calls the convolutions and matrix products of ATen, in channels last, and compiles what is between them. So the
operators of its table are those of PyTorch as it is, and whole networks, which are compiled, tell how much less the
operators between the multiplications take.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.speed.backend import FEW_POINTS, NETWORK, Backend, Prepared
from gnnrl_lightning.trees import Tree, call, channels_last


class Compiled:
    """Compiles networks, for the shapes of their inputs, before they are measured.

    Args:
        threads: Threads of the CPU.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __call__(self, network: Callable[..., Any], inputs: Tree, key: str) -> Prepared:
        """See `backend.Prepare`."""
        if key != NETWORK:
            return lambda given: partial(call, network, channels_last(given))
        compiled = compiled_alone(network)
        with torch.inference_mode():
            compiled(inputs)
        return lambda given: partial(compiled, given)


def compiled_alone(network: Callable[..., Any]) -> Callable[[Tree], Tree]:
    """Compile a network so that it is never compiled again for the sake of others of its class.

    `torch.compile` keeps what it has compiled with the code of `forward`, which all networks of a class share, and
    after eight of them it gives up and runs PyTorch as it is.

    Args:
        network: The network, in evaluation mode.

    Returns:
        A function of the inputs, see `gnnrl_lightning.trees.call`; its first call compiles.
    """

    def run(inputs: Tree) -> Tree:
        return call(network, inputs)

    code = run.__code__.replace()  # a copy
    own = types.FunctionType(code, run.__globals__, "run", closure=run.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False)


def _check(precision: str, device: torch.device) -> None:
    try:
        with torch.inference_mode():
            torch.compile(torch.sin, fullgraph=True)(torch.zeros(8, device=device))
    except Exception as error:  # of the compiler, whatever it is
        raise UserError(
            f"latency.backend compile: torch.compile fails here ({first_line(error)}): "
            "install a C++ compiler such as g++, or choose another back end"
        ) from error


COMPILE = Backend(Compiled, _check, points=FEW_POINTS, keeps=True)
