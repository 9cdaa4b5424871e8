import itertools

import pytest
import torch

from gnnrl_lightning.cost.grid import Grid, Lookup, rising


def test_a_rising_table_stays_as_it_is_and_others_are_met_half_way():
    table = torch.tensor([[1.0, 2.0], [2.0, 3.0]])
    assert torch.equal(rising(table), table)
    # The smallest rising table above [1, 3, 2] is [1, 3, 3], the largest one below it [1, 2, 2].
    assert rising(torch.tensor([[1.0, 3.0, 2.0]])).tolist() == [[1.0, 2.5, 2.5]]


def test_many_operators_are_looked_up_together():
    """Bilinear between the points, their ends beyond them, nothing without channels."""
    plane = Grid((2, 4), (1, 3), ((1.0, 2.0), (3.0, 6.0)))
    line = Grid((0,), (1, 5), ((0.0, 4.0),))
    found = Lookup([plane, line, plane], 6, 0.0)(torch.tensor([[3, 6, 0]]), torch.tensor([[2, 2, 2]]))
    assert found.tolist() == [[(1 + 2 + 3 + 6) / 4, 1.0, 0.0]]
    beyond = Lookup([plane], 6, 0.0)(torch.tensor([[6], [1]]), torch.tensor([[6], [1]]))
    assert beyond.tolist() == [[6.0], [1.0]]


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("rounding", [0.0, 0.25, 1.0])
def test_channels_are_rounded_by_a_share(rounding, lanes):
    line = Grid((0,), (1, 33), ((1.0, 33.0),))
    every = torch.arange(1, 2 * lanes + 1)[:, None]
    expected = [c + rounding * (-c % lanes) for c in range(1, 2 * lanes + 1)]
    assert Lookup([line], 2 * lanes, rounding, lanes)(every, every).flatten().tolist() == pytest.approx(expected)


def test_a_grid_covers_channels_up_to_its_last_points():
    grid = Grid((1, 8), (1, 16), ((1.0, 2.0), (3.0, 4.0)))
    inside = [(i, o) for i, o in itertools.product((8, 9), (16, 17)) if grid.covers(i, o)]
    assert inside == [(8, 16)]
