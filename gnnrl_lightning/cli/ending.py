"""How the program ends early: the line on standard error, and the exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from gnnrl_lightning.errors import UserError, chain, first_line, is_users_code, one_line, printable

INVALID, REFUSED = 2, 1
"""Exit codes: the input is invalid; the operating system refuses (a full disk, a folder without write access)."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of writing alone."""

REMEDIES = {
    **dict.fromkeys(FULL, "make room"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "expected permission to read and write there"),
    **dict.fromkeys((errno.ENOENT, errno.ESTALE), "expected it to stay in place while the program runs"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "expected a folder; move the file away or choose another place"),
    errno.EISDIR: "expected a file; move the folder away",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "expected no links in a circle",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}
"""Error number of the operating system -> what to do."""

NO_THREAD = "can't start new thread"
"""What Python says if the operating system refuses a thread; it has no number."""


@dataclass(frozen=True)
class Ending:
    """The end of the program by an error that needs no traceback.

    Attributes:
        line: What to say.
        code: The exit code.
    """

    line: str
    code: int


def ending(error: BaseException) -> Ending | None:
    """Return how an error ends the program; None: it is a defect, whose traceback is needed.

    Args:
        error: The error; libraries may have wrapped its cause.
    """
    for each in chain(error):
        if isinstance(each, UserError):
            return Ending(f"error: {each}", INVALID)
        if isinstance(each, RuntimeError) and str(each) == NO_THREAD:
            return Ending("error: no more threads can be started: set fewer, run.threads and latency.threads", REFUSED)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    place = user_place(error)
    if place is not None and (cause is None or cause.errno not in FULL):
        return Ending(printable(f"error: {place} ends with {_named(error)}"), INVALID)
    if cause is None:
        return None
    # A copy names its source first, and no room is where it goes.
    file = cause.filename2 if cause.errno in FULL and cause.filename2 else cause.filename
    where = "" if file is None else f"{file}: "
    remedy = REMEDIES.get(cause.errno or 0)
    what = f"error: {where}{cause.strerror or one_line(cause)}" + (f": {remedy}" if remedy else "")
    return Ending(printable(what), REFUSED)


@contextmanager
def reading_user_code() -> Iterator[None]:
    """Turn errors of the user's own code within this block, and missing packages, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        place = error.filename if isinstance(error, SyntaxError) else user_place(error)
        if place is None:
            cause = next((each for each in chain(error) if isinstance(each, (UserError, ImportError))), None)
            if not isinstance(cause, ImportError):
                raise
            raise UserError(f"a package is missing: {first_line(cause)}; install it") from error
        raise UserError(f"{place} ends with {_named(error)}: expected code that can be imported") from error


def _named(error: BaseException) -> str:
    what = f"sys.exit({error.code})" if isinstance(error, SystemExit) else one_line(error)
    return f"{type(error).__name__}: {what}"


def user_place(error: BaseException) -> str | None:
    """Return file and line where an error was raised if that is in the user's own code.

    An exit may pass through a hook of a library (W&B has one): the place is where the user's code asks for it.
    """
    frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    if isinstance(error, SystemExit):
        frames = [frame for frame in frames if is_users_code(Path(frame.filename))]
    if not frames or not is_users_code(Path(frames[-1].filename)):
        return None
    return f"{frames[-1].filename}, line {frames[-1].lineno}"
