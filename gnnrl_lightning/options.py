"""Helpers for dataclasses of options: open values, and range checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gnnrl_lightning.checks import shown, whole
from gnnrl_lightning.errors import UserError

Options = TypeVar("Options")

MOST_THREADS = 4096

NUMBERS: dict[Any, tuple[Any, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a finite number"),
    bool: (bool, "true or false"),
    type(None): (type(None), "null"),
}
"""Type hint -> types of its values, and what to say of others."""

AUTO = "auto"
"""Placeholder for a value that is derived from the network, its data and the machine."""


def flat(config: Any, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Flatten a configuration: path of keys -> value that has no keys.

    Args:
        config: Nested mappings.
        prefix: Path that leads to them.
    """
    if not isinstance(config, Mapping):
        return {prefix: config}
    parts = (flat(part, (*prefix, str(name))) for name, part in config.items())
    return {key: value for part in parts for key, value in part.items()}


def at_least(section: str, least: int, *, auto: bool = False, **values: Any) -> None:
    """Refuse numbers below a minimum; None is skipped.

    Args:
        section: Section of the options, for the message.
        least: Smallest allowed value.
        auto: Whether the values may be `AUTO` instead.
        **values: Option -> value.

    Raises:
        UserError: A value is no whole number, or below the minimum.
    """
    for name, value in values.items():
        if value is None or (auto and isinstance(value, str) and value == AUTO):
            continue
        whole(f"{section}.{name}", value, least, other=f", or {AUTO}" if auto else "")


def check_fields(options: Any, section: str = "") -> None:
    """Refuse numbers that are not finite, and values of other types; Python does not check the hints of dataclasses.

    Args:
        options: A dataclass; fields of other types than numbers, `bool`, `None` and `Literal` are skipped.
        section: Section of the options, for the message.

    Raises:
        UserError: A value has another type than the field, or is not finite.
    """
    for name, hint in get_type_hints(type(options)).items():
        value, parts = getattr(options, name), get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        literals = [each for part in parts if get_origin(part) is Literal for each in get_args(part)]
        kinds = [part for part in parts if get_origin(part) is not Literal]
        if not kinds or not {*kinds} <= NUMBERS.keys() or (isinstance(value, str) and value in literals):
            continue
        allowed = [kind for kind in kinds if kind is bool] if isinstance(value, bool) else kinds
        finite = not isinstance(value, float) or math.isfinite(value)
        if not finite or not any(isinstance(value, NUMBERS[kind][0]) for kind in allowed):
            expected = " or ".join([NUMBERS[kind][1] for kind in kinds] + literals)
            raise UserError(f"{section}{'.' * bool(section)}{name} is {shown(value)}: expected {expected}")


def decided_as(options: Options, earlier: Mapping[str, Any]) -> Options:
    """Replace the open values of options by those of an earlier run.

    Args:
        options: A dataclass, possibly nested.
        earlier: Field -> value in the configuration of the earlier run, with the same nesting.
    """
    changes: dict[str, Any] = {}
    for field in fields(options):  # pyright: ignore[reportArgumentType]
        value = getattr(options, field.name)
        if is_dataclass(value):
            changes[field.name] = decided_as(value, earlier.get(field.name) or {})
        elif isinstance(value, str) and value == AUTO and field.name in earlier:
            changes[field.name] = earlier[field.name]
    return replace(options, **changes)  # pyright: ignore[reportArgumentType]
