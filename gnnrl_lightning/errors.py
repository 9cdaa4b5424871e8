"""The error that is the user's to mend."""


class UserError(ValueError):
    """Bad input: the message is one line that says what was given, what was expected and what to do.

    The command line prints the message and exits with code 2; Python callers get an ordinary `ValueError`.
    """
