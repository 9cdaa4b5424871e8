"""Axes against brute force: the shape operator of the network applied to the pruned tensor."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnnrl_lightning.tracing.axes import Axis, Selection

WIDTHS, SETS = np.array([4, 3]), np.array([1, 2])
"""A group of four channels, and one of two index sets with three channels each."""


def vectors():
    """Channels `(n, 3)` as (group, set, rank) of the three label vectors."""
    rows = ([0, 0, 4], [1, 0, 3], [1, 1, 3])
    return [torch.tensor([[group, row, rank] for rank in range(n)]) for group, row, n in rows]


def fixed(n):
    return torch.full((n, 3), -1)


# name -> how a network lays the channels of the three vectors along a dimension, whatever their lengths
LAYOUTS = {
    "plain": lambda a, b, c: a,
    "second set": lambda a, b, c: c,
    "each four times": lambda a, b, c: a.repeat_interleave(4, 0),
    "four times over": lambda a, b, c: a.repeat(4, 1),
    "concatenated": lambda a, b, c: torch.cat([a, b, c, fixed(2), a]),
    "sets side by side": lambda a, b, c: torch.cat([b, c]),
    "shuffled": lambda a, b, c: torch.stack([b, c], 1).reshape(-1, 3),
    "shuffled in blocks": lambda a, b, c: torch.stack([torch.cat([b, a]), torch.cat([c, a])], 1).reshape(-1, 3),
    "backwards": lambda a, b, c: a.flip(0),
    "mirrored": lambda a, b, c: torch.cat([a, a.flip(0)]),
    "interleaved with repeats": lambda a, b, c: torch.stack([b, c, b], 1).reshape(-1, 3).repeat(2, 1),
    "padded": lambda a, b, c: torch.cat([fixed(1), a, fixed(2)]),
}


def draw(generator):
    """Random ranks that stay, ascending: `(sets, width)` for each group."""
    kept = []
    for width, sets in zip(WIDTHS.tolist(), SETS.tolist(), strict=True):
        n = int(torch.randint(1, width + 1, (), generator=generator))
        order = [torch.randperm(width, generator=generator)[:n].sort()[0] for _ in range(sets)]
        kept.append(torch.stack(order))
    return kept


def pruned_vectors(kept):
    """The three vectors with only the channels that stay."""
    rows = [kept[0][0], kept[1][0], kept[1][1]]
    return [vector[ranks] for vector, ranks in zip(vectors(), rows, strict=True)]


def axis_of(layout):
    return Axis(*layout(*vectors()).numpy().T, WIDTHS, SETS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_positions_are_where_the_pruned_network_finds_its_channels(name):
    layout, generator = LAYOUTS[name], torch.Generator().manual_seed(0)
    axis, dense = axis_of(layout), layout(*vectors())
    for _ in range(20):
        kept = draw(generator)
        positions = axis.positions(Selection(kept, WIDTHS.tolist()))
        expected = layout(*pruned_vectors(kept))
        assert torch.equal(dense[positions], expected)
        widths = torch.tensor([ranks.shape[1] for ranks in kept])
        assert int(axis.size(widths)) == len(expected) == len(positions)


def test_occurrences_of_a_channel_keep_their_order():
    """Two copies of two channels, rows of the weight differ: the copies must not change places."""
    axis = axis_of(LAYOUTS["four times over"])
    kept = [torch.tensor([[1, 3]]), torch.tensor([[0], [0]])]
    assert axis.positions(Selection(kept, [4, 3])).tolist() == [1, 3, 5, 7, 9, 11, 13, 15]


def test_sets_keep_indices_of_their_own_in_a_shuffle():
    axis = axis_of(LAYOUTS["shuffled"])  # positions: b0 c0 b1 c1 b2 c2
    kept = [torch.tensor([[0]]), torch.tensor([[0, 2], [1, 2]])]
    assert axis.positions(Selection(kept, [4, 3])).tolist() == [0, 3, 4, 5]


def test_counts_and_fixed_positions():
    axis = axis_of(LAYOUTS["concatenated"])  # a b c . . a
    assert (axis.length, axis.fixed, axis.counts) == (4 + 3 + 3 + 2 + 4, 2, {0: 2, 1: 2})
    widths = torch.tensor([[4, 3], [1, 2], [2, 1]])
    assert axis.size(widths).tolist() == [16, 2 + 2 * 1 + 2 * 2, 2 + 2 * 2 + 2 * 1]


@pytest.mark.parametrize("name", LAYOUTS)
def test_channels_are_numbered_group_by_group_and_set_by_set(name):
    """Group 0 has the numbers 0 to 3; the sets of group 1 have 4 to 6, and 7 to 9."""
    dense = LAYOUTS[name](*vectors()).tolist()
    expected = [-1 if group < 0 else (0 if group == 0 else 4) + 3 * row + rank for group, row, rank in dense]
    assert axis_of(LAYOUTS[name]).channels.tolist() == expected


def test_selection_numbers_the_pruned_channels():
    """Group 0 keeps 1 and 2 of four; group 1 keeps 2 in its first set and 0 in its second."""
    selection = Selection([torch.tensor([[1, 2]]), torch.tensor([[2], [0]])], [4, 3])
    assert selection.source.tolist() == [1, 2, -1, -1, 4 + 2, -1, -1, 7 + 0, -1, -1]


def test_selection_of_nothing():
    assert Selection([], []).source.tolist() == []


@given(
    program=st.lists(st.tuples(st.sampled_from("crif"), st.integers(0, 3), st.integers(0, 3)), max_size=4),
    seed=st.integers(0, 1000),
)
def test_any_nesting_of_shape_operators(program, seed):
    """Random programs of concatenation, repetition and flips on the three vectors and the shuffle of two."""

    def layout(a, b, c):
        stack = [a, b, c, torch.stack([b, c], 1).reshape(-1, 3)]
        for operation, i, j in program:
            x = stack[i]
            if operation == "c":
                stack[i] = torch.cat([x, stack[j]])
            elif operation == "r":
                stack[i] = x.repeat(2, 1)
            elif operation == "i":
                stack[i] = x.repeat_interleave(2, 0)
            else:
                stack[i] = x.flip(0)
        return torch.cat(stack)

    kept = draw(torch.Generator().manual_seed(seed))
    positions = axis_of(layout).positions(Selection(kept, WIDTHS.tolist()))
    assert torch.equal(layout(*vectors())[positions], layout(*pruned_vectors(kept)))
