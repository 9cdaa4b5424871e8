import pytest

from gnnrl_lightning.cost.limit import Limit, parse_limit

SHARES = {0.5: 0.5, "50%": 0.5, " 12.5 % ": 0.125, "0.5": 0.5, 1e-3: 1e-3, "99.9%": 0.999}
ABSOLUTE = {
    60: 60,
    "60": 60,
    60e6: 6e7,
    "60e6": 6e7,
    "60M": 6e7,
    "2k": 2000,
    "1.5k": 1500,
    "1G": 1e9,
    "0.25 ms": 0.25,
    "1ms": 1,
    "1.5 ms": 1.5,
    "0.002k ms": 2,
}


@pytest.mark.parametrize("given", SHARES)
def test_what_is_below_one_or_in_percent_is_a_share(given):
    assert parse_limit(given, "limit", "ms") == Limit(pytest.approx(SHARES[given], rel=1e-12), relative=True)


@pytest.mark.parametrize("given", ABSOLUTE)
def test_whole_numbers_and_those_with_a_unit_are_absolute(given):
    assert parse_limit(given, "limit", "ms") == Limit(pytest.approx(ABSOLUTE[given], rel=1e-12), relative=False)
