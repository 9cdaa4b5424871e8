"""Latency of a few networks, measured in alternation so that they can be compared."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import nn

from gnnrl_lightning.networks import eval_mode
from gnnrl_lightning.speed.rounds import synchronize
from gnnrl_lightning.trees import Tree, call, device_of

WARM_UP = 3
IN_A_ROW = 5
"""Consecutive passes of one network; the later ones find its weights in the caches."""


def paired_latency_ms(
    networks: Mapping[str, nn.Module], inputs: Tree, rounds: int = 100, seconds: float = 15.0
) -> dict[str, float]:
    """Time of the fastest forward pass of each network, measured in alternation.

    Every round runs all networks, starting with a different one each time, so that changes in machine speed affect
    all of them alike. The minimum is reported because other processes can only slow a pass down: on a busy machine,
    means and medians measure the other processes.

    Args:
        networks: Networks by name, on the device of `inputs`. They are measured in evaluation mode; their modes are
            restored.
        inputs: One batch of normalised inputs, see `gnnrl_lightning.trees.call`.
        rounds: Maximum number of measured rounds, after a short warm-up.
        seconds: Time limit in seconds: no round starts after it.

    Returns:
        Milliseconds for the whole batch, by name.

    Raises:
        ValueError: There is no network, or `rounds` is not positive.
    """
    if rounds < 1 or not networks:
        raise ValueError(f"{rounds} rounds of {len(networks)} networks: at least one of each is needed")
    names = list(networks)
    fastest = dict.fromkeys(names, math.inf)
    with ExitStack() as modes, torch.inference_mode():
        for network in networks.values():
            modes.enter_context(eval_mode(network))
            for _ in range(WARM_UP):
                call(network, inputs)
        end = time.perf_counter() + seconds
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                passes = [_seconds(networks[name], inputs) for _ in range(IN_A_ROW)]
                fastest[name] = min(fastest[name], *passes)
            if time.perf_counter() > end:
                break
    return {name: 1e3 * value for name, value in fastest.items()}


def _seconds(network: nn.Module, inputs: Tree) -> float:
    synchronize(device_of(inputs))
    start = time.perf_counter()
    call(network, inputs)
    synchronize(device_of(inputs))
    return time.perf_counter() - start
