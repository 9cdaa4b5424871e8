"""What every operator does to channel labels: one row an operator.

A rule is a function `(walk, *args, **kwargs) -> Value` called with the operator's own arguments, tensors replaced by
`Value`; `@rule("name", kind=...)` registers it. Operators that PyTorch tags as pointwise share one row.
"""

from gnnrl_lightning.tracing.rules import contractions, elementwise, reductions, shapes

__all__ = ["contractions", "elementwise", "reductions", "shapes"]
