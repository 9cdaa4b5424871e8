"""The subcommands `push` and `pull`, which share pruned networks on the Hugging Face hub."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from gnnrl_lightning.cli.plain import PlainParser

PUSH, PULL = "push", "pull"


def pushed(arguments: Sequence[str]) -> str:
    """Send the pruned network of a run.

    Args:
        arguments: The command line after the subcommand.

    Returns:
        What to print: the address of the repository.

    Raises:
        UserError: See `gnnrl_lightning.runs.hub.push`.
    """
    parser = PlainParser(PUSH)
    parser.add_argument("run", metavar="RUN", help="Folder of a finished run of fit, prune or `compress`.")
    parser.add_argument("repo", metavar="REPO", help="Repository, user/name; it is created if it does not exist.")
    parser.add_argument("--private", action="store_true", help="Make the repository private if it is created.")
    asked = parser.parse_args(arguments)
    # Only now: PyTorch takes seconds.
    from gnnrl_lightning.runs.hub import push

    return f"pushed to {push(asked.run, asked.repo, asked.private)}\n"


def pulled(arguments: Sequence[str]) -> str:
    """Fetch a pruned network.

    Args:
        arguments: The command line after the subcommand.

    Returns:
        What to print: the folder.

    Raises:
        UserError: See `gnnrl_lightning.runs.hub.pull`.
    """
    parser = PlainParser(PULL)
    parser.add_argument("repo", metavar="REPO", help="Repository, user/name.")
    parser.add_argument("folder", metavar="FOLDER", help="New folder for the files.")
    parser.add_argument("--revision", help="Branch, tag or commit; the default branch if left out.")
    asked = parser.parse_args(arguments)
    from gnnrl_lightning.runs.hub import pull

    return f"written to {shlex.quote(str(pull(asked.repo, asked.folder, asked.revision)))}\n"
