"""What runs networks while their latency is measured, by name or import path.

```
BACKENDS.register("mine", prepare)  # (network, inputs) -> function without arguments that runs one forward pass
```
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gnnrl_lightning.registry import Registry
from gnnrl_lightning.speed.backend import Backend, Pass, as_backend
from gnnrl_lightning.speed.compiled import COMPILE
from gnnrl_lightning.speed.onnx import ONNX_RUNTIME
from gnnrl_lightning.trees import Tree, call

BACKENDS: Registry[Backend] = Registry("backend", as_backend)
"""Name -> back end."""


def eager(network: Callable[..., Any], inputs: Tree) -> Pass:
    """PyTorch as it is, operator by operator."""
    return lambda: call(network, inputs)


EAGER = BACKENDS.register("eager", eager)
BACKENDS.register("onnxruntime", ONNX_RUNTIME)
BACKENDS.register("compile", COMPILE)
