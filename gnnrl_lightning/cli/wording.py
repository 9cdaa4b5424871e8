"""Messages of the parser in our form: what was given, what was expected, what was probably meant."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable

from gnnrl_lightning.errors import suggestion

TYPE = re.compile(r"<class '(?:[\w.]+\.)?(\w+)'>")
WRONG_VALUE = re.compile(r'Parser key "(?P<key>[\w.]+)": Expected (?:a|an) (?P<kind>.+?)\. Got value: (?P<value>.*)')
SEVERAL_TYPES = re.compile(
    r'Parser key "(?P<key>[\w.]+)": .*?Errors: - (?P<reason>.*?)(?: - Expected an? | Given value)'
)
ONE_TYPE = re.compile(r'Parser key "(?P<key>[\w.]+)": (?P<reason>.*)')
UNKNOWN_KEY = (
    re.compile(r"unrecognized arguments: (?P<key>-*[\w.]+)"),
    re.compile(r"Subcommand '\w+' does not accept option '(?P<key>[\w.]+)'"),
)
UNKNOWN_ARGUMENT = re.compile(r"class_path '(?P<path>[\w.]+)': Option '(?P<key>[\w.]+)' is not accepted")
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\w+)")
CLASSES = {
    "data": "gnnrl_lightning.data",
    "trainer.logger": "lightning.pytorch.loggers",
    "trainer.callbacks": "lightning.pytorch.callbacks",
    "model.make_policy": "gnnrl_lightning.rl.policies",
}
"""Key -> module whose classes may be named without it."""


def refusal(message: str, keys: Iterable[str]) -> str:
    """Return a message of the parser as one line, with what was probably meant.

    Args:
        message: As the parser words it, possibly many lines.
        keys: All keys of the configuration, with dots.
    """
    line = TYPE.sub(r"\1", " ".join(message.split()))
    if found := WRONG_VALUE.fullmatch(line):
        return f"{found['key']} is {found['value']}: expected {found['kind']}"
    for pattern in UNKNOWN_KEY:
        if found := pattern.search(line):
            return f"{line}{suggestion(found['key'], keys)}: expected a key of the configuration, see --help"
    if found := (SEVERAL_TYPES.match(line) or ONE_TYPE.fullmatch(line)):
        return f"{found['key']}: {_class_refusal(found['key'], found['reason'])}"
    return line


def _class_refusal(key: str, reason: str) -> str:
    """Return why a class with arguments is refused."""
    if found := UNKNOWN_CLASS.search(reason):
        known = vars(importlib.import_module(CLASSES[key])) if key in CLASSES else ()
        meant = suggestion(found["name"], [name for name in known if name[:1].isupper()])
        return f"there is no class {found['name']}{meant}: expected its name or import path, package.module.Class"
    if found := UNKNOWN_ARGUMENT.search(reason):
        known = _arguments(found["path"])
        return f"{found['path']} has no argument {found['key']}{suggestion(found['key'], known)}: see its documentation"
    return reason


def _arguments(path: str) -> set[str]:
    """Return the names of the arguments of a class and its bases."""
    module, _, name = path.rpartition(".")
    given = getattr(importlib.import_module(module), name)
    makers = [each.__init__ for each in inspect.getmro(given)] if isinstance(given, type) else [given]
    return {
        key for make in makers for key in inspect.signature(make).parameters if key not in ("self", "args", "kwargs")
    }
