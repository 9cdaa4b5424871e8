"""Subcommands whose arguments are not those of a configuration."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NoReturn

from gnnrl_lightning.cli.subcommands import SUBCOMMANDS
from gnnrl_lightning.errors import UserError


class PlainParser(ArgumentParser):
    """A parser whose errors are one line.

    Args:
        subcommand: Name of the subcommand.
    """

    def __init__(self, subcommand: str) -> None:
        about = SUBCOMMANDS[subcommand].summary
        super().__init__(f"python -m gnnrl_lightning {subcommand}", description=about, allow_abbrev=False)
        self._subcommand = subcommand

    def parse_args(self, arguments: Sequence[str]) -> Namespace:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parse arguments, none of which may have a null byte.

        Args:
            arguments: The command line after the subcommand.
        """
        for given in arguments:
            if "\0" in given:
                self.error(f"{given!r} is given: expected text without null bytes")
        return super().parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Raise a parser's error as one line, without usage."""
        raise UserError(f"{self._subcommand}: {message}")
