"""Times of many functions in interleaved rounds, relative to a reference operator, on a machine with other work.

Every round runs all functions, in another order each time. Around them runs a reference operator that always does the
same: a time counts relative to the reference nearby, so that a slower or faster clock of the processor cancels out.
The lower quartile over the rounds is reported: other work can only slow a call down. With one thread on the CPU, the
processor time of the thread is read, which leaves out what other processes take.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

REFERENCE_EVERY = 8
"""Functions that are measured between two runs of the reference operator."""

MOST_PASSES = 12

ENOUGH = 0.004
"""Seconds of passes in a row after which no further one starts."""


@dataclass(frozen=True)
class Clock:
    """How time is read.

    Attributes:
        read: Returns the time, seconds.
        wait: Returns when the device has finished all queued work.
    """

    read: Callable[[], float]
    wait: Callable[[], None] = lambda: None


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all queued work."""
    # Accelerators run asynchronously: without this, the clock stops when the work has been queued.
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def clock_of(device: torch.device, threads: int) -> Clock:
    """Return the processor time of this thread if all work is done by it, else the time of day.

    Args:
        device: Device of the measurement.
        threads: Threads of the CPU.
    """
    if device.type == "cpu" and threads == 1:
        return Clock(time.thread_time)
    return Clock(time.perf_counter, lambda: synchronize(device))


@contextmanager
def with_threads(threads: int) -> Iterator[None]:
    """Compute with this number of CPU threads, and return to the former one."""
    former = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def reference_operator(device: torch.device) -> Callable[[], Any]:
    """A convolution of 32 channels that always takes the same."""
    layer = nn.Conv2d(32, 32, 3, padding=1).eval().requires_grad_(False).to(device)
    image = torch.zeros(4, 32, 16, 16, device=device)
    return lambda: layer(image)


def measured_ms(
    makers: Sequence[Callable[[], Callable[[], Any]]],
    clock: Clock,
    reference: Callable[[], Any],
    rounds: int,
    advance: Callable[[], None] = lambda: None,
) -> list[float]:
    """Measure functions.

    Args:
        makers: Each makes a function to measure; it is made anew in each round, so that few are in memory.
        clock: Reads the time.
        reference: The reference operator.
        rounds: Number of rounds, at least 1.
        advance: Called after each measurement.

    Returns:
        Milliseconds of one call of each.
    """
    times: list[list[tuple[float, int]]] = [[] for _ in makers]
    references, order = [], random.Random(0)
    for _ in range(rounds):
        for place, number in enumerate(order.sample(range(len(makers)), len(makers))):
            if place % REFERENCE_EVERY == 0:
                references.append(_seconds(reference, clock))
            times[number].append((_seconds(makers[number](), clock), len(references)))
            advance()
        references.append(_seconds(reference, clock))
    usual = statistics.median(references)

    def ratio(seconds: float, after: int) -> float:
        return seconds / statistics.mean(references[after - 1 : after + 1])

    return [1000 * usual * sorted(ratio(*item) for item in each)[rounds // 4] for each in times]


@torch.inference_mode()
def _seconds(function: Callable[[], Any], clock: Clock) -> float:
    """Median over a few calls in a row, after a first one."""
    function()
    clock.wait()
    found, total = [], 0.0
    while total < ENOUGH and len(found) < MOST_PASSES:
        start = clock.read()
        function()
        clock.wait()
        found.append(clock.read() - start)
        total += found[-1]
    return statistics.median(found)
