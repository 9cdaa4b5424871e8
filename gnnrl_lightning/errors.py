"""User-facing errors, helpers that format exceptions as one line, and checks that raise the former."""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb
from typing import Any


def printable(line: str) -> str:
    """Return a line that a terminal shows as it is: names of files and messages of libraries may have any character."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)


class UserError(ValueError):
    """Invalid input. The message is one line: what was given, what was expected and what to do.

    The command line prints the message and exits with code 2. Python callers can catch it as a `ValueError`.

    Args:
        message: The message; control characters in it are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Diverged(UserError):
    """A training ended with weights or statistics that are not finite."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes and contexts, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException) -> str:
    """Return an error's message as one line, or its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


INSTALLED = ("site-packages", "dist-packages")


def is_users_code(path: Path) -> bool:
    """Whether a file of code belongs neither to this package, nor to Python, nor to an installed package."""
    package, library = Path(__file__).parent, Path(contextmanager.__code__.co_filename).parent
    inside = path.is_relative_to(package) or path.is_relative_to(library) or set(INSTALLED) & set(path.parts)
    return path.is_absolute() and not inside


def with_place(error: BaseException) -> str:
    """Return an error's message as one line, with the line of the user's own code that raised it or led to it.

    The message of a missing key is the key alone, so that it is said what it is.
    """
    said = f"no key {one_line(error)}" if isinstance(error, KeyError) else one_line(error)
    for frame in reversed(extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if is_users_code(path):
            return f"{said} ({path.name}, line {frame.lineno})"
    return said


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, which may be pages long, or its type if the message is empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def suggestion(given: str, known: Iterable[str], most: int = 1) -> str:
    """Return "(did you mean ...?)" with a space before it, or nothing if no known name is close.

    Args:
        given: What the user wrote, perhaps an option with dashes before it.
        known: The names that exist.
        most: Largest number of names to suggest.
    """
    name = given.lstrip("-")
    dashes = given[: len(given) - len(name)]
    close = difflib.get_close_matches(name, sorted(known), most)
    return f" (did you mean {' or '.join(dashes + each for each in close)}?)" if close else ""


def finite_number(given: Callable[[], Any], what: str) -> float:
    """Return the number that a user's function gives.

    Args:
        given: The call of the function.
        what: What the number is, for messages.

    Raises:
        UserError: The call fails, or its result is not a finite number.
    """
    try:
        value = float(given())
    except Exception as error:  # the user's own may raise anything
        raise UserError(f"{what} fails: {with_place(error)}; expected a finite number") from error
    if not math.isfinite(value):
        raise UserError(f"{what} is {value}: expected a finite number")
    return value


def check_installed(what: str, packages: Iterable[str], extra: str) -> None:
    """Refuse what needs packages of which some are missing.

    Args:
        what: What needs them, for the message.
        packages: Names under which the packages are imported.
        extra: The extra of this package that brings them.

    Raises:
        UserError: It names the packages that are missing, and the extra.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"{what} needs {', '.join(missing)}: pip install 'gnnrl-lightning[{extra}]'")
