"""The subcommand `report`, whose arguments are folders of runs instead of a configuration."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from gnnrl_lightning.cli.plain import PlainParser
from gnnrl_lightning.errors import UserError

REPORT = "report"


def parser() -> ArgumentParser:
    """Return the parser of the arguments after `report`."""
    made = PlainParser(REPORT)
    made.add_argument("runs", nargs="+", metavar="RUN", help="Folder of a run of fit, prune, compare or `compress`.")
    made.add_argument("--compare", action="store_true", help="Write one page that compares all given runs.")
    made.add_argument("--output", help="File of that page; comparison.html beside the first run if left out.")
    return made


def report(arguments: Sequence[str]) -> str:
    """Write the reports of runs again, or one that compares runs.

    Args:
        arguments: The command line after the subcommand.

    Returns:
        What to print: the paths of the pages.

    Raises:
        UserError: A folder has no run, or a comparison has fewer than two runs.
    """
    asked = parser().parse_args(arguments)
    # Only now: PyTorch takes seconds.
    from gnnrl_lightning.cli.resuming import subcommand_of
    from gnnrl_lightning.job.reporting import write_comparison, write_report
    from gnnrl_lightning.report.pages.records import COMPRESS
    from gnnrl_lightning.runs.folder import RunFolder

    if asked.output and not asked.compare:
        raise UserError(f"--output {asked.output} needs --compare: the page of a run is report.html in its folder")
    folders = [RunFolder(Path(path)) for path in asked.runs]
    made = {}
    for folder in folders:
        if not folder.config.is_file():
            raise UserError(f"{folder.path} is not the folder of a run (it has no config.yaml): give runs/NAME")
        made[folder] = subcommand_of(folder) or COMPRESS
    if asked.compare:
        output = Path(asked.output) if asked.output else folders[0].path.resolve().parent / "comparison.html"
        return f"written to {shlex.quote(str(write_comparison(made, output)))}\n"
    return "".join(f"written to {shlex.quote(str(write_report(folder, name)))}\n" for folder, name in made.items())
