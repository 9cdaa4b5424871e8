"""What policies and critics are made of: embeddings of decisions, actors' heads, and the critic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.rl.encoders import ENCODERS, Encoder
from gnnrl_lightning.rl.policies.readout import check_count, decision_mean, graph_mean, one_count, to_decisions
from gnnrl_lightning.rl.state.graph import StateGraph

Head = Callable[[int, int | None], nn.Module]
"""`(number of node features, decisions per graph) -> actor or critic`; the latter is None if it differs by graph."""


def mlp(sizes: list[int], last_gain: float) -> nn.Sequential:
    """MLP with tanh activations, orthogonal weights and zero biases; the last layer is linear with gain last_gain."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        last = number == len(sizes) - 2
        linear = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(linear.weight, last_gain if last else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*layers)


_CODES = "the head 'identity', with its embedding of each decision,"


class DecisionEncoder(nn.Module):
    """Embeds each decision.

    The embedding concatenates the weighted mean of the embeddings and features of the decision's nodes, the embedding
    of the whole graph and, if `identity` is positive, a learned identity embedding, which distinguishes decisions with
    equal features.

    Args:
        state_dim: Number of node features.
        action_dim: Decisions per graph; only identity embeddings depend on it.
        encoder: Graph encoder: a function of the number of node features, a name or an import path.
        identity: Size of the identity embeddings; 0: none.

    Shapes:
        A batch of graphs with D decisions in total to (D, out_features).

    Raises:
        ValueError: There are identity embeddings, and a graph has another number of decisions.
    """

    def __init__(
        self, state_dim: int, action_dim: int | None, encoder: str | Encoder = "MultiStage", identity: int = 0
    ) -> None:
        super().__init__()
        self.encoder: Any = ENCODERS.find(encoder)(state_dim)
        self.codes = nn.Parameter(torch.randn(one_count(action_dim, _CODES), identity)) if identity else None
        self.out_features = 2 * int(self.encoder.out_features) + state_dim + identity

    def forward(self, state: StateGraph) -> Tensor:
        """Embedding of each decision, (D, out_features)."""
        h = self.encoder(state)
        parts = [decision_mean(torch.cat([h, state.x], dim=1), state), to_decisions(graph_mean(h, state), state)]
        if self.codes is not None:
            check_count(state, len(self.codes), _CODES)
            parts.append(self.codes.repeat(state.num_graphs, 1))
        return torch.cat(parts, dim=1)


class NodeActor(nn.Module):
    """One MLP, shared by all decisions, over the embedding of each decision.

    Args:
        state_dim: Number of node features.
        action_dim: Decisions per graph; used only if `identity` is positive.
        encoder: Graph encoder, as for `DecisionEncoder`.
        hidden: Size of the hidden layers.
        identity: Size of the identity embeddings of `DecisionEncoder`. Without them (0), the head supports every
            network; with them, only networks with action_dim decisions.
        outputs: Outputs per decision; 2 for the parameters of a `UnitDistribution`, 3 with the log-odds of removal.

    Shapes:
        A batch of graphs with D decisions in total to (D, outputs).

    Raises:
        ValueError: There are identity embeddings, and a graph has another number of decisions.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        encoder: str | Encoder = "MultiStage",
        hidden: int = 64,
        identity: int = 0,
        outputs: int = 2,
    ) -> None:
        super().__init__()
        self.decisions = DecisionEncoder(state_dim, action_dim, encoder, identity)
        self.mlp = mlp([self.decisions.out_features, hidden, hidden, outputs], last_gain=0.01)

    def forward(self, state: StateGraph) -> Tensor:
        """Outputs for each decision."""
        return self.mlp(self.decisions(state))


class GraphActor(nn.Module):
    """The paper's head: an MLP from the embedding of the graph to the outputs of all decisions.

    Args:
        state_dim: Number of node features.
        action_dim: Decisions per graph; the head supports only graphs with this number.
        encoder: Graph encoder, as for `DecisionEncoder`.
        hidden: Sizes of the hidden layers.
        outputs: Outputs per decision; 2 for the parameters of a `UnitDistribution`, 3 with the log-odds of removal.

    Shapes:
        A batch of B graphs with action_dim decisions each to (B action_dim, outputs).

    Raises:
        ValueError: A graph has another number of decisions.

    Source: GNN-RL (ICML 2022), section 4.3.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int | None,
        encoder: str | Encoder = "MultiStage",
        hidden: tuple[int, ...] = (50, 50, 200),
        outputs: int = 2,
    ) -> None:
        super().__init__()
        self.action_dim, self.outputs = one_count(action_dim, "the head 'graph'"), outputs
        self.encoder: Any = ENCODERS.find(encoder)(state_dim)
        self.mlp = mlp([int(self.encoder.out_features), *hidden, outputs * self.action_dim], last_gain=0.01)

    def forward(self, state: StateGraph) -> Tensor:
        """Outputs for each decision."""
        check_count(state, self.action_dim, "the head 'graph'")
        return self.mlp(graph_mean(self.encoder(state), state)).view(-1, self.outputs)


class Critic(nn.Module):
    """Value of a state: an MLP over the embedding of the graph.

    Args:
        state_dim: Number of node features.
        action_dim: Decisions per graph; not used.
        encoder: Graph encoder, as for `DecisionEncoder`.
        hidden: Size of the hidden layer.

    Shapes:
        A batch of B graphs to (B,).
    """

    def __init__(
        self, state_dim: int, action_dim: int | None, encoder: str | Encoder = "MultiStage", hidden: int = 64
    ) -> None:
        super().__init__()
        self.encoder: Any = ENCODERS.find(encoder)(state_dim)
        self.mlp = mlp([int(self.encoder.out_features), hidden, 1], last_gain=0.1)

    def forward(self, state: StateGraph) -> Tensor:
        """Expected return of each state of the batch."""
        return self.mlp(graph_mean(self.encoder(state), state)).squeeze(-1)


IDENTITY = 32
"""Size of the identity embeddings of decisions, where there are some."""

HEADS: dict[str, Callable[..., nn.Module]] = {
    "node": NodeActor,
    "identity": partial(NodeActor, identity=IDENTITY),
    "graph": GraphActor,
}
"""Name -> actor, a function of the number of node features, decisions per graph, encoder and outputs."""
