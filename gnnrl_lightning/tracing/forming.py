"""Channel groups from labels: interchangeable channels, sets of equal width, and frozen channels.

Channels (connected components of labels) that occur in exactly the same tensor dimensions are interchangeable: they
form an *index set*. Index sets that must keep equal counts (the halves of a chunk, the blocks of a grouped
convolution) form one group; every other index set is a separate group.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gnnrl_lightning.tracing.groups import ChannelGroup, Channels, Fault, FrozenGroup, Member
from gnnrl_lightning.tracing.labels import Parts, Use
from gnnrl_lightning.tracing.reading import read_labels
from gnnrl_lightning.tracing.walk import Walk


def form_groups(walk: Walk, unfit: dict[str, Fault] | None = None) -> Channels:
    """Sort the channels that a walk has found into groups.

    Args:
        walk: The finished walk.
        unfit: Groups that failed a test of the pruned network: name -> fault. They are frozen.
    """
    while (found := _Former(walk).form(unfit or {})) is None:
        pass  # parts that cannot keep the ratio of their sizes are separate now
    return found


def part_otherwise(walk: Walk, channels: Channels, failing: Collection[str]) -> bool:
    """Let parts of the channels of failing groups keep the ratio of their sizes, or be separate if they have kept it.

    The code may compute a size, `x[:, : x.shape[1] // 4]`, or fix it. Each of the two is tried once.

    Args:
        walk: The walk.
        channels: Its groups.
        failing: Names of groups that fail a test of the pruned network.

    Returns:
        Whether anything has changed: then the groups are to be formed again.
    """
    mine = [number for number, group in enumerate(channels.groups) if group.name in failing]
    changed = False
    for cut in walk.labels.cuts:
        labels = cut.labels()
        if not np.isin(channels.place[labels[labels >= 0].numpy(), 0], mine).any():
            continue
        if cut.together or (not cut.tried and cut.unit > 1):
            cut.together, cut.tried, changed = not cut.together, True, True
    return changed


class _Former:
    """Implementation of `form_groups`, with one attribute for each intermediate result."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.channel = walk.labels.solve()
        self.first = np.full(self.channel.max(initial=-1) + 1, np.iinfo(np.int64).max)
        np.minimum.at(self.first, self.channel, np.arange(len(self.channel)))
        self.made = {int(c): None for _, labels in walk.produced for c in self.channel[labels[labels >= 0].numpy()]}
        self.reasons: dict[int, tuple[str, str, str]] = {}
        self.parted = False
        for freeze in walk.labels.frozen:
            self._freeze(self.channel[freeze.labels.numpy()], freeze.operator, freeze.reason, freeze.source)
        self.rows, self.tagged = walk.labels.settle(self.channel)
        self.refined: dict[int, int] = {}  # rows -> number of index sets when they were divided last

    def _freeze(self, channels: np.ndarray, operator: str, reason: str, source: str) -> bool:
        fresh = [int(c) for c in np.unique(channels) if int(c) not in self.reasons]
        self.reasons.update(dict.fromkeys(fresh, (operator, reason, source)))
        return bool(fresh)

    def _tags(self) -> dict[int, bytes]:
        """Return for each channel a key made of the tags of its labels and their counts."""
        if not (tagged := self.tagged):
            return {}
        numbers = np.repeat(np.arange(len(tagged)), [labels.numel() for labels in tagged])
        channels = self.channel[torch.cat([labels.flatten() for labels in tagged]).numpy()]
        codes, counts = np.unique(channels.astype(np.int64) * len(tagged) + numbers, return_counts=True)
        found, starts = np.unique(codes // len(tagged), return_index=True)
        rows = np.stack([codes % len(tagged), counts], 1)
        ends = [*starts[1:].tolist(), len(rows)]
        return {
            channel: rows[start:end].tobytes()
            for channel, start, end in zip(found.tolist(), starts.tolist(), ends, strict=True)
        }

    def _index_sets(self) -> dict[int, int]:
        """Return the index set of each channel that an operator produces, numbered in the order of the labels."""
        numbers: dict[object, int] = {}
        sets, tags = {}, self._tags()
        for channel in sorted(self.made, key=lambda c: self.first[c]):
            key = (tags.get(channel), self.reasons.get(channel))
            sets[channel] = numbers.setdefault(key, len(numbers))
        return sets

    def _ties(self, sets: dict[int, int]) -> tuple[list[tuple[int, int]], bool]:
        """Return pairs of index sets that must keep equal counts, and whether others are to be formed first.

        Index sets of rows that lie differently in each are divided, so that all rows have the same ones; channels that
        cannot be pruned so are frozen, with those of the other rows in their columns.
        """
        pairs: list[tuple[int, int]] = []
        changed = False
        sizes = Counter(sets.values())
        for number, rows in enumerate(self.rows):
            labels, channels, stays = self._lay(rows, sets)
            rigid = stays.any(0)
            if rigid.any() and rows.parts is not None:
                self._separate(rows.parts)
                continue
            if not stays[:, rigid].all():
                changed |= self._freeze_rows(channels[:, rigid], rows)
                continue
            labels, channels = labels[:, ~rigid], channels[:, ~rigid]
            patterns = [[sets[c] for c in row] for row in channels.tolist()]
            renamed = [_renumber(pattern) for pattern in patterns]
            lengths = [[sizes[index] for index in pattern] for pattern in patterns]
            unlike = any(pattern != renamed[0] for pattern in renamed) or any(row != lengths[0] for row in lengths)
            if unlike and self.refined.get(number) != len(sizes):
                columns = np.unique(np.array(patterns), axis=1, return_inverse=True)[1].flatten()
                self.tagged += [torch.from_numpy(labels[:, columns == column]) for column in range(columns.max() + 1)]
                self.refined[number] = len(sizes)
                changed = True
                continue
            if unlike and rows.parts is not None:
                self._separate(rows.parts)
                continue
            if unlike:
                changed |= self._freeze_rows(channels, rows)
                continue
            for pattern in patterns[1:]:
                pairs.extend(set(zip(patterns[0], pattern, strict=True)))
        return pairs, changed

    def _lay(self, rows: Use, sets: dict[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return labels and channels of rows, -1 for fixed positions, and which of them stay.

        Where the order within rows does not matter, those that stay come first.
        """
        labels = rows.labels.numpy()
        channels = np.where(labels >= 0, self.channel[labels], -1)
        stays = np.array([[c not in sets or c in self.reasons for c in row] for row in channels.tolist()])
        if not rows.ordered:
            order = np.argsort(~stays, axis=1, kind="stable")
            labels, channels, stays = (np.take_along_axis(each, order, 1) for each in (labels, channels, stays))
        return labels, channels, stays

    def _separate(self, parts: Parts) -> None:
        """Let parts be separate index sets from now on, for they cannot keep the ratio of their sizes."""
        parts.together, parts.tried, self.parted = False, True, True

    def _freeze_rows(self, channels: np.ndarray, rows: Use) -> bool:
        reason = "must keep equal counts together with channels that cannot be pruned so"
        return self._freeze(channels[channels >= 0], rows.operator, reason, rows.source)

    def form(self, unfit: dict[str, Fault]) -> Channels | None:
        """Form the groups, or return None if parts of channels are separate that were not before."""
        while True:
            sets = self._index_sets()
            if self._freeze_singles(sets):
                continue
            pairs, changed = self._ties(sets)
            if self.parted:
                return None
            if changed:
                continue
            classes = self._join(sets, pairs)
            failed = [(channels, unfit[name]) for name, channels, frozen in classes if not frozen and name in unfit]
            if not failed:
                return self._build(classes)
            for members, fault in failed:
                cut = self._use_of(int(members[0][0]), self._cuts)
                source = fault.source or (cut.source if cut else "")
                self._freeze(np.concatenate(members), "self-test", fault.reason, source)

    def _freeze_singles(self, sets: dict[int, int]) -> bool:
        """Freeze the channels that are the only ones of their index sets."""
        sizes, changed = Counter(sets.values()), False
        for channel in [channel for channel, number in sets.items() if sizes[number] == 1]:
            if channel not in self.reasons:
                changed |= self._freeze(np.array([channel]), *self._why_single(channel))
        return changed

    def _use_of(self, channel: int, uses: Sequence[Use]) -> Use | None:
        """Return the first of the given uses of a channel."""
        return next((use for use in uses if (self.channel[use.labels[use.labels >= 0].numpy()] == channel).any()), None)

    @property
    def _cuts(self) -> list[Use]:
        """Uses of each of the parts of channels."""
        return [Use(part, cut.operator, cut.source) for cut in self.walk.labels.cuts for part in cut.parts]

    def _why_single(self, channel: int) -> tuple[str, str, str]:
        """Return operator, reason and source of a group that has only one channel."""
        for _, labels in self.walk.produced:
            if np.count_nonzero(self.channel[labels[labels >= 0].numpy()] == channel) > 1:
                return "layer", "is one channel, for all channels of its layer go together", ""
        cut = self._use_of(channel, [*self._cuts, *self.rows])
        if cut is None:
            return "layer", "is the only channel of its layer", ""
        return cut.operator, "is used apart from the other channels of its layer", cut.source

    def _join(self, sets: dict[int, int], pairs: list[tuple[int, int]]) -> list[tuple[str, list[np.ndarray], bool]]:
        """Return groups as (name, channels of each index set, frozen?), in the order in which they are produced."""
        count, (a, b) = max(sets.values(), default=-1) + 1, np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        joined = coo_array((np.ones(len(pairs), dtype=bool), (a, b)), shape=(count, count))
        group_of = connected_components(joined, directed=False)[1] if count else np.empty(0, dtype=np.int64)
        members: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for channel, index in sets.items():
            members[int(group_of[index])][index].append(channel)
        names: dict[int, str] = {}
        taken: dict[str, int] = defaultdict(int)
        for module, labels in self.walk.produced:
            for channel in dict.fromkeys(self.channel[labels[labels >= 0].numpy()].tolist()):
                group = int(group_of[sets[channel]])
                if group not in names:
                    taken[module] += 1
                    names[group] = module if taken[module] == 1 else f"{module}#{taken[module]}"
        return [
            (
                name,
                [np.array(channels) for channels in members[group].values()],
                next(iter(next(iter(members[group].values())))) in self.reasons,
            )
            for group, name in names.items()
        ]

    def _build(self, classes: list[tuple[str, list[np.ndarray], bool]]) -> Channels:
        place = np.full((max(len(self.channel), 1), 3), -1, dtype=np.int64)
        frozen = [FrozenGroup(*item) for item in self.walk.unlabelled]
        together: dict[tuple[str, str, str, str], int] = {}
        kept: list[tuple[str, list[np.ndarray]]] = []
        by_channel = np.full((len(self.first), 3), -1, dtype=np.int64)
        owner = np.full(len(self.first), -1, dtype=np.int64)
        for name, members, is_frozen in classes:
            if is_frozen:
                why = self.reasons[int(members[0][0])]
                key = (name.split("#")[0], *why)
                together[key] = together.get(key, 0) + sum(len(m) for m in members)
                owner[np.concatenate(members)] = len(frozen) + list(together).index(key)
                continue
            for row, channels in enumerate(members):
                by_channel[channels, 0] = len(kept)
                by_channel[channels, 1] = row
                by_channel[channels, 2] = np.arange(len(channels))
            kept.append((name, members))
        for (name, operator, reason, source), width in together.items():
            frozen.append(FrozenGroup(name, width, operator, reason, source))
        place[: len(self.channel)] = by_channel[self.channel]
        found, least = self._members(place), self._least(place)
        groups = tuple(
            ChannelGroup(name, len(members[0]), tuple(found[i]), len(members), min(least.get(i, 1), len(members[0])))
            for i, (name, members) in enumerate(kept)
        )
        return Channels(groups, tuple(frozen), place, np.append(owner[self.channel], -1), self.channel)

    def _least(self, place: np.ndarray) -> dict[int, int]:
        """Return how many channels of each index set of groups must remain, see `Walk.least`, if it is not one."""
        found: dict[int, int] = {}
        for labels, least in self.walk.least:
            channels = place[labels[labels >= 0].numpy()]
            free = channels[channels[:, 0] >= 0]
            if len(np.unique(free, axis=0)) < len(free):
                continue  # a channel has several values
            sets = np.unique(free[:, :2], axis=0)
            for group in np.unique(sets[:, 0]).tolist():
                needed = math.ceil((least - len(labels) + len(free)) / len(sets))
                found[group] = max(found.get(group, 1), needed)
        return found

    def _members(self, place: np.ndarray) -> dict[int, list[Member]]:
        made = {label for _, labels in self.walk.produced for label in labels.tolist() if label >= 0}
        read = read_labels(self.walk)
        found: dict[int, list[Member]] = defaultdict(list)
        for name, value in self.walk.parameters.items():
            for dim in range(len(value.shape)):
                labels = value.along(dim)
                if labels is None:
                    continue
                first = int(labels[0])
                role = "output" if first in made else "input" if first in read else "channel"
                for group in np.unique(place[labels.numpy(), 0]):
                    if group >= 0:
                        found[int(group)].append(Member(name, dim, role))
        for contraction in self.walk.contractions:
            if contraction.weight and contraction.reads is not None and contraction.reads.dim() == 2:
                for group in np.unique(place[contraction.reads.numpy().flatten(), 0]):
                    if group >= 0:
                        found[int(group)].append(Member(contraction.weight, 1, "input"))
        return found


def _renumber(pattern: list[int]) -> list[int]:
    numbers: dict[int, int] = {}
    return [numbers.setdefault(item, len(numbers)) for item in pattern]
