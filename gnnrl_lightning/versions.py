"""Versions of what affects the figures of a run."""

from __future__ import annotations

import platform
from importlib.metadata import version

from gnnrl_lightning import __version__


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the figures."""
    packages = ("torch", "torchvision", "lightning", "torch-geometric", "gymnasium", "numpy")
    return {
        "python": platform.python_version(),
        "gnnrl_lightning": __version__,
        **{name: version(name) for name in packages},
    }
