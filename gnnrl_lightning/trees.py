"""Nested tuples, lists and dictionaries of tensors with the same examples along the first dimension.

```
inputs = {"tokens": torch.zeros(8, 16, dtype=torch.int64), "mask": torch.ones(8, 16)}
count(inputs)                         # 8
call(network, take(inputs, slice(2)))  # network(tokens=..., mask=...) of the first two examples
```
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Tree = Any
"""A tensor, or nested tuples, lists, dictionaries and objects with attributes (such as dataclasses) of tensors."""


def map_tensors(function: Callable[[Tensor], Any], tree: Tree) -> Tree:
    """Apply a function to each tensor and keep the structure."""
    if isinstance(tree, Tensor):
        return function(tree)

    def mapped(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        parts = _parts(leaf)
        if not parts:
            return leaf
        made = copy.copy(leaf)
        put = operator.setitem if isinstance(leaf, (Mapping, list)) else object.__setattr__  # it may be frozen
        for name, part in parts.items():
            put(made, name, map_tensors(function, part))
        return made

    return tree_map(mapped, tree)


def leaves(tree: Tree) -> Iterator[Any]:
    """Yield tensors, and whatever else has no parts, in a fixed order."""
    for leaf in tree_leaves(tree):
        parts = _parts(leaf)
        if parts:
            yield from leaves(tuple(parts.values()))
        else:
            yield leaf


def tensors(tree: Tree) -> list[Tensor]:
    """List all tensors in a fixed order."""
    return [tree] if isinstance(tree, Tensor) else [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def _parts(leaf: Any) -> dict[Any, Any]:
    """Return the parts of what PyTorch does not look into: subclasses of dict and list, and objects with attributes."""
    if isinstance(leaf, Mapping):
        return dict(leaf)
    if isinstance(leaf, list):
        return dict(enumerate(leaf))
    if isinstance(leaf, (Tensor, type, enum.Enum)) or callable(leaf):
        return {}
    if dataclasses.is_dataclass(leaf):
        return {field.name: getattr(leaf, field.name) for field in dataclasses.fields(leaf)}
    return getattr(leaf, "__dict__", {})


def count(tree: Tree) -> int:
    """Count the examples.

    Raises:
        ValueError: There is no tensor, or tensors differ in their number of examples.
    """
    sizes = {len(tensor) for tensor in tensors(tree)}
    if not sizes:
        kinds = sorted({type(leaf).__name__ for leaf in leaves(tree)})
        raise ValueError(f"expected tensors of as many examples each, got {', '.join(kinds) or 'nothing'}")
    if len(sizes) != 1:
        raise ValueError(f"expected tensors of as many examples each, got {sorted(sizes)}")
    return sizes.pop()


def take(tree: Tree, index: Tensor | slice) -> Tree:
    """Select the examples at an index, `(n,)` int64 or a slice."""
    return map_tensors(lambda tensor: tensor[index], tree)


def split(tree: Tree, size: int) -> Iterator[Tree]:
    """Yield batches of `size` examples; the last one may be smaller."""
    for start in range(0, count(tree), size):
        yield take(tree, slice(start, start + size))


def join(trees: list[Tree]) -> Tree:
    """Concatenate the examples of several trees of the same structure."""
    each = [iter(tensors(tree)) for tree in trees]
    return map_tensors(lambda _: torch.cat([next(found) for found in each]), trees[0])


def to_device(tree: Tree, device: torch.device | str) -> Tree:
    """Move all tensors to a device."""
    return map_tensors(lambda tensor: tensor.to(device), tree)


def floats(tree: Tree, dtype: torch.dtype = torch.float32) -> Tree:
    """Cast floating-point tensors to `dtype`; other tensors are unchanged."""
    return map_tensors(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, tree)


def channels_last(tree: Tree, wanted: bool = True) -> Tree:
    """Convert tensors `(N, C, H, W)` to the channels-last memory format; others are unchanged.

    Args:
        tree: The tensors.
        wanted: False: all are unchanged.
    """
    if not wanted:
        return tree
    return map_tensors(
        lambda tensor: tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor, tree
    )


def device_of(tree: Tree) -> torch.device:
    """Device of the first tensor."""
    return tensors(tree)[0].device


def shapes(tree: Tree) -> str:
    """Format the shapes of all tensors without the number of examples, for messages: `3x32x32`."""
    return ", ".join("x".join(map(str, tensor.shape[1:])) or "scalar" for tensor in tensors(tree))


def layout(tree: Tree) -> dict[str, Any]:
    """Shapes (without the examples) and types of a tree in plain JSON types, see `zeros_of`."""
    if isinstance(tree, Tensor):
        return {"shape": list(tree.shape[1:]), "dtype": str(tree.dtype).removeprefix("torch.")}
    if isinstance(tree, dict):
        return {"dict": {name: layout(part) for name, part in tree.items()}}
    return {"tuple": [layout(part) for part in tree]}


def zeros_of(laid_out: Mapping[str, Any]) -> Tree:
    """One example of zeros with a layout."""
    if "dict" in laid_out:
        return {name: zeros_of(part) for name, part in laid_out["dict"].items()}
    if "tuple" in laid_out:
        return tuple(zeros_of(part) for part in laid_out["tuple"])
    return torch.zeros(1, *laid_out["shape"], dtype=getattr(torch, laid_out["dtype"]))


def call(network: Callable[..., Tree], inputs: Tree) -> Tree:
    """Run a network on a tensor, a tuple of positional arguments, or a dictionary of keyword arguments."""
    if isinstance(inputs, dict):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, (tuple, list)) else network(inputs)
