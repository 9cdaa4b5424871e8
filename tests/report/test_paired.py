"""Statistics by hand."""

import math

import pytest

from gnnrl_lightning.report.paired import Spread, paired_difference


def test_spread_by_hand():
    """Of 1, 2, 6: mean 3, squares 4 + 1 + 9 over 2."""
    assert Spread.of([1.0, 2.0, 6.0]) == Spread(3, 3.0, pytest.approx(math.sqrt(7)))
    assert Spread.of([5.0]) == Spread(1, 5.0, None)


def test_paired_difference_by_hand():
    """Differences 1, 2, 3: mean 2, standard deviation 1, and t of 2 degrees of freedom at 0.975 is 4.302653."""
    difference = paired_difference({0: 11.0, 1: 22.0, 2: 33.0}, {2: 30.0, 0: 10.0, 1: 20.0})
    reach = 4.302653 / math.sqrt(3)
    assert (difference.n, difference.mean) == (3, 2.0)
    assert (difference.low, difference.high) == (pytest.approx(2 - reach, abs=1e-6), pytest.approx(2 + reach, abs=1e-6))


def test_one_value_is_paired_with_every_seed():
    """Differences 1, 3: mean 2, standard deviation sqrt 2, and t of 1 degree of freedom is 12.706205."""
    difference = paired_difference({0: 11.0, 7: 13.0}, 10.0)
    assert difference.high - difference.mean == pytest.approx(12.706205, abs=1e-5)


def test_seeds_that_one_side_lacks_are_left_out():
    assert paired_difference({0: 1.0, 1: 5.0}, {1: 2.0, 3: 9.0}).mean == 3.0
    alone = paired_difference({1: 5.0}, {1: 2.0})
    assert (alone.mean, alone.low, alone.high) == (3.0, None, None)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
