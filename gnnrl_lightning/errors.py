"""The error that is the user's to mend, and what other errors say."""

from collections.abc import Iterator


class UserError(ValueError):
    """Bad input: the message is one line that says what was given, what was expected and what to do.

    The command line prints the message and exits with code 2; Python callers get an ordinary `ValueError`.
    """


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it came of, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an error says, where it may go on for pages; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
