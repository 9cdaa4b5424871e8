"""Writes into slices: the rewritten program computes what the network computes."""

import pytest
import torch
from torch import nn

from gnnrl_lightning.tracing.program.writes import replace_slice_writes


def halves(x):
    z = torch.zeros_like(x)
    z[:, :2] = x[:, 2:] * 2
    z[:, 2:] = x[:, :2].relu()
    return z + 1


def nested(x):
    """The mask of a shifted window: slices of slices, over each other."""
    z = x.new_zeros(x.shape)
    for i, rows in enumerate((slice(0, -1), slice(1, None))):
        for j, columns in enumerate((slice(0, -2), slice(2, 4))):
            z[:, :, rows, columns] = 2 * i + j + 1
    return x + z


def read_between(x):
    z = x.clone()
    before = z.sum()
    z[:, 1:3].zero_()
    return before - z.sum(), z


def columns(x):
    """Single indices, the last one from the end."""
    z = torch.zeros_like(x)
    z[:, 0], z[:, -1, 1:] = x[:, 1], 3
    return z + x


def newer_view(x):
    z = x.clone()
    z[:, :2].add_(1)
    return z.flatten(1) * 2


def added(x):
    """The sum is written twice: by the operator, and by the assignment."""
    z = x.clone()
    z[:, :2] += 1
    return z


def older_view(x):
    """A view that is read after a write that changes it."""
    z = x.clone()
    view = z.flatten(1)
    z[:, :2] = 0
    return view + 1


def in_place_alias(x):
    """What an in-place operator returns is the tensor itself."""
    z = x.clone()
    alias = z.relu_()
    z[:, :2] = 3
    return alias * 2


def through_a_transpose(x):
    z = x.clone()
    z.transpose(1, 2)[:, 0] = 5
    return z


def whole_tensors(x):
    return x.mul(2).relu_().add_(1)


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def scatters(program):
    return sum("_scatter" in str(node.target) for node in program.graph.nodes)


def exported(function):
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.export.export(Calls(function), (x,), strict=False), x


@pytest.mark.parametrize(
    ("function", "expected"),
    [(halves, 2), (nested, 8), (read_between, 1), (columns, 3), (newer_view, 1), (whole_tensors, 0)],
)
def test_writes_into_slices_and_indices_are_replaced(function, expected):
    """One scatter for each slice or index that is written through."""
    program, x = exported(function)
    assert replace_slice_writes(program.graph)
    assert scatters(program) == expected
    program.graph_module.recompile()
    torch.testing.assert_close(program.module()(x), function(x), rtol=0, atol=0)


@pytest.mark.parametrize("function", [added, older_view, in_place_alias, through_a_transpose])
def test_other_writes_are_left_to_torch(function):
    program, x = exported(function)
    before = str(program.graph)
    assert not replace_slice_writes(program.graph)
    assert str(program.graph) == before
    torch.testing.assert_close(program.run_decompositions({}).module()(x), function(x), rtol=0, atol=0)
