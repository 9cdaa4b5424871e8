"""Test networks that take parts of their channels whose sizes are in a ratio, or are integers that a module holds."""

import torch
from torch import nn

from tests.support.networks_zoo import IO, Headed, case, conv


class Cut(Headed):
    """The channels of `a` are cut into parts in `mixed`; each part has a function of its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv(3, 16), conv(16, 5), nn.Linear(5, 10)
        self.quarter, self.eighth, self.three = 4, 2, 3

    def features(self, x):
        return self.b(self.mixed(self.a(x)))


@case({"a": (2, 8), "b": (5, 1)}, IO)
class TemporalShift(Cut):
    """An eighth of the channels moves to the left, an eighth to the right, as far as there are positions."""

    def mixed(self, y):
        fold, moved = y.shape[1] // 8, torch.zeros_like(y)
        moved[:, :fold, :, :-1] = y[:, :fold, :, 1:]
        moved[:, fold : 2 * fold, :, 1:] = y[:, fold : 2 * fold, :, :-1]
        moved[:, 2 * fold :] = y[:, 2 * fold :]
        return moved


@case({"a": (4, 4), "b": (5, 1)}, IO)
class QuartersAndRest(Cut):
    """Two quarters and a half: the half is not tied to the first two, but to each of them."""

    def mixed(self, y):
        n = y.shape[1] // 4
        return torch.cat([y[:, :n].relu(), y[:, n : 2 * n].sigmoid(), y[:, 2 * n :].tanh()], 1)


@case({"a": (4, 4), "b": (5, 1)}, IO)
class NarrowedRatio(Cut):
    def mixed(self, y):
        n = y.shape[1] // 4
        return torch.cat([y.narrow(1, 0, n).relu(), y.narrow(1, n, y.shape[1] - n)], 1)


@case({"a": (4, 1), "a#2": (12, 1), "b": (5, 1)}, IO)
class SliceByAttribute(Cut):
    """The module holds the end of the first part: both are pruned on their own."""

    def mixed(self, y):
        return torch.cat([y[:, : self.quarter].relu(), y[:, self.quarter :]], 1)


@case({"a": (2, 2), "a#2": (12, 1), "b": (5, 1)}, IO)
class TwoSlicesByAttribute(Cut):
    """One attribute is the size of two parts, which are tied; the ellipsis stands for three dimensions or two."""

    def mixed(self, y):
        n = self.eighth
        first, second = y[:, :n, ..., :], y[..., n : 2 * n, :, :]
        return torch.cat([first.relu(), second.sigmoid(), y[:, 2 * n :]], 1)


@case({"a": (4, 2), "a#2": (12, 1), "b": (5, 1)}, IO)
class WriteByAttribute(Cut):
    """What is written into a slice has as many channels as were there: they are tied."""

    def __init__(self):
        super().__init__()
        self.c = conv(4, 4)

    def mixed(self, y):
        y = y + 1
        y[:, : self.quarter] = self.c(y[:, : self.quarter].clone())
        return y


@case({"a": (4, 1), "a#2": (3, 1), "a#3": (9, 1), "b": (5, 1)}, IO)
class SplitByAttributes(Cut):
    """The last size follows from the tensor."""

    def mixed(self, y):
        sizes = self.quarter, self.three, y.shape[1] - self.quarter - self.three
        first, second, third = y.split(sizes, 1)
        return torch.cat([third, second.sigmoid(), first.relu()], 1)


@case({"a": (4, 2), "a#2": (12, 1), "c": (3, 1), "b": (5, 1)}, IO)
class SplitOfTheWhole(Cut):
    """The module holds the sizes of one part and of all; the part has as many channels as one of another layer."""

    def __init__(self):
        super().__init__()
        self.all, self.c = 16, conv(4, 10)

    def mixed(self, y):
        first, second = y.split([self.quarter, self.all - self.quarter], 1)
        gates, one, two = self.c(first).split([self.quarter, self.three, self.three], 1)
        return torch.cat([gates.view(len(y), self.quarter, *y.shape[2:]) + (one * two).mean(1, True), second], 1)


@case({"a#2": (12, 1), "b": (5, 1)}, IO | {"a": 4}, reason={"a": "[:, :4] gives"})
class ConstantPart(Cut):
    """The code fixes the size of one part: the other one is pruned."""

    def mixed(self, y):
        return torch.cat([y[:, :4].relu(), y[:, 4:].sigmoid()], 1)


@case({"a": (4, 1), "a#2": (12, 1), "recursive.enter": (2, 1), "recursive.enter#2": (4, 1), "b": (5, 1)}, IO)
class SplitBySumsOfAList(Cut):
    """Sizes that a list holds, its sum and one of its items: recursive gated convolutions."""

    class Recursive(nn.Module):
        def __init__(self):
            super().__init__()
            self.widths = [2, 4]
            self.enter, self.deep = conv(4, 8, 1), conv(6, 6, groups=6)
            self.grow, self.leave = conv(2, 4, 1), conv(4, 4, 1)

        def forward(self, x):
            first, rest = torch.split(self.enter(x), (self.widths[0], sum(self.widths)), 1)
            parts = torch.split(self.deep(rest) * 0.5, self.widths, 1)
            return self.leave(self.grow(first * parts[0]) * parts[1])

    def __init__(self):
        super().__init__()
        self.recursive = self.Recursive()

    def mixed(self, y):
        first, second = y[:, : self.quarter], y[:, self.quarter :]
        return torch.cat([first + self.recursive(first), second], 1)


@case({"a": (3, 1), "b": (5, 1)}, IO | {"a": 1}, reason={"a": "is used apart from the other channels"})
class AllButOneByAttribute(Headed):
    """Channels and their cheap copies, without the last copy, to an odd number of outputs: GhostNet."""

    def __init__(self):
        super().__init__()
        self.a, self.cheap, self.b, self.head = conv(3, 4), conv(4, 4, groups=4), conv(7, 5), nn.Linear(5, 10)
        self.outputs = 7

    def features(self, x):
        x = self.a(x)
        return self.b(torch.cat([x, self.cheap(x.relu())], 1)[:, : self.outputs])
