"""What runs networks while their latency is measured.

```
BACKENDS.register("mine", prepare)  # (network, inputs) -> function without arguments that runs one forward pass
```
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from gnnrl_lightning.registry import Registry, as_callable
from gnnrl_lightning.trees import Tree, call

Backend = Callable[[nn.Module, Tree], Callable[[], Any]]
"""`(network in evaluation mode, inputs) -> function that runs one forward pass`; both are on the device."""


def _as_backend(given: Any) -> Backend:
    return as_callable(given, "a function (network, inputs) -> function")


BACKENDS: Registry[Backend] = Registry("backend", _as_backend)
"""Name -> backend."""


def eager(network: nn.Module, inputs: Tree) -> Callable[[], Any]:
    """PyTorch as it is, operator by operator."""
    return lambda: call(network, inputs)


BACKENDS.register("eager", eager)
