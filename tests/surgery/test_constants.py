"""Sizes that the code of a network fixes are named with their call and line."""

import contextlib

import pytest
import torch
from torch import nn

import gnnrl_lightning
from gnnrl_lightning.tracing.program import older_torch
from tests.support.networks_code import Code


class View(Code):
    def between(self, x):
        return x.view(-1, 8, 4, 4)


class Slice(Code):
    def between(self, x):
        return torch.cat([x[:, :3].relu(), x[:, 3:]], 1)


class Split(Code):
    def between(self, x):
        return torch.cat([part.relu() for part in x.split([3, 5], dim=1)], 1)


class Helper(Code):
    """The line is that of the call, not that of `forward`."""

    def between(self, x):
        return reshaped(x)


def reshaped(x):
    return x.reshape(1, 8, -1).unflatten(2, (4, -1))


class Raises(Code):
    def between(self, x):
        if x.shape[1] != 8:
            raise ValueError("only 8 channels")
        return x


class Blocks(Code):
    def between(self, x):
        with contextlib.suppress(RuntimeError):
            x.view(-1, 8, 4, 4)  # an error that the code catches is not the cause
        return nn.functional.group_norm(x, 4)


@pytest.mark.parametrize(
    ("case", "words", "line"),
    [
        (View, "view(-1, 8, 4, 4) has a size that is a constant of the code", "return x.view(-1, 8, 4, 4)"),
        (Slice, "the masked dense network's: [:, :3] gives 1x3x4x4 instead of 1x1x4x4", "x[:, :3].relu()"),
        (Blocks, "group_norm(4, eps=1e-05) fails: Expected number of channels", "group_norm(x, 4)"),
        (Split, "split((3, 5), dim=1) has a size that is a constant of the code", "x.split([3, 5], dim=1)"),
        (Helper, "reshape(1, 8, -1)", "return x.reshape(1, 8, -1)"),
        (Raises, "does not follow when it is pruned: only 8 channels", "raise ValueError"),
    ],
)
def test_a_constant_is_named_with_its_line(case, words, line):
    graph = gnnrl_lightning.trace(case(), torch.randn(1, 3, 6, 6))
    frozen = next(group for group in graph.frozen if group.name == "a" and group.operator == "self-test")
    assert words in frozen.reason and "\n" not in frozen.reason
    assert frozen.source.startswith("test_constants.py:") and line in frozen.source


def test_the_line_is_the_users_within_another_mode(monkeypatch):
    """As versions of PyTorch before 2.13 have it, whose attention without heads is refused."""
    monkeypatch.setattr(older_torch, "OLDER", True)
    graph = gnnrl_lightning.trace(View(), torch.randn(1, 3, 6, 6))
    frozen = next(group for group in graph.frozen if group.name == "a")
    assert frozen.source.startswith("test_constants.py:") and "return x.view(-1, 8, 4, 4)" in frozen.source
