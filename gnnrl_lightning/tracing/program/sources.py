"""Lines of the user's code: where an operator is called, and where an error is raised."""

from __future__ import annotations

import ast
import re
import sysconfig
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.fx import Node

TORCH = f"{Path(torch.__file__).parent}/"
PYTHON = f"{sysconfig.get_path('stdlib')}/"
PACKAGE = Path(__file__).parents[2]
CALLERS = (*(f"{PACKAGE / folder}/" for folder in ("tracing", "surgery")), *map(str, PACKAGE.glob("*.py")))
"""Parts of this package that call networks; `gnnrl_lightning.networks` is a network's own code."""


FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]+\n\s*([^\n]*)')
SLICE = re.compile(r"(.+?)\.slice\(([^,]+), ([^,]+), ([^)]+)\)(?:\.([^.]+))?")


def module_of(node: Node) -> str:
    """Return the path of the module that calls an operator."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


def without_slices(path: str, network: nn.Module) -> str:
    """Return the path of a module in its network: in the program of one that holds a module twice, slices have a path.

    `blocks.slice(1, 4, None).0`, which is `blocks[1:4][0]`, is `blocks.1`.
    """
    while found := SLICE.match(path):
        container, *ends, name = found.groups()
        held = network.get_submodule(container)
        if isinstance(held, nn.ModuleList) and name is not None:  # a slice of nn.Sequential keeps the names
            name = str(range(len(held))[slice(*map(ast.literal_eval, ends))][int(name)])
        path = f"{container}.{name}" + path[found.end() :] if name else container
    return path


def line_of(node: Node) -> str:
    """Return file and line of the user's code that calls an operator, `net.py:12: y = x.view(-1, 8)`, or ""."""
    frames = FRAME.findall(node.meta.get("stack_trace") or "")
    mine = [where(file, int(line), code) for file, line, code in frames if is_users(file)]
    return mine[-1] if mine else ""


def source_of(module: str, line: str) -> str:
    """Return module and line of an operator in one text: `head (net.py:12: y = x.view(-1, 8))`."""
    return f"{module} ({line})" if module and line else line or module


def source_of_error(error: BaseException) -> str:
    """Return file and line of the user's code that raises an error, or "" if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [where(item.filename, item.lineno or 0, item.line or "") for item in frames if is_users(item.filename)]
    return mine[-1] if mine else ""


def in_line(error: BaseException) -> str:
    """Return the line of the user's code that raises an error in brackets, for messages, or ""."""
    return f" ({source})" if (source := source_of_error(error)) else ""


def is_users(file: str) -> bool:
    """Whether a file is a network's own code."""
    library = file.startswith(PYTHON) and "-packages/" not in file
    return not library and not file.startswith((TORCH, "<")) and not calls_networks(file)


def calls_networks(file: str) -> bool:
    """Whether a file is code of this package that calls networks."""
    return file.startswith(CALLERS)


def where(file: str, line: int, code: str) -> str:
    """Format a line of code: `net.py:12: y = x.view(-1, 8)`."""
    return f"{Path(file).name}:{line}: {code.strip()}"
