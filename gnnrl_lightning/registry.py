"""Extensible tables, whose rows are given by registered name, import path, or object."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from gnnrl_lightning.errors import UserError, one_line, suggestion, with_place

Row = TypeVar("Row")


def resolve(path: str, option: str) -> Any:
    """Import the object at `package.module.name`.

    Args:
        path: Import path, with at least one dot.
        option: Name of the option, for the message.

    Raises:
        UserError: `path` is not an import path, or the import fails.
    """
    if not all(part.isidentifier() for part in path.split(".")) or "." not in path:
        raise UserError(f"{option} is {path!r}: expected an import path, package.module.name")
    try:
        return pkgutil.resolve_name(path)
    except (Exception, SystemExit) as error:  # the user's own module may raise anything
        raise UserError(
            f"{option} {path!r} cannot be imported: {one_line(error)}; expected package.module.name, "
            "installed or in this folder"
        ) from error


def as_callable(given: Any, expected: str, arguments: int | None = None) -> Callable[..., Any]:
    """Return a function unchanged, or an instance of a class whose constructor needs no arguments.

    Args:
        given: The function or class.
        expected: Description of the expected value, for the message.
        arguments: Number of arguments with which it is called, by position; None: that is not checked.

    Raises:
        TypeError: `given` is neither a function nor a class, the constructor fails, or it takes other arguments.
    """
    if isinstance(given, type):
        try:
            given = given()
        except Exception as error:  # the user's own constructor may raise anything
            raise TypeError(f"expected {expected}, but making one fails: {one_line(error)}") from error
    if not callable(given):
        raise TypeError(f"expected {expected}, not a {type(given).__name__}")
    if arguments is not None and (signature := _refusing(given, arguments)) is not None:
        raise TypeError(f"expected {expected}; this one takes {signature}")
    return given


def _refusing(function: Callable[..., Any], arguments: int) -> str | None:
    """Return the arguments of a function that cannot be called with a number of them; None: it can, or is not known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a few functions built into Python
        return None
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return f"({', '.join(map(str, signature.parameters.values()))})"
    return None


def name_and_arguments(given: Any, option: str) -> tuple[Any, dict[str, Any]]:
    """Split what the user gives for a row into the row itself and arguments.

    Args:
        given: A mapping with `class_path` and `init_args` (arguments by name); anything else has no arguments.
        option: Name of the option, for the message.

    Raises:
        UserError: The mapping has other keys.
    """
    if not isinstance(given, Mapping):
        return given, {}
    if "class_path" not in given or set(given) - {"class_path", "init_args"}:
        raise UserError(f"{option} is {dict(given)}: expected class_path and init_args")
    return given["class_path"], dict(given.get("init_args") or {})


class Registry(Mapping[str, Row], Generic[Row]):
    """A mapping from names to rows.

    ```
    REPAIRS: Registry[Repair] = Registry("repair", as_repair)
    REPAIRS.register("refit", Repair(refit, passes=("recording",)))
    REPAIRS.find("refit")                  # by name
    REPAIRS.find("my_package.my_repair")   # by import path
    REPAIRS.find(Repair(...))              # the object itself
    ```

    Args:
        kind: Noun for a row in messages ("repair").
        adapt: Converts a user's object to a row: returns instances of the row type unchanged and adapts simpler objects
            such as functions or classes. Raises `TypeError` with the expected types for other objects.
    """

    def __init__(self, kind: str, adapt: Callable[[Any], Row]) -> None:
        self.kind = kind
        self._adapt = adapt
        self._rows: dict[str, Row] = {}

    def __getitem__(self, name: str) -> Row:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self._rows)})"

    def register(self, name: str, row: Any) -> Row:
        """Add a row.

        Args:
            name: A new name without dots (names with dots are import paths).
            row: The row, or an object that `adapt` converts.

        Returns:
            The row.

        Raises:
            UserError: The name is taken or has a dot, or `adapt` refuses the row.
        """
        if name in self._rows:
            raise UserError(f"{self.kind} {name!r} is registered already: choose another name")
        if not name or "." in name:
            raise UserError(f"{self.kind} {name!r}: expected a name without dots, for these mark import paths")
        self._rows[name] = self._made(row, name)
        return self._rows[name]

    @contextmanager
    def calling(self, row: Row, name: str, expected: str) -> Iterator[None]:
        """Refuse, in one line, a row of the user's own that fails within this block; what registered rows raise stays.

        Args:
            row: The row that is called.
            name: Its name, for the message.
            expected: What is expected of a row, for the message.

        Raises:
            UserError: A row that is not registered fails.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # the user's own may raise anything
            if row in self.values():
                raise
            raise UserError(f"{self.kind} {name} fails: {with_place(error)}; expected {expected}") from error

    def find(self, given: Any, option: str | None = None) -> Row:
        """Return the row for a registered name, an import path, or an object.

        Args:
            given: Registered name, import path, or an object that `adapt` converts.
            option: Name of the option, for messages; the kind by default.

        Raises:
            UserError: The name is unknown, the import fails, or `adapt` refuses the object.
        """
        option = option or self.kind
        if not isinstance(given, str):
            return self._made(given, self.name_of(given), option)
        if given in self._rows:
            return self._rows[given]
        if "." not in given:
            raise UserError(
                f"{option} is {given!r}{suggestion(given, self._rows)}: expected one of {', '.join(self._rows)}, or an "
                "import path, package.module.name"
            )
        return self._made(resolve(given, option), given, option)

    @staticmethod
    def name_of(given: Any) -> str:
        """Name of a row in reports: its name or import path, or the name of its function or class."""
        if isinstance(given, str):
            return given
        return getattr(given, "__qualname__", type(given).__qualname__)

    def _made(self, given: Any, name: str, option: str | None = None) -> Row:
        try:
            return self._adapt(given)
        except TypeError as error:
            raise UserError(f"{option or self.kind} {name!r}: {one_line(error)}") from error
