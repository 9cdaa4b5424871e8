"""Widths chosen by torch-pruning, if it is installed and supports the network."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.search.problem import NotApplicable, SearchProblem
from gnnrl_lightning.tracing.groups import ChannelGroup
from gnnrl_lightning.trees import call

PROBES = 12
"""Number of bisection steps on the pruning ratio."""


@dataclass(frozen=True)
class TorchPruning:
    """A single candidate from torch-pruning's magnitude pruner (l2 over whole groups).

    Bisection finds the smallest pruning ratio whose network meets the budget. The widths are read from that network's
    weights and projected, because torch-pruning does not use up the budget. Layers whose outputs are not prunable here
    are ignored.

    Args:
        everywhere: Whether the channels of all groups compete (`global_pruning`); else all groups lose the same share.

    Source: https://github.com/VainF/Torch-Pruning; Fang et al., DepGraph, https://arxiv.org/abs/2301.12900.
    """

    everywhere: bool

    def __call__(self, problem: SearchProblem) -> Tensor:
        """Widths `(G,)`.

        Raises:
            NotApplicable: torch-pruning is not installed, fails, or its network matches no candidate of this graph.
        """
        if find_spec("torch_pruning") is None:
            raise NotApplicable("torch-pruning is not installed")
        low, high, found = 0.0, 1.0, None
        for _ in range(PROBES):
            middle = (low + high) / 2
            widths = self._widths(problem, middle)
            if problem.limits.met(widths):
                high, found = middle, widths
            else:
                low = middle
        if found is None:
            raise NotApplicable("torch-pruning meets the budget at no pruning ratio")
        return problem.project(found)

    def _widths(self, problem: SearchProblem, ratio: float) -> Tensor:
        """Widths of torch-pruning's network at a pruning ratio."""
        import torch_pruning  # pyright: ignore[reportMissingImports]

        graph, network = problem.graph, independent_copy(problem.network)
        prunable = {member.parameter.rpartition(".")[0] for group in graph.groups for member in _made_by(group)}
        layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
        ignored: list[nn.Module] = [
            module for name, module in network.named_modules() if isinstance(module, layers) and name not in prunable
        ]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch_pruning.pruner.MagnitudePruner(
                    network,
                    problem.example,
                    importance=torch_pruning.importance.MagnitudeImportance(p=2),
                    global_pruning=self.everywhere,
                    pruning_ratio=ratio,
                    ignored_layers=ignored,
                ).step()
                with torch.no_grad():
                    call(network.eval(), problem.example)
        except Exception as error:  # torch-pruning raises exceptions of any type for networks that it does not support
            reason = str(error).strip().splitlines()
            raise NotApplicable(
                f"torch-pruning fails on this network: {type(error).__name__}{': ' + reason[0] if reason else ''}"
            ) from error
        parameters = dict(network.named_parameters(remove_duplicate=False))
        try:
            widths = [_width(group, parameters) if group.sets else group.width for group in graph.groups]
        except UserError as error:
            raise NotApplicable(f"torch-pruning's network matches no candidate: {error}") from error
        return problem.limits.allowed.down(torch.tensor(widths))


def _made_by(group: ChannelGroup) -> list:
    return [member for member in group.members if member.role == "output"]


def _width(group: ChannelGroup, parameters: dict[str, nn.Parameter]) -> int:
    """Width of a group in another network of the same modules.

    Raises:
        UserError: The members of the group have different sizes or are missing.
    """
    sizes = {
        parameters[member.parameter].shape[member.dimension] / group.sets if member.parameter in parameters else 0.0
        for member in group.members
        if member.role == "output"
    }
    if len(sizes) != 1 or not min(sizes).is_integer() or min(sizes) < 1:
        raise UserError(f"{group.name} has {sorted(sizes)} channels: expected one whole number")
    return int(min(sizes))
