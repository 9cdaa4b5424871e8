"""A graph network that reads dense networks and says what to expect of their candidates: means of the surrogate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.rl.policies.ablations import ABLATIONS
from gnnrl_lightning.rl.policies.heads import DecisionEncoder, mlp
from gnnrl_lightning.rl.policies.readout import mean_over_decisions
from gnnrl_lightning.rl.state.assemble import join_states
from gnnrl_lightning.rl.state.builder import StateBuilder
from gnnrl_lightning.surrogate.prior import Prior
from gnnrl_lightning.surrogate.sensitivity import Sensitivity


@dataclass(frozen=True)
class Read:
    """A dense network as the prior network reads it.

    Attributes:
        state: State graph of the dense network, without a budget.
        statistics: Log losses of each group at the measured keep ratios `(G, K)`.
        flat: Prior of its surrogate that depends on the number of groups alone.
    """

    state: Any
    statistics: Tensor
    flat: Prior


def read(graph: ComputationGraph, sensitivity: Sensitivity, flat: Prior) -> Read:
    """Read a traced network with its sensitivity."""
    statistics = sensitivity.statistics.float()
    state = StateBuilder(graph, statistics)(graph.widths[None], torch.ones(1, 2))
    return Read(state, statistics, flat)


class PriorNetwork(nn.Module):
    """Means of the coefficients of surrogates; standard deviations, slope and noise stay those of the flat prior.

    A mean is in units of the flat prior's standard deviation. Coefficients of the terms of a group are read from the
    embedding of the group.

    Args:
        state_dim: Features of a node of the state graph.
        statistics: Keep ratios at which the sensitivity is measured.
        hidden: Size of the hidden layers.
        ablation: What is taken from the graph, a key of `ABLATIONS` of the policies; None: nothing.
    """

    def __init__(self, state_dim: int, statistics: int = 4, hidden: int = 32, ablation: str | None = None) -> None:
        super().__init__()
        self.change = None if ablation is None else ABLATIONS[ablation]
        self.groups = DecisionEncoder(state_dim, None)
        self.reduce = nn.Sequential(nn.Linear(self.groups.out_features + statistics + 1, hidden), nn.Tanh())
        self.single = mlp([hidden, hidden, 3], last_gain=0.01)
        self.whole = mlp([hidden, hidden, 1], last_gain=0.01)

    def forward(self, networks: Sequence[Read]) -> list[Prior]:
        """Priors of networks."""
        state: Any = join_states([network.state for network in networks])
        state = state if self.change is None else self.change(state)
        counts = torch.tensor([len(network.statistics) for network in networks])
        statistics = torch.cat([network.statistics for network in networks]) / 5 + 0.5
        size = counts.repeat_interleave(counts)[:, None].log() / 2 - 1
        h = self.reduce(torch.cat([self.groups(state), statistics, size], 1))
        single, whole = self.single(h).double(), self.whole(mean_over_decisions(h, state)).double()
        found, start = [], 0
        for network, count, slope in zip(networks, counts.tolist(), whole, strict=True):
            each = single[start : start + count]
            change = torch.cat([torch.zeros(1).double(), slope, each.T.flatten()])
            found.append(replace(network.flat, mean=network.flat.mean + network.flat.scale * change))
            start += count
        return found
