"""Nested tuples, lists and dictionaries of tensors that have the same examples along their first dimension.

```
inputs = {"tokens": torch.zeros(8, 16, dtype=torch.int64), "mask": torch.ones(8, 16)}
count(inputs)                         # 8
call(network, take(inputs, slice(2)))  # network(tokens=..., mask=...) of the first two examples
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

Tree = Any
"""A tensor, or nested tuples, lists and dictionaries of tensors."""


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The same structure with each tensor replaced by what the function makes of it."""
    return function(tree) if isinstance(tree, Tensor) else tree_map_only(Tensor, function, tree)


def tensors(tree: Tree) -> list[Tensor]:
    """All tensors, in a fixed order."""
    return [tree] if isinstance(tree, Tensor) else [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def count(tree: Tree) -> int:
    """The number of examples.

    Raises:
        ValueError: There is no tensor, or two differ in their number of examples.
    """
    sizes = {len(tensor) for tensor in tensors(tree)}
    if len(sizes) != 1:
        raise ValueError(f"expected tensors of as many examples each, got {sorted(sizes)}")
    return sizes.pop()


def take(tree: Tree, index: Tensor | slice) -> Tree:
    """The examples at an index, `(n,)` int64 or a slice."""
    return map_tensors(lambda tensor: tensor[index], tree)


def split(tree: Tree, size: int) -> Iterator[Tree]:
    """The examples in batches of this size, the last one perhaps smaller."""
    for start in range(0, count(tree), size):
        yield take(tree, slice(start, start + size))


def join(trees: list[Tree]) -> Tree:
    """The examples of several trees of the same structure, one after the other."""
    leaves = [iter(tensors(tree)) for tree in trees]
    return map_tensors(lambda _: torch.cat([next(leaf) for leaf in leaves]), trees[0])


def to_device(tree: Tree, device: torch.device | str) -> Tree:
    """The same on a device."""
    return map_tensors(lambda tensor: tensor.to(device), tree)


def floats(tree: Tree, dtype: torch.dtype = torch.float32) -> Tree:
    """Floating-point tensors in this precision; others as they are."""
    return map_tensors(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, tree)


def channels_last(tree: Tree) -> Tree:
    """Feature maps `(N, C, H, W)` with their channels last in memory; others as they are."""
    return map_tensors(
        lambda tensor: tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor, tree
    )


def device_of(tree: Tree) -> torch.device:
    """Where the first tensor is."""
    return tensors(tree)[0].device


def shapes(tree: Tree) -> str:
    """The shapes of all tensors without the number of examples, for messages: `3x32x32`."""
    return ", ".join("x".join(map(str, tensor.shape[1:])) or "scalar" for tensor in tensors(tree))


def call(network: nn.Module, inputs: Tree) -> Tree:
    """Run a network: a tensor is its only argument, a tuple its positional arguments, a dictionary its keyword ones."""
    if isinstance(inputs, dict):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, (tuple, list)) else network(inputs)
