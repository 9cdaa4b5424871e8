"""Why channels cannot be pruned, what each reason costs, and what a user can do about it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gnnrl_lightning.tracing.groups import Channels
from gnnrl_lightning.tracing.records import Contraction

REMEDIES = {
    "attention head, which is combined": "give what it is combined with, such as a mask, size 1 along the heads",
    "without a rule": "use other operators, or register a rule with gnnrl_lightning.tracing.walk.rule",
    "whose rule does not know": "use other operators, or register a rule with gnnrl_lightning.tracing.walk.rule",
    "with values that cannot be pruned": "make these values a parameter or buffer, which is pruned, too",
    "by a weight that cannot be pruned": "use a parameter as the weight",
    "grouped convolution whose channels": "use a parameter as the weight, such as that of nn.Conv2d",
    "through an index that is not a buffer": "make the index a buffer, which is pruned, too",
    "is picked by its number": "take equal parts of the channels, such as x.chunk(2, 1)",
    "apart from the other channels": "take equal parts of the channels, such as x.chunk(2, 1)",
    "masked dense network's": "write what is computed without the number of channels and their positions",
    "is indexed": "select channels with torch.index_select and a buffer",
    "through an index": "write with a mask, x[mask] = number, or with torch.where",
    "with channels that share a dimension": "write it as an einsum that gives each kind of channels its own dimension",
    "einsum with a diagonal": "write it without diagonal",
    "size that the code fixes": "give it sizes that are attributes of the module: view(n, -1, self.heads, self.width)",
    "packed sequence": "give the recurrent layer padded sequences, and no projection",
}
"""Words of a reason -> what to do; reasons that are not listed follow from the network's function."""


@dataclass(frozen=True)
class Reason:
    """Why channels cannot be pruned.

    Attributes:
        operator: The operator that freezes them.
        reason: The reason.
        source: Line of the user's code, or the module where torch's own code calls the operator.
        remedy: What to change in the code; "" if freezing follows from what the network computes.
        groups: Names of the frozen groups.
        channels: Number of their channels.
        macs: At least how many MACs fewer the smallest network would have if one channel of each layer could remain:
            layers that read the channels behind an operator without a rule are not counted.
    """

    operator: str
    reason: str
    source: str
    remedy: str
    groups: tuple[str, ...]
    channels: int
    macs: int


def find_reasons(channels: Channels, contractions: Sequence[Contraction], smallest: Tensor) -> tuple[Reason, ...]:
    """Group the frozen channels by reason, the one with most MACs first.

    Args:
        channels: The channels of a network.
        contractions: Its operators with MACs.
        smallest: Smallest widths `(G,)` of the groups.
    """
    keys = [(group.operator, group.reason, _line(group.source)) for group in channels.frozen]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    of_group = np.array([*(numbers[key] for key in keys), -1])  # the last one: labels that are not frozen
    macs = np.zeros(len(numbers), dtype=object)
    for item in contractions:
        sizes = [_size(channels, labels, smallest) for labels in item.sizes]
        owners = [channels.owner[np.maximum(labels.numpy(), -1)] for labels in item.sizes]
        frozen = [_counts(of_group[owner], len(numbers)) for owner in owners]
        now = math.prod(sizes)
        for number in np.unique(np.concatenate([np.flatnonzero(counts) for counts in frozen] or [[]]).astype(int)):
            pairs = zip(sizes, frozen, strict=True)
            macs[number] += item.factor * (now - math.prod(size - max(int(row[number]) - 1, 0) for size, row in pairs))
    found = []
    for (operator, reason, source), number in numbers.items():
        mine = [group for group, key in zip(channels.frozen, keys, strict=True) if numbers[key] == number]
        names = tuple(dict.fromkeys(group.name for group in mine))
        width = sum(group.width for group in mine)
        found.append(Reason(operator, reason, source, remedy(reason), names, width, int(macs[number])))
    return tuple(sorted(found, key=lambda reason: -reason.macs))


def remedy(reason: str) -> str:
    """Return what a user can change about a reason, or ""."""
    return next((do for words, do in REMEDIES.items() if words in reason), "")


def _line(source: str) -> str:
    """Return the line of a source without its module: the same line may be called by many modules."""
    found = re.fullmatch(r"\S+ \((\S+:\d+: .*)\)", source)
    return found[1] if found else source


def _size(channels: Channels, labels: Tensor, smallest: Tensor) -> int:
    axis = channels.axis(labels)
    return len(labels) if axis is None else int(axis.size(smallest))


def _counts(numbers: np.ndarray, length: int) -> np.ndarray:
    return np.bincount(numbers[numbers >= 0], minlength=length)
