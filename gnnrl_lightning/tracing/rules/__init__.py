"""Rules for channel labels, one per operator.

A rule is a function `(walk, *args, **kwargs) -> Value`, called with the operator's arguments, with tensors replaced by
`Value`s; `@rule("name", kind=...)` registers it. Operators that PyTorch tags as pointwise share one rule.
"""

from gnnrl_lightning.tracing.rules import (
    contractions,
    elementwise,
    indexing,
    norms,
    parts,
    products,
    recurrent,
    reductions,
    shapes,
    space,
    sums,
    vision,
)

__all__ = [
    "contractions",
    "elementwise",
    "indexing",
    "norms",
    "parts",
    "products",
    "recurrent",
    "reductions",
    "shapes",
    "space",
    "sums",
    "vision",
]
