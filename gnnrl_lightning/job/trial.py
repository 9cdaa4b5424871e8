"""The user's own importance, repairs and sensitivity are tried once, before anything is trained or measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.cost.projection import AllowedWidths
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance import Calibration, try_own_importance
from gnnrl_lightning.job.job import Job
from gnnrl_lightning.module_state import state_tensors
from gnnrl_lightning.networks import check_runs, not_finite
from gnnrl_lightning.registry import Registry
from gnnrl_lightning.repair.table import REPAIRS
from gnnrl_lightning.search.baselines import uniform
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.surrogate.sensitivity import Sensitivity, ratios_for
from gnnrl_lightning.trees import shapes

LOSSES = "(pruner, ratios (K,), advance) -> a tensor of losses (G, K)"
"""What is expected of a sensitivity."""


def try_own(job: Job, network: nn.Module, calibration: Calibration) -> None:
    """Refuse an importance, a repair or a sensitivity of the user's own that fails, before the network is trained.

    Each is tried once, on a few examples and the network as it is, trained or not. What has a name in a table is not
    tried.

    Raises:
        UserError: One of them fails, returns what is not expected, or modifies the dense network.
    """
    graph, limits, options = job.graph, job.limits, job.options
    importance = options.candidate.importance
    with unmodified(network, f"importance {Registry.name_of(importance)}"):
        try_own_importance(graph, network, importance, calibration)
    # Importance does not matter here, and that of an untrained network need not be finite.
    scores = [torch.ones(size) for size in zip(graph.sets.tolist(), graph.widths.tolist(), strict=True)]
    made = {"objective": calibration.objective, "scores": scores}
    repairs = [options.candidate.repair, options.delivery.repair]
    for repair in repairs[: 1 if repairs[0] == repairs[1] else 2]:
        if _is_own(repair, REPAIRS):
            with unmodified(network, f"repair {Registry.name_of(repair)}"):
                _try_repair(Pruner(graph, network, calibration.inputs, repair=repair, **made), limits)
    sensitivity = options.search.sensitivity
    if sensitivity is not None and _is_own(sensitivity, SENSITIVITIES):
        with unmodified(network, f"sensitivity {Registry.name_of(sensitivity)}"):
            pruner = Pruner(graph, network, calibration.inputs, repair="none", **made)
            _try_sensitivity(sensitivity, pruner, limits)


def _is_own(given: Any, table: Registry[Any]) -> bool:
    return not (isinstance(given, str) and given in table)


def make_sensitivity(
    given: Any, pruner: Pruner, allowed: AllowedWidths, advance: Callable[[], None] = lambda: None
) -> Sensitivity:
    """Measure a sensitivity.

    Args:
        given: Name, import path or row.
        pruner: Provides the dense network and the calibration examples.
        allowed: Widths that the groups may have.
        advance: Called after each group.

    Raises:
        UserError: It is unknown, fails, or its losses have another shape or are not finite.
    """
    row = SENSITIVITIES.find(given)
    with SENSITIVITIES.calling(row, Registry.name_of(given), LOSSES):
        return row.make(pruner, advance, allowed)


def _try_sensitivity(given: Any, pruner: Pruner, limits: BoundBudget) -> None:
    """Measure a sensitivity; that of an untrained network need not be finite."""
    row, ratios, name = SENSITIVITIES.find(given), ratios_for(limits.allowed), Registry.name_of(given)
    with SENSITIVITIES.calling(row, name, LOSSES):
        losses: Any = row.measure(pruner, ratios, lambda: None)
    expected = (len(pruner.scores), len(ratios))
    shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else None
    if shape != expected:
        what = f"a {type(losses).__name__}" if shape is None else f"a tensor of shape {shape}"
        raise UserError(f"sensitivity {name} returns {what}: expected a tensor of losses of shape {expected}, (G, K)")


def _try_repair(pruner: Pruner, limits: BoundBudget) -> None:
    """Prune a network uniformly, repair it, and run it."""
    name, inputs = Registry.name_of(pruner.repair), pruner.calibration
    pruned = pruner.prune(pruner.plan(uniform(pruner.graph, limits)))
    if (found := not_finite(state_tensors(pruned))) is not None:
        raise UserError(f"repair {name} leaves {found}: expected finite numbers")
    try:
        outputs = shapes(check_runs(pruned, inputs))
    except UserError as error:
        raise UserError(f"repair {name} leaves a network that does not run: {error.__cause__}; change it") from error
    expected = shapes(check_runs(pruner.network, inputs))
    if outputs != expected:
        raise UserError(f"repair {name} leaves a network with outputs of {outputs}: expected {expected}")


@contextmanager
def unmodified(network: nn.Module, who: str) -> Iterator[None]:
    """Refuse that a network is modified within this block, by what the message calls `who`.

    Raises:
        UserError: A parameter or buffer is not as it was.
    """
    before = {name: tensor.clone() for name, tensor in state_tensors(network).items()}
    yield
    after = state_tensors(network)
    changed = [name for name, tensor in before.items() if name not in after or not _same(tensor, after[name])]
    if changed:
        raise UserError(f"{who} modifies {changed[0]} of the dense network: expected it unchanged, so work on a copy")


def _same(before: torch.Tensor, after: torch.Tensor) -> bool:
    return before.shape == after.shape and bool(torch.equal(before.nan_to_num(), after.nan_to_num()))
