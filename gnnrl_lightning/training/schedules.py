"""Learning rate schedules: the learning rate of a step as a share of the largest one, with a warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gnnrl_lightning.registry import Registry, as_callable

Schedule = Callable[[int, int, float], float]
"""`(steps taken so far t, steps of the whole training T, steps of the warm-up w) -> share of the largest rate`."""

START, END = 1 / 25, 1 / 250_000
"""Shares of the largest learning rate at the start and at the end of one cycle, as in PyTorch's `OneCycleLR`."""


def _schedule(given: Any) -> Schedule:
    return as_callable(given, "a schedule (step, steps, warmup_steps) -> share", 3)


SCHEDULES: Registry[Schedule] = Registry("schedule", _schedule)
"""Name -> schedule."""


def cosine(step: int, steps: int, warmup_steps: float) -> float:
    r"""A linear warm-up, then half a cosine.

    :math:`(t + 1) / (w + 1)` for t < w, then :math:`(1 + \cos(\pi (t - w) / (T - w))) / 2`.

    Source: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983, equation 5, without restarts.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return (1 + math.cos(math.pi * _progress(step, steps, warmup_steps))) / 2


def linear(step: int, steps: int, warmup_steps: float) -> float:
    r"""A linear warm-up as in `cosine`, then a straight line to zero, :math:`1 - (t - w) / (T - w)`."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 1 - _progress(step, steps, warmup_steps)


def one_cycle(step: int, steps: int, warmup_steps: float) -> float:
    """Half a cosine from `START` up to 1 in the warm-up, usually 0.3 of the steps, then half a cosine down to `END`.

    The last step, T - 1, has the share `END`.

    Source: Smith and Topin, Super-Convergence, https://arxiv.org/abs/1708.07120; shares of PyTorch's `OneCycleLR`.
    """
    top = min(warmup_steps, steps) - 1
    if step < top:
        return START + (1 - START) * (1 - math.cos(math.pi * step / top)) / 2
    return END + (1 - END) * (1 + math.cos(math.pi * _progress(step, steps - 1, max(0.0, top)))) / 2


def _progress(step: int, steps: int, warmup_steps: float) -> float:
    """Share of the steps after the warm-up that have been taken, at most 1."""
    return min(1.0, (step - warmup_steps) / max(1.0, steps - warmup_steps))


SCHEDULES.register("cosine", cosine)
SCHEDULES.register("linear", linear)
SCHEDULES.register("one_cycle", one_cycle)
