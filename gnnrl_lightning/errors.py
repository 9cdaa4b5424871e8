"""The error that is the user's to mend, and what other errors say."""


class UserError(ValueError):
    """Bad input: the message is one line that says what was given, what was expected and what to do.

    The command line prints the message and exits with code 2; Python callers get an ordinary `ValueError`.
    """


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
