"""Trees of tensors."""

import dataclasses
import json
import types

import pytest
import torch
from torch import nn

from gnnrl_lightning import trees


class Sum(nn.Module):
    def forward(self, a, b=0.0):
        return a + b


def test_networks_get_tensors_tuples_and_dictionaries_as_their_arguments():
    a, b = torch.ones(2), torch.full((2,), 2.0)
    assert trees.call(Sum(), a).tolist() == [1, 1]
    assert trees.call(Sum(), (a, b)).tolist() == [3, 3] == trees.call(Sum(), {"a": a, "b": b}).tolist()


def test_examples_are_counted_taken_split_and_joined():
    tree = {"x": torch.arange(10).view(5, 2), "more": (torch.arange(5), torch.arange(5) * 2)}
    assert trees.count(tree) == 5
    parts = list(trees.split(tree, 2))
    assert [trees.count(part) for part in parts] == [2, 2, 1]
    again = trees.join(parts)
    assert all(map(torch.equal, trees.tensors(again), trees.tensors(tree))) and again.keys() == tree.keys()
    assert trees.take(tree, torch.tensor([4, 0]))["more"][1].tolist() == [8, 0]
    with pytest.raises(ValueError, match=r"as many examples each, got \[4, 5\]"):
        trees.count((torch.zeros(4), torch.zeros(5)))
    with pytest.raises(ValueError, match="as many examples each"):
        trees.count(())


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    boxes: torch.Tensor
    more: object


class Named(dict):
    pass


class Listed(list):
    pass


def test_tensors_are_found_and_mapped_in_objects():
    one, two, three, four = (torch.full((2,), float(i)) for i in range(4))
    tree = (
        Found(one, Named(b=two)),
        Listed([three, "text", None]),
        types.SimpleNamespace(x=four, device=torch.float32),
    )
    assert [int(tensor[0]) for tensor in trees.tensors(tree)] == [0, 1, 2, 3]
    found, listed, space = trees.take(tree, slice(1))
    assert isinstance(found, Found) and isinstance(found.more, Named) and isinstance(listed, Listed)
    assert [len(tensor) for tensor in (found.boxes, found.more["b"], listed[0], space.x)] == [1, 1, 1, 1]
    assert listed[1:] == ["text", None] and space.device is torch.float32
    assert trees.count(tree) == 2  # the given tree is as it was
    assert trees.count(trees.join([tree, tree])) == 4


def test_only_floating_point_tensors_change_their_precision():
    tree = trees.floats((torch.zeros(2), torch.zeros(2, dtype=torch.int64)), torch.bfloat16)
    assert [tensor.dtype for tensor in tree] == [torch.bfloat16, torch.int64]
    assert trees.shapes((torch.zeros(2, 3, 4), torch.zeros(2))) == "3x4, scalar"
    maps = trees.channels_last({"a": torch.zeros(2, 3, 4, 4), "b": torch.zeros(2, 3)})
    assert maps["a"].is_contiguous(memory_format=torch.channels_last)


def test_a_layout_gives_zeros_of_the_same_structure():
    tree = {"x": torch.ones(3, 2, 4), "more": (torch.ones(3, dtype=torch.int64), [torch.ones(3, 1)])}
    laid_out = json.loads(json.dumps(trees.layout(tree)))
    zeros = trees.zeros_of(laid_out)
    assert trees.shapes(zeros) == trees.shapes(tree) == "2x4, scalar, 1"
    assert [tensor.dtype for tensor in trees.tensors(zeros)] == [torch.float32, torch.int64, torch.float32]
    assert trees.count(zeros) == 1 and not any(tensor.any() for tensor in trees.tensors(zeros))
