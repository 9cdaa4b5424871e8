"""Warnings of other packages that a user cannot fix, hidden only while this package calls those packages."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

OTHERS = (
    ".isinstance.treespec, LeafSpec.. is deprecated",  # Lightning with newer PyTorch
    ".torch.jit.script. is deprecated",  # torch-geometric with newer PyTorch
    "IProgress not found",  # tqdm in a notebook without ipywidgets
)
"""Regular expressions of the beginnings of their messages."""


@contextmanager
def without_others_warnings() -> Iterator[None]:
    """Hide the warnings of `OTHERS` within this block; afterwards, the filters of the process are as before."""
    with warnings.catch_warnings():
        for message in OTHERS:
            warnings.filterwarnings("ignore", message)
        yield
