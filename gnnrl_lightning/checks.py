"""Checks of single values that a user gives, which return the value as the kind that is expected.

```
batch_size = whole("batch_size", batch_size, 1)  # batch_size is 1.5: expected a whole number, at least 1
gamma = real("gamma", gamma, 0, 1)               # gamma is 'x': expected a number from 0 to 1
folder = as_path("run", run, "folder")           # run is None: expected the path of a folder
```
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from gnnrl_lightning.errors import UserError

LARGEST, LARGEST_SEED = 2**31 - 1, 2**32 - 1

LONGEST = 60
"""Characters of a value in a message; of longer ones the type is named."""


def shown(value: Any) -> str:
    """What messages call a value: its `repr` if that is short, else its type."""
    try:
        text = repr(value)
    except Exception:  # of the user's own class, or an integer of thousands of digits
        text = ""
    short = 0 < len(text) <= LONGEST and text.isprintable() and not text.startswith("<")
    return text if short else f"a {type(value).__name__}"


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def whole(name: str, value: Any, least: int = 0, most: int = LARGEST, other: str = "") -> int:
    """Return a whole number of a range.

    Args:
        name: Name of the option or argument, for the message.
        value: What the user has given.
        least: Smallest value.
        most: Largest value.
        other: What else is allowed, for the message: ", or null".

    Raises:
        UserError: It is no whole number, or out of range.
    """
    kind, limits = "a whole number, ", f"at least {least}"
    if most != LARGEST:
        kind, limits = "", f"a whole number from {least} to {most}"
    if not _is_number(value, Integral):
        raise UserError(f"{name} is {shown(value)}: expected {kind}{limits}{other}")
    if value > most == LARGEST:
        raise UserError(f"{name} is {shown(value)}: expected a number of at most {LARGEST:,}{other}")
    if not least <= value <= most:
        raise UserError(f"{name} is {shown(value)}: expected {limits}{other}")
    return int(value)


def counts(**values: Any) -> None:
    """Refuse what is no whole number from 1 on, by name.

    Raises:
        UserError: As `whole`.
    """
    for name, value in values.items():
        whole(name, value, 1)


def as_seed(name: str, value: Any) -> int:
    """Return the seed of a generator, see `whole`."""
    return whole(name, value, 0, LARGEST_SEED)


def real(name: str, value: Any, low: float = -math.inf, high: float = math.inf, ends: str = "[]") -> float:
    """Return a finite number of a range.

    Args:
        name: Name of the option or argument, for the message.
        value: What the user has given.
        low: Lower end of the range.
        high: Upper end of the range.
        ends: Which ends belong to it: "[]" both, "(]" the upper one, "[)" the lower one, "()" none.

    Raises:
        UserError: It is no number, not finite, or out of range.
    """
    number = _is_number(value, Real) and abs(value) < math.inf
    above = number and (low < value if ends[0] == "(" else low <= value)
    below = number and (value < high if ends[1] == ")" else value <= high)
    if not above or not below:
        raise UserError(f"{name} is {shown(value)}: expected {_range(low, high, ends)}")
    return value


def _range(low: float, high: float, ends: str) -> str:
    above = f"above {low:g}" if ends[0] == "(" else f"at least {low:g}"
    below = f"below {high:g}" if ends[1] == ")" else f"at most {high:g}"
    if math.isinf(low) and math.isinf(high):
        return "a finite number"
    if math.isinf(high):
        return "a positive number" if above == "above 0" else f"a finite number, {above}"
    if math.isinf(low):
        return f"a finite number, {below}"
    return f"a number from {low:g} to {high:g}" if ends == "[]" else f"a number {above} and {below}"


def reals(name: str, value: Any, low: float = -math.inf, high: float = math.inf, ends: str = "[]") -> tuple[float, ...]:
    """Return one or more finite numbers of a range, see `real`.

    Raises:
        UserError: There is no list or tuple of such numbers.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise UserError(f"{name} is {shown(value)}: expected a list of numbers, one for each channel")
    return tuple(real(name, each, low, high, ends) for each in value)


def ascending(name: str, value: Any, expected: str, most: float = math.inf, ends: str = "(]") -> tuple[float, float]:
    """Return the two ends of a range of positive numbers.

    Args:
        name: Name of the option or argument, for the message.
        value: What the user has given.
        expected: What the ends are, for the message.
        most: Largest upper end.
        ends: Whether the upper end may be `most`, see `real`.

    Raises:
        UserError: There are not two finite numbers, or 0 < low <= high <= most does not hold.
    """
    refused = UserError(f"{name} is {shown(value)}: expected {expected}")
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) != 2:
        raise refused
    low, high = value
    if not all(_is_number(end, Real) for end in value):
        raise refused
    if not 0 < low <= high <= most or math.isinf(high) or (ends == "()" and high == most):
        raise refused
    return low, high


def one_of(name: str, value: Any, choices: Iterable[str], other: str = "") -> str:
    """Return one of some names.

    Args:
        name: Name of the option or argument, for the message.
        value: What the user has given.
        choices: The names.
        other: What else is allowed, for the message: ", or null".

    Raises:
        UserError: It is none of them.
    """
    known = [*choices]
    if value not in known:  # a list: what the user has given may not be hashable
        raise UserError(f"{name} is {shown(value)}: expected one of {', '.join(known)}{other}")
    return value


def flag(name: str, value: Any) -> bool:
    """Return a value that is true or false.

    Raises:
        UserError: It is neither.
    """
    if not isinstance(value, bool):
        raise UserError(f"{name} is {shown(value)}: expected true or false")
    return value


def as_path(name: str, value: Any, what: str = "file", other: str = "") -> Path:
    """Return a path that the operating system accepts, whether anything is there or not.

    Args:
        name: Name of the option or argument, for the message.
        value: What the user has given.
        what: What is at the path, for the message: "file" or "folder".
        other: What else is allowed, for the message: ", or None".

    Raises:
        UserError: It is no path, empty, or has a null byte.
    """
    try:
        text = os.fspath(value)
    except TypeError as error:
        raise UserError(f"{name} is {shown(value)}: expected the path of a {what}{other}") from error
    if not isinstance(text, str) or not text or "\0" in text:
        without = ", without null bytes" if isinstance(text, str) and "\0" in text else other
        raise UserError(f"{name} is {text!r}: expected the path of a {what}{without}")
    return Path(text)


def instance(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> Any:
    """Return an object of one of several classes.

    Args:
        name: Name of the option or argument, for the message.
        value: What the user has given.
        kinds: The classes; `bool` counts as `int` only if it is named.
        expected: What they are called, for the message.

    Raises:
        UserError: It is of another class.
    """
    if not isinstance(value, kinds):
        what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise UserError(f"{name} is {what}: expected {expected}")
    return value
