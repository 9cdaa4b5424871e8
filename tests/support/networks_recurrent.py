"""Test networks with recurrent layers."""

import torch
from torch import nn

from tests.support.networks_zoo import case


class Recurrent(nn.Module):
    """A layer per step, a recurrent one, a linear one, and the head."""

    def __init__(self, rnn, read):
        super().__init__()
        self.embed, self.rnn, self.fc, self.head = nn.Linear(12, 6), rnn, nn.Linear(read, 5), nn.Linear(5, 10)

    def forward(self, x):
        return self.head(self.fc(self.states(self.embed(x))).relu())


SEQUENCE, ENDS = ((2, 5, 12),), {"x": 5, "head": 10}


def widths(hidden, sets=1):
    return {"embed": (6, 1), "rnn": (hidden, sets), "fc": (5, 1)}


@case(widths(4, 4), ENDS, SEQUENCE)
class LSTM(Recurrent):
    """Two layers in both directions; the last states of both are read."""

    def __init__(self):
        super().__init__(nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True), 8)

    def states(self, x):
        _, (h, _) = self.rnn(x)
        return torch.cat([h[-2], h[-1]], 1)


@case(widths(7), ENDS, SEQUENCE)
class GRU(Recurrent):
    """One layer, time first; the output is averaged."""

    def __init__(self):
        super().__init__(nn.GRU(6, 7), 7)

    def states(self, x):
        return self.rnn(x.transpose(0, 1))[0].mean(0)


@case(widths(4, 2), ENDS, SEQUENCE)
class SimpleRecurrence(Recurrent):
    """No biases; the states of both layers are flattened."""

    def __init__(self):
        super().__init__(nn.RNN(6, 4, 2, bias=False, nonlinearity="relu", batch_first=True), 8)

    def states(self, x):
        return self.rnn(x)[1].transpose(0, 1).flatten(1)


@case(widths(7), ENDS, SEQUENCE)
class LSTMSteps(Recurrent):
    """A cell that is called for each step."""

    def __init__(self):
        super().__init__(nn.LSTMCell(6, 7), 7)

    def states(self, x):
        h = c = x.new_zeros(len(x), self.rnn.hidden_size)
        for step in x.unbind(1):
            h, c = self.rnn(step, (h, c))
        return h


@case({"encoder": (7, 1)}, {"x": 5, "head": 10}, SEQUENCE)
class EncoderDecoder(nn.Module):
    """The last states of one layer are the first ones of another: they share their units."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.GRU(12, 7, batch_first=True), nn.GRU(12, 7, batch_first=True)
        self.head = nn.Linear(7, 10)

    def forward(self, x):
        return self.head(self.decoder(x, self.encoder(x)[1])[0])
