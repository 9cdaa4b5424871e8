"""Help, version and simple errors of the command line, without heavy imports."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from gnnrl_lightning import __version__
from gnnrl_lightning.cli.experiments import with_experiments
from gnnrl_lightning.cli.subcommands import PROGRAM, SUBCOMMANDS
from gnnrl_lightning.errors import UserError, suggestion

DESCRIPTION = "Make a trained network physically smaller, within a budget."


def answer(arguments: Sequence[str]) -> str | None:
    """Return the output if the full parser is not needed; None: it is needed.

    Args:
        arguments: The command line without the program's name.

    Raises:
        UserError: The subcommand is unknown, or a configuration file cannot be read.
    """
    if not arguments:
        raise UserError(f"no subcommand: expected one of {', '.join(SUBCOMMANDS)}; see --help")
    first = arguments[0]
    if first in ("-h", "--help"):
        return _help()
    if first == "--version":
        return f"gnnrl_lightning {__version__}\n"
    if not first.startswith("-") and first not in SUBCOMMANDS:
        meant = suggestion(first, SUBCOMMANDS)
        raise UserError(f"{first} is no subcommand{meant}: expected one of {', '.join(SUBCOMMANDS)}")
    with_experiments(arguments)
    return None


def _help() -> str:
    parser = ArgumentParser(PROGRAM, description=DESCRIPTION)
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
