"""Help, version and simple errors of the command line, without heavy imports."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from gnnrl_lightning import __version__
from gnnrl_lightning.cli.subcommands import SUBCOMMANDS
from gnnrl_lightning.errors import UserError

DESCRIPTION = "Make a trained network physically smaller, within a budget."
CONFIG = ("-c", "--config")


def answer(arguments: Sequence[str]) -> str | None:
    """Return the output if the full parser is not needed; None: it is needed.

    Args:
        arguments: The command line without the program's name.

    Raises:
        UserError: The subcommand is unknown, or a configuration file does not exist.
    """
    if not arguments:
        raise UserError(f"no subcommand: expected one of {', '.join(SUBCOMMANDS)}; see --help")
    first = arguments[0]
    if first in ("-h", "--help"):
        return _help()
    if first == "--version":
        return f"gnnrl_lightning {__version__}\n"
    if not first.startswith("-") and first not in SUBCOMMANDS:
        raise UserError(f"{first} is no subcommand: expected one of {', '.join(SUBCOMMANDS)}")
    missing = [path for path in _config_files(arguments) if not Path(path).is_file()]
    if missing:
        raise UserError(f"--config {missing[0]}: there is no such file")
    return None


def _help() -> str:
    parser = ArgumentParser("python -m gnnrl_lightning", description=DESCRIPTION)
    parser.add_argument("--version", action="store_true", help="Print the version and exit.")
    chosen = parser.add_subparsers(
        title="subcommands",
        required=True,
        metavar="subcommand",
        description="Run a subcommand with --help to see its options.",
    )
    for name, subcommand in SUBCOMMANDS.items():
        chosen.add_parser(name, help=subcommand.summary)
    return parser.format_help()


def _config_files(arguments: Sequence[str]) -> list[str]:
    """Return the values of --config that are names of YAML files; a value may also be YAML itself."""
    values = [value for option, value in pairwise(arguments) if option in CONFIG]
    values += [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{CONFIG[1]}=")]
    return [value for value in values if "\n" not in value and value.endswith((".yaml", ".yml"))]
