"""Messages of the parser in our form: what was given, what was expected, what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

TYPE = re.compile(r"<class '(?:[\w.]+\.)?(\w+)'>")
WRONG_VALUE = re.compile(r'Parser key "(?P<key>[\w.]+)": Expected (?:a|an) (?P<kind>.+?)\. Got value: (?P<value>.*)')
UNKNOWN = (
    re.compile(r"unrecognized arguments: (?P<key>-*[\w.]+)"),
    re.compile(r"Subcommand '\w+' does not accept option '(?P<key>[\w.]+)'"),
    re.compile(r"Option '(?P<key>[\w.]+)' is not accepted"),
)


def refusal(message: str, keys: Iterable[str]) -> str:
    """Return a message of the parser as one line, with a suggestion for an unknown key.

    Args:
        message: As the parser words it, possibly many lines.
        keys: All keys of the configuration, with dots.
    """
    line = TYPE.sub(r"\1", " ".join(message.split()))
    wrong = WRONG_VALUE.fullmatch(line)
    if wrong is not None:
        return f"{wrong['key']} is {wrong['value']}: expected {wrong['kind']}"
    for pattern in UNKNOWN:
        found = pattern.search(line)
        if found is not None:
            meant = suggestion(found["key"], keys)
            return f"{line}{meant}: expected a key of the configuration, see --help" if meant else line
    return line


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return "(did you mean ...?)" with a space before it, or nothing if no known name is close.

    Args:
        given: What the user wrote, perhaps with dashes before it.
        known: The names that exist.
    """
    name, names = given.lstrip("-"), sorted(known)
    close = difflib.get_close_matches(name, names, 1, 0.7)
    if not close and "." not in name:  # the last part alone, as in the arguments of a class
        ends = {each.rpartition(".")[2]: each for each in names}
        close = difflib.get_close_matches(name, ends, 1, 0.7)
    dashes = given[: len(given) - len(name)]
    return f" (did you mean {dashes}{close[0]}?)" if close else ""
