"""Objectives and optimisers on the command line: `--objective.init_args.label_smoothing 0.1`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader

KEYS = ("objective", "pretraining.optimizer", "finetuning.optimizer")
"""Keys whose value is a name, or `class_path` with `init_args`, of which jsonargparse knows no arguments."""

OPTION = re.compile(
    rf"--(?P<key>{'|'.join(map(re.escape, KEYS))})(?:\.(?P<part>class_path|init_args(?:\.\w+)?))?(?:=(?P<value>.*))?",
    re.DOTALL,
)


def with_whole_values(given: Sequence[str], value_of: Callable[[list[str], str], Any]) -> list[str]:
    """Replace options of `KEYS` by a configuration of their whole values, unless they are names.

    jsonargparse itself would lose the class or `init_args`, or fail if a file has others.

    Args:
        given: The command line without the program's name.
        value_of: Returns the value of a key in a command line.
    """
    rest, found, left = list[str](), list[tuple[str, str, Any]](), [*given]
    while left:
        argument = left.pop(0)
        match = OPTION.fullmatch(argument)
        if match is None or (match["value"] is None and (not left or left[0].startswith("--"))):
            rest.append(argument)  # without a value, it is refused by the parser
            continue
        value = left.pop(0) if match["value"] is None else match["value"]
        found.append((match["key"], match["part"] or "", _read(value)))
    if all(isinstance(value, str) and not part for _, part, value in found):
        return list(given)
    whole = {key: value_of(rest, key) for key, _, _ in found}
    for key, part, value in found:
        whole[key] = _changed(whole[key], part, value)
    for key, value in whole.items():
        for name in reversed(key.split(".")):
            value = {name: value}
        rest += ["--config", json.dumps(value)]
    return rest


def _read(value: str) -> Any:
    try:
        return get_loader("yaml")(value)  # unlike YAML itself, it reads 1e-8 as a number
    except yaml.YAMLError:
        return value  # is refused later


def _changed(before: Any, part: str, value: Any) -> Any:
    """Return a name, or a mapping with `class_path` and `init_args`, after a part of it (`""`: all) was given."""
    if not part:
        return value
    before = before.as_dict() if isinstance(before, Namespace) else before
    whole = dict(before) if isinstance(before, dict) else {"class_path": before}
    if part == "class_path":
        return whole if value == whole["class_path"] else {"class_path": value}
    _, _, name = part.partition(".")
    return whole | {"init_args": (whole.get("init_args") or {}) | {name: value} if name else value}
