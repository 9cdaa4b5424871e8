"""The command line: `python -m gnnrl_lightning {fit,pretrain,finetune,validate,test,compare,predict,inspect}`."""

from __future__ import annotations

import logging
import sys
import warnings

from gnnrl_lightning.cli.commands import CompressionCLI
from gnnrl_lightning.cli.signals import stopped_by_signals
from gnnrl_lightning.errors import UserError, chain
from gnnrl_lightning.processes import rank


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments; None for those of the process.

    Raises:
        SystemExit: With code 2 and one line on standard error, if the input is wrong; with 130 after Ctrl-C and 143
            after SIGTERM.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if rank() > 0:  # what there is to say the first process says
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
    """The user's error, also where jsonargparse has wrapped it in its own."""
    return next((each for each in chain(error) if isinstance(each, UserError)), None)
