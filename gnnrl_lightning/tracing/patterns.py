"""Name patterns in user options (exact names and globs), and the error for patterns that match nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from gnnrl_lightning.errors import UserError, suggestion


def matches(pattern: str, name: str) -> bool:
    """Whether a name equals the pattern or matches it as a glob (`*` also matches dots)."""
    return name == pattern or fnmatchcase(name, pattern)


def nothing_matches(
    option: str, pattern: str, what: str, names: Collection[str], more: Iterable[str] = ()
) -> UserError:
    """Return the error for a pattern that matches nothing, with similar names.

    Args:
        option: Name of the option.
        pattern: The given pattern.
        what: Kind of object that it should match, in the singular.
        names: Valid names.
        more: Other valid kinds of values.
    """
    also = "".join(f", or {item}" for item in more)
    return UserError(
        f"{option} {pattern!r} matches no {what}{suggestion(pattern, names, 3)}: expected a name or a glob{also}"
    )
