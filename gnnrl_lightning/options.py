"""Helpers for dataclasses of options: open values, and range checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from gnnrl_lightning.errors import UserError

Options = TypeVar("Options")

MOST_THREADS = 4096

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


def at_least(section: str, least: int, **values: Any) -> None:
    """Refuse numbers below a minimum; `AUTO` and None are skipped.

    Args:
        section: Section of the options, for the message.
        least: Smallest allowed value.
        **values: Option -> value.

    Raises:
        UserError: A value is below the minimum.
    """
    for name, value in values.items():
        if value not in (None, AUTO) and value < least:
            auto = f", or {AUTO}" if least == 1 else ""
            raise UserError(f"{section}.{name} is {value}: expected at least {least}{auto}")


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
