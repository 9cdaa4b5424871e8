"""Names that users give: exact ones and globs, and what is said of those that match nothing."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from gnnrl_lightning.errors import UserError


def matches(pattern: str, name: str) -> bool:
    """Whether a name is the pattern, or matches it as a glob (`*` matches dots as well)."""
    return name == pattern or fnmatchcase(name, pattern)


def nothing_matches(
    option: str, pattern: str, what: str, names: Collection[str], more: Iterable[str] = ()
) -> UserError:
    """The error about a pattern that matches nothing, with the names that come near.

    Args:
        option: The option that has the pattern.
        pattern: What was given.
        what: What the pattern should match, in the singular.
        names: Names that could have been given.
        more: What may be given besides these names.
    """
    near = difflib.get_close_matches(pattern, names, 3)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    also = "".join(f", or {item}" for item in more)
    return UserError(f"{option} {pattern!r} matches no {what}{meant}: expected a name or a glob{also}")
