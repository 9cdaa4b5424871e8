"""Attributes that are sizes of channels without heads, `view(n, self.channels, -1)`, and numbers that follow them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from gnnrl_lightning.tracing.records import Statistic
from gnnrl_lightning.tracing.sizes.following import Following, attributes_of
from gnnrl_lightning.tracing.sizes.grown import grown_sizes, key_of, one_more_of, shrinking_of
from gnnrl_lightning.tracing.sizes.recorder import Call
from gnnrl_lightning.tracing.sizes.resize import Resize


def hold_plain(held: Following) -> None:
    """Find attributes that are sizes of channels without heads, and record them.

    Numbers of the code may depend on them, `x / self.channels**0.5`: with one channel more they are others.

    Args:
        held: What the modules hold; statistics of its walk are completed.
    """
    for path in dict.fromkeys(call.module for call in held.plain):
        calls, module = [call for call in held.plain if call.module == path], held.module(path)
        if module is None:
            continue
        grown = grown_sizes(calls, held.channel, lambda along: one_more_of(held.channel, along))[path]
        found = attributes_of(module, calls, grown, Resize({}), {})
        held.hold([(path, keys, *each) for keys, where in found.items() for each in where], held.channel)
        before = module.sizes(calls, {}, grown).factors if found else {}
        for keys, ((call, dim), *_) in found.items():
            size, (_, along, _) = grown[key_of(call)][dim], shrinking_of(call, held.channel) or (0, call.labels, 0)
            factors = module.sizes(calls, {keys: size}, grown).factors
            _note_factors(held, path, before, factors, size / module.numbers[keys], along)


def _note_factors(
    held: Following, path: str, before: Mapping[Call, float], now: Mapping[Call, float], growth: float, along: Tensor
) -> None:
    """Record the numbers of a module which are others where an attribute, that counts `along`, has grown."""
    known = {(item.module, item.operator, item.number) for item in held.walk.statistics if item.power}
    for item in held.walk.scalings:
        key = item.operator, item.number
        ratio = now.get(key, 0.0) / (before.get(key) or math.inf)
        if item.module == path and ratio > 0 and ratio != 1 and (path, *key) not in known:
            power = math.log(ratio) / math.log(growth) * (1 if item.operator == "mul" else -1)
            held.walk.statistics.append(Statistic(path, *key, 0, along, power=power))
            held.walk.tied.add((path, *key))
