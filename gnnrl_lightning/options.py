"""What the dataclasses of options share: values that are left open, and checks of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from gnnrl_lightning.errors import UserError

Options = TypeVar("Options")

AUTO = "auto"
"""Stands for a value that is decided once the network, its data and the machine are known."""


def at_least(section: str, least: int, **values: Any) -> None:
    """Refuse numbers that are too small; `AUTO` and None are no numbers.

    Args:
        section: Section of the options, for the message.
        least: The smallest value.
        **values: Option -> value.

    Raises:
        UserError: A value is smaller.
    """
    for name, value in values.items():
        if value not in (None, AUTO) and value < least:
            auto = f", or {AUTO}" if least == 1 else ""
            raise UserError(f"{section}.{name} is {value}: expected at least {least}{auto}")


def decided_as(options: Options, earlier: Mapping[str, Any]) -> Options:
    """Options whose open values are those that an earlier run decided on.

    Args:
        options: A dataclass, or a dataclass of such.
        earlier: Field -> value, likewise nested, as in the earlier run's configuration.
    """
    changes: dict[str, Any] = {}
    for field in fields(options):  # pyright: ignore[reportArgumentType]
        value = getattr(options, field.name)
        if is_dataclass(value):
            changes[field.name] = decided_as(value, earlier.get(field.name) or {})
        elif isinstance(value, str) and value == AUTO and field.name in earlier:
            changes[field.name] = earlier[field.name]
    return replace(options, **changes)  # pyright: ignore[reportArgumentType]
