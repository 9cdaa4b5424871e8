"""Graph encoders: map a batch of graphs to an embedding of each node.

```
ENCODERS.register("mine", MyEncoder)  # then available by name in Python and YAML, like MultiStage, GCN and GAT
```
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from gnnrl_lightning.registry import Registry
from gnnrl_lightning.rl.encoders.multi_stage import MotifConv, MotifEncoder, MultiStage
from gnnrl_lightning.rl.encoders.plain import GAT, GCN

Encoder = Callable[[int], nn.Module]
"""`(number of node features) -> module`; the module maps a state to (nodes, out_features) and has `out_features`."""


def _as_encoder(given: Any) -> Encoder:
    if not callable(given):
        raise TypeError(f"expected a class or function (state_dim) -> encoder, not a {type(given).__name__}")
    return cast(Encoder, given)


ENCODERS: Registry[Encoder] = Registry("encoder", _as_encoder)
"""Name -> encoder class or function."""

ENCODERS.register("MultiStage", MultiStage)
ENCODERS.register("GCN", GCN)
ENCODERS.register("GAT", GAT)

__all__ = ["ENCODERS", "GAT", "GCN", "Encoder", "MotifConv", "MotifEncoder", "MultiStage"]
