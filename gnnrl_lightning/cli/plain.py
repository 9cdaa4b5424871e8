"""The subcommands `report`, `push` and `pull`, whose arguments are not those of a configuration."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from gnnrl_lightning.cli.output_files import check_file
from gnnrl_lightning.cli.subcommands import PROGRAM, SUBCOMMANDS
from gnnrl_lightning.errors import UserError


class PlainParser(ArgumentParser):
    """A parser whose errors are one line.

    Args:
        subcommand: Name of the subcommand.
    """

    def __init__(self, subcommand: str) -> None:
        about = SUBCOMMANDS[subcommand].summary
        super().__init__(f"{PROGRAM} {subcommand}", description=about, allow_abbrev=False)
        self._subcommand = subcommand

    def parse_args(self, arguments: Sequence[str]) -> Namespace:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Parse arguments, none of which may have a null byte."""
        for given in arguments:
            if "\0" in given:
                self.error(f"{given!r} is given: expected text without null bytes")
        return super().parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Raise a parser's error as one line, without usage."""
        raise UserError(f"{self._subcommand}: {message}")


def report(arguments: Sequence[str]) -> str:
    """Write the reports of runs again, or one that compares runs.

    Returns:
        What to print: the paths of the pages.

    Raises:
        UserError: A folder has no run, or a comparison has fewer than two runs.
    """
    parser = PlainParser("report")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="Folder of a run of fit, prune, compare or `compress`.")
    parser.add_argument("--compare", action="store_true", help="Write one page that compares all given runs.")
    parser.add_argument("--output", help="File of that page; comparison.html beside the first run if left out.")
    asked = parser.parse_args(arguments)
    if asked.output and not asked.compare:
        raise UserError(f"--output {asked.output} needs --compare: the page of a run is report.html in its folder")
    check_file("--output", asked.output or None)
    # Only now: PyTorch takes seconds.
    from gnnrl_lightning.cli.resuming import subcommand_of
    from gnnrl_lightning.job.reporting import write_comparison, write_report
    from gnnrl_lightning.report.pages.records import COMPRESS
    from gnnrl_lightning.runs.folder import RunFolder

    made = {}
    for folder in map(RunFolder, map(Path, asked.runs)):
        if not folder.config.is_file():
            raise UserError(f"{folder.path} is not the folder of a run (it has no config.yaml): give runs/NAME")
        made[folder] = subcommand_of(folder) or COMPRESS
    if asked.compare:
        output = Path(asked.output or next(iter(made)).path.resolve().parent / "comparison.html")
        return f"written to {shlex.quote(str(write_comparison(made, output)))}\n"
    return "".join(f"written to {shlex.quote(str(write_report(folder, name)))}\n" for folder, name in made.items())


def push(arguments: Sequence[str]) -> str:
    """Send the pruned network of a run.

    Returns:
        What to print: the address of the repository.

    Raises:
        UserError: See `gnnrl_lightning.runs.hub.push`.
    """
    parser = PlainParser("push")
    parser.add_argument("run", metavar="RUN", help="Folder of a finished run of fit, prune or `compress`.")
    parser.add_argument("repo", metavar="REPO", help="Repository, user/name; it is created if it does not exist.")
    parser.add_argument("--private", action="store_true", help="Make the repository private if it is created.")
    asked = parser.parse_args(arguments)
    from gnnrl_lightning.runs import hub

    return f"pushed to {hub.push(asked.run, asked.repo, asked.private)}\n"


def pull(arguments: Sequence[str]) -> str:
    """Fetch a pruned network.

    Returns:
        What to print: the folder.

    Raises:
        UserError: See `gnnrl_lightning.runs.hub.pull`.
    """
    parser = PlainParser("pull")
    parser.add_argument("repo", metavar="REPO", help="Repository, user/name.")
    parser.add_argument("folder", metavar="FOLDER", help="New folder for the files.")
    parser.add_argument("--revision", help="Branch, tag or commit; the default branch if left out.")
    asked = parser.parse_args(arguments)
    from gnnrl_lightning.runs import hub

    return f"written to {shlex.quote(str(hub.pull(asked.repo, asked.folder, asked.revision)))}\n"


PLAIN: Mapping[str, Callable[[Sequence[str]], str]] = {"report": report, "push": push, "pull": pull}
"""Subcommand -> what answers its arguments: the text to print."""
