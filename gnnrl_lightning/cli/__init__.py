"""The command line: `python -m gnnrl_lightning SUBCOMMAND`, see `gnnrl_lightning.cli.subcommands`."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from gnnrl_lightning.cli.front import answer
from gnnrl_lightning.cli.reporting import REPORT, report
from gnnrl_lightning.errors import UserError, chain


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments; None: those of the process.

    Raises:
        SystemExit: With code 0 after help and version; with 2 and one line on standard error if the input is invalid;
            with 130 after Ctrl-C and 143 after SIGTERM.
    """
    arguments = sys.argv[1:] if args is None else args
    try:
        said = answer(arguments)
        if said is None and arguments[0] == REPORT:
            print(report(arguments[1:]), end="")
            return
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if said is not None:
        print(said, end="")
        raise SystemExit(0)
    _run(args)


def _run(args: list[str] | None) -> None:
    """Run a subcommand. Only now PyTorch and Lightning are imported, which takes seconds."""
    from gnnrl_lightning.cli.commands import CompressionCLI
    from gnnrl_lightning.cli.signals import stopped_by_signals
    from gnnrl_lightning.processes import rank
    from gnnrl_lightning.speed.memory import keep_kernels

    if args is None and not {"", os.getcwd()} & {*sys.path}:
        sys.path.insert(0, os.getcwd())  # as `python -m` does: the user's own modules are in the current folder
    keep_kernels()  # before the first convolution
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if rank() > 0:  # only the first process reports
        warnings.simplefilter("ignore")
    try:
        with stopped_by_signals():
            CompressionCLI(args)
    except Exception as error:
        cause = _user_error(error)
        if cause is None:
            raise
        if rank() == 0:
            print(f"error: {cause}", file=sys.stderr)
        raise SystemExit(2) from error


def _user_error(error: BaseException | None) -> UserError | None:
    """Return the `UserError` in the chain, which jsonargparse may have wrapped in its own error."""
    return next((each for each in chain(error) if isinstance(each, UserError)), None)
