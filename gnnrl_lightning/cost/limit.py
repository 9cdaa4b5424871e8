"""Upper limits on a cost, as users write them: 0.5, 50%, 60M, 12.5 ms."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Real

from gnnrl_lightning.checks import shown
from gnnrl_lightning.errors import UserError


@dataclass(frozen=True)
class Limit:
    """An upper limit: a share of the dense network's cost, or an absolute one."""

    value: float
    relative: bool

    def of(self, dense: float) -> float:
        """The absolute limit, for a dense network of this cost."""
        return self.value * dense if self.relative else self.value


def parse_limit(given: float | str, option: str, unit: str = "") -> Limit:
    """Parse a limit.

    Numbers below 1 and percentages are shares of the dense network's cost. Whole numbers above 1 are absolute, with an
    optional k, M or G for thousands, millions or billions; any number followed by the metric's unit is absolute.

    Args:
        given: The limit, for example 0.5, "50%", 60_000_000, "60M" or "12.5 ms".
        option: Name of the option, for messages.
        unit: Unit of the metric.

    Raises:
        UserError: The limit is neither a share nor absolute.
    """
    form = r"([+-]?(?:[\d.]+(?:e[+-]?\d+)?|inf|nan))\s*(%|[kMG]?)\s*(" + re.escape(unit) + ")?"
    readable = isinstance(given, (str, Real)) and not isinstance(given, bool)
    try:
        found = re.fullmatch(form, str(given).strip(), re.IGNORECASE) if readable else None
        value = float(found[1]) if found else None
    except (ValueError, OverflowError):  # several decimal points, or thousands of digits
        found = value = None
    if found is None or value is None:
        raise UserError(f"{option} is {shown(given)}: expected a share such as 0.5 or 50%, or a whole number above 1")
    if not 0 < value < math.inf:
        raise UserError(f"{option} is {given}: expected a positive number, for example 0.5 (half of the network)")
    scale, measured = found[2].lower(), bool(unit) and found[3] is not None
    if scale == "%":
        value = value / 100
    elif scale:
        value *= {"k": 1e3, "m": 1e6, "g": 1e9}[scale]
    if measured and scale != "%":
        return Limit(value, relative=False)
    if value < 1 and (scale == "%" or not scale):
        return Limit(value, relative=True)
    if value > 1 and scale != "%" and value.is_integer():
        return Limit(value, relative=False)
    with_unit = f" or a number with its unit ({value:g} {unit})" if unit else ""
    raise UserError(
        f"{option} is {given}, which is neither a share nor absolute: write a share below 1 (0.5 or 50%), a whole "
        f"number above 1{with_unit} for an absolute limit, or null for none"
    )
