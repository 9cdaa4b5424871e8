"""Subcommands whose arguments are not those of a configuration."""

from __future__ import annotations

from argparse import ArgumentParser
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

    def error(self, message: str) -> NoReturn:
        """Raise a parser's error as one line, without usage."""
        raise UserError(f"{self._subcommand}: {message}")
