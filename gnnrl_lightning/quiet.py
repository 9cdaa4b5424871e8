"""Warnings: those of other packages that a user cannot fix are hidden, those of this package are one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OTHERS = (
    ".isinstance.treespec, LeafSpec.. is deprecated",  # Lightning with newer PyTorch
    ".torch.jit.script. is deprecated",  # torch-geometric with newer PyTorch
    "IProgress not found",  # tqdm in a notebook without ipywidgets
)
"""Regular expressions of the beginnings of their messages."""


PACKAGE = Path(__file__).parent


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print warnings of this package as `warning: message` within this block, without their place in its code.

    Those whose place is in the user's code or in another package are printed as before.
    """
    usual = warnings.formatwarning

    def formatted(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if Path(filename).is_relative_to(PACKAGE):
            return f"warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def without_others_warnings() -> Iterator[None]:
    """Hide the warnings of `OTHERS` within this block; afterwards, the filters of the process are as before."""
    with warnings.catch_warnings():
        for message in OTHERS:
            warnings.filterwarnings("ignore", message)
        yield
