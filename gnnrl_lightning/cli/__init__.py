"""The command line: `python -m gnnrl_lightning SUBCOMMAND`, see `gnnrl_lightning.cli.subcommands`."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import ExitStack

from gnnrl_lightning.cli.ending import ending, user_place
from gnnrl_lightning.cli.front import answer
from gnnrl_lightning.cli.plain import PLAIN
from gnnrl_lightning.cli.streams import lasting_streams
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.quiet import one_line_warnings, without_others_warnings

STOPPED = (129, 130, 143)
"""Exit codes after signals, which may strike in the user's own code."""


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments; None: those of the process.

    Raises:
        SystemExit: With code 0 after help and version; with 2 and one line on standard error if the input is invalid;
            with 1 and one line if the operating system refuses; with 130 after Ctrl-C, 143 after SIGTERM and 129 after
            SIGHUP.
    """
    try:
        with lasting_streams():
            _answer(args)
    except OSError as error:  # of standard output, after all else is done
        _end(error)
    except KeyboardInterrupt:  # while packages are imported, or in a subcommand of PLAIN
        raise SystemExit(130) from None


def _answer(args: list[str] | None) -> None:
    arguments = sys.argv[1:] if args is None else args
    try:
        said = answer(arguments)
        if said is not None:
            print(said, end="")
            raise SystemExit(0)
        if arguments[0] in PLAIN:
            with without_others_warnings():
                said = PLAIN[arguments[0]](arguments[1:])
            print(said, end="")
        else:
            _run(args)
    except SystemExit as end:
        place = None if end.code in STOPPED else user_place(end)
        if place is None:
            raise
        _end(UserError(f"{place} calls sys.exit({end.code}): expected code that leaves it to the program to end"))
    except Exception as error:
        _end(error)


def _run(args: list[str] | None) -> None:
    """Run a subcommand. Only now PyTorch and Lightning are imported, which takes seconds."""
    with without_others_warnings():
        from gnnrl_lightning.cli.commands import CompressionCLI
        from gnnrl_lightning.cli.signals import stopped_by_signals
        from gnnrl_lightning.processes import rank
        from gnnrl_lightning.report.progress import quiet_lightning
        from gnnrl_lightning.speed.memory import keep_kernels

    if args is None and not {"", os.getcwd()} & {*sys.path}:
        sys.path.insert(0, os.getcwd())  # as `python -m` does: the user's own modules are in the current folder
    keep_kernels()  # before the first convolution
    with ExitStack() as held, quiet_lightning(), stopped_by_signals(), one_line_warnings(), warnings.catch_warnings():
        if rank() > 0:  # only the first process reports
            warnings.simplefilter("ignore")
        CompressionCLI(args, held)


def _end(error: Exception) -> None:
    """End the program with a line and an exit code, unless the error is a defect."""
    end = ending(error)
    if end is None:
        raise error
    process = _reporting()
    if process == 0:
        print(end.line, file=sys.stderr)
    elif process is not None:
        print(f"process {process}: {end.line}", file=sys.stderr)
    raise SystemExit(end.code) from error


def _reporting() -> int | None:
    """The number of this process, if it reports its errors: until all processes have met, the first one alone does."""
    if "gnnrl_lightning.processes" not in sys.modules:
        return 0
    from gnnrl_lightning.processes import rank, world_size

    return rank() if rank() == 0 or world_size() > 1 else None
