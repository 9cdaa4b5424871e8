"""A graph network that reads a network's graph and says what to expect of its candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.rl.encoders import Encoder
from gnnrl_lightning.rl.policies.actor_critic import DecisionEncoder, mlp
from gnnrl_lightning.rl.policies.readout import mean_over_decisions
from gnnrl_lightning.rl.state.assemble import join_states
from gnnrl_lightning.rl.state.builder import StateBuilder
from gnnrl_lightning.rl.state.graph import StateGraph
from gnnrl_lightning.surrogate.model import LINEAR, PAIR, SHARE, SLOPE, SQUARE, Prior
from gnnrl_lightning.surrogate.sensitivity import Sensitivity
from gnnrl_lightning.surrogate.terms import neighbours

@dataclass(frozen=True)
class Read:
    """A dense network as the prior network reads it.

    Attributes:
        state: State graph of the dense network, without a budget.
        statistics: Log losses of each group at the measured keep ratios `(G, K)`.
        pairs: Neighbouring groups `(2, P)`.
    """

    state: StateGraph
    statistics: Tensor
    pairs: Tensor


def read(graph: ComputationGraph, sensitivity: Sensitivity) -> Read:
    """Read a traced network with its sensitivity."""
    statistics = sensitivity.statistics.float()
    builder = StateBuilder(graph, statistics)
    state = builder(graph.widths[None], torch.ones(1, 2))
    return Read(state, statistics, neighbours(graph))


class PriorNetwork(nn.Module):
    """Reads dense networks and returns the prior of each one's surrogate.

    For each group it puts out mean and standard deviation of the coefficients of log keep ratio and its square, for
    each pair of neighbours those of the product, and for the network the slope, the process and the noise.

    Args:
        state_dim: Features of a node of the state graph.
        statistics: Keep ratios at which the sensitivity is measured.
        encoder: Graph encoder.
        hidden: Size of the hidden layers.
    """

    def __init__(
        self, state_dim: int, statistics: int = 4, encoder: str | Encoder = "MultiStage", hidden: int = 32
    ) -> None:
        super().__init__()
        self.groups = DecisionEncoder(state_dim, None, encoder)
        size = self.groups.out_features + statistics + 1
        self.reduce = nn.Sequential(nn.Linear(size, hidden), nn.Tanh())
        self.single = mlp([hidden, hidden, 6], last_gain=0.01)
        self.pair = mlp([2 * hidden, hidden, 2], last_gain=0.01)
        self.whole = mlp([hidden, hidden, 5], last_gain=0.01)

    def forward(self, networks: Sequence[Read]) -> list[Prior]:
        """Priors of networks."""
        state = join_states([network.state for network in networks])
        counts = [len(network.statistics) for network in networks]
        statistics = torch.cat([network.statistics for network in networks]) / 5 + 0.5
        size = torch.tensor(counts).repeat_interleave(torch.tensor(counts))[:, None].log() / 2 - 1
        h = self.reduce(torch.cat([self.groups(state), statistics, size], 1))
        single, whole = self.single(h).double(), self.whole(mean_over_decisions(h, state)).double()
        starts = torch.tensor([0, *counts]).cumsum(0)[:-1].tolist()
        found = []
        for number, (network, start, count) in enumerate(zip(networks, starts, counts, strict=True)):
            own = h[start : start + count]
            first, second = own[network.pairs[0]], own[network.pairs[1]]
            pair = self.pair(torch.cat([first + second, (first - second).abs()], 1)).double()
            found.append(_prior(single[start : start + count], pair, whole[number]))
        return found


def _prior(single: Tensor, pair: Tensor, whole: Tensor) -> Prior:
    """The prior of raw outputs for G groups, P pairs and the network; zeros make that of `flat_prior`."""
    share, ones = math.sqrt(10 / len(single)), whole.new_ones(1)
    means, scales = [0 * ones, SLOPE[0] + SLOPE[1] * whole[:1]], [10 * ones, SLOPE[1] * whole[1:2].exp()]
    for column, typical in enumerate((LINEAR, SQUARE, SHARE)):
        means.append(share * typical * single[:, column])
        scales.append(share * typical * single[:, 3 + column].exp())
    means.append(share * PAIR * pair[:, 0])
    scales.append(share * PAIR * pair[:, 1].exp())
    typical = Prior(ones, ones)
    amplitude, length, noise = (
        value * whole[place].clamp(-4, 4).exp()
        for place, value in ((2, typical.amplitude), (3, typical.length), (4, typical.noise))
    )
    return Prior(torch.cat(means), torch.cat(scales), amplitude, length, noise)  # pyright: ignore[reportArgumentType]
