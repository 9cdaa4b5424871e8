"""A machine for tests: what latency is on it can be computed by hand."""

from torch import nn

from gnnrl_lightning.trees import call

RAN = []
"""Networks and operators that `counted` has run."""


def counted(network, inputs):
    """A back end that notes what it runs."""
    RAN.append(network)
    return lambda: call(network, inputs)


PER_WEIGHT, PER_OUTPUT, PER_NETWORK = 1e-3, 1e-2, 0.05


def linear_ms(inputs, outputs):
    return PER_WEIGHT * inputs * outputs + PER_OUTPUT * outputs


class FakeTimer:
    """Linear layers take time by their weights and outputs, whole networks a tenth longer and a little more.

    Attributes:
        cells: Number of operators that were measured.
        networks_measured: Number of whole networks that were measured.
        surprise: Widths of the hidden layers of a whole network -> factor of its time; may be set at any time.
    """

    def __init__(self):
        self.cells = self.networks_measured = 0
        self.surprise = lambda widths: 1.0

    def check(self, network):
        """It runs all of them."""

    def operators(self, cells):
        self.cells += len(cells)
        return [linear_ms(inputs, outputs) if form.key.startswith("linear") else 0.0 for form, inputs, outputs in cells]

    def networks(self, networks):
        self.networks_measured += len(networks)
        return [self.surprise(hidden(network)) * network_ms(network) for network in networks]


def linears(network):
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def hidden(network):
    return tuple(layer.out_features for layer in linears(network)[:-1])


def network_ms(network):
    times = [linear_ms(layer.in_features, layer.out_features) for layer in linears(network)]
    return PER_NETWORK + 1.1 * sum(times)
