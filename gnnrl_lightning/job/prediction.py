"""A trained policy applied to a network, its own or another, without any search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.compression import Compression
from gnnrl_lightning.job.policy_search import allocations, environment
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.rollout import play_without_exploring


@dataclass(frozen=True)
class Prediction:
    """What a policy proposes for a budget.

    Attributes:
        macs_budget: Share of the dense MACs that was asked for.
        ratios: `<metric>_ratio` -> cost relative to the dense network's.
        top1_search: Top-1 accuracy on the search split, percent, before fine-tuning.
        widths: Name of each group -> its width.
    """

    macs_budget: float
    ratios: dict[str, float]
    top1_search: float
    widths: dict[str, int]


def proposal(compression: Compression, agent: GraphLearner, limits: BoundBudget) -> Tensor:
    """Widths `(G,)` that a policy takes for a budget when it does not explore; the dense ones if they meet it.

    Args:
        compression: The network, trained, and its images.
        agent: A module whose policy has been made or loaded.
        limits: What the candidate may cost.
    """
    if limits.met(compression.graph.widths):
        return compression.graph.widths
    search = replace(compression.search, macs_range=None)
    graph, sensitivity = compression.graph, None if search.table is None else compression.sensitivity
    env = environment(graph, limits, search, None, sensitivity, allocations(graph, limits, search, sensitivity))
    play_without_exploring(env, agent.actor_critic, agent.device)
    return env.widths[0]


def predict(compression: Compression, agent: GraphLearner, budgets: Sequence[float]) -> list[Prediction]:
    """The candidates that a policy takes for given budgets when it does not explore, each scored once, as delivered.

    Args:
        compression: The network, trained, its images, and what a candidate is made of.
        agent: A module whose policy has been made or loaded.
        budgets: Shares of the dense MACs, each in place of the budget's.

    Raises:
        UserError: There is no budget, or one of them is no share or cannot be reached.
    """
    if not budgets:
        raise UserError("predict has no budgets: give some, for example --budgets 0.3 0.5 0.7")
    graph = compression.graph
    for share in budgets:
        if not 0 < share < 1:
            raise UserError(f"budgets has {share:g}: expected shares of the dense MACs, above 0 and below 1")
    bound = [(share, compression.limits.with_limits(macs=share)) for share in budgets]
    found, evaluator = [], compression.make_evaluator(pruner=compression.final_pruner())
    for share, limits in bound:
        item = evaluator(proposal(compression, agent, limits), "policy")
        widths = {group.name: width for group, width in zip(graph.groups, item.widths, strict=True)}
        found.append(Prediction(share, limits.ratios(item.costs), item.top1, widths))
    return found


def as_json(compression: Compression, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Predictions as `predict --json` writes them."""
    return {
        "network": compression.task.network.name,
        "dataset": compression.task.data.name,
        "predictions": [_record(prediction) for prediction in predictions],
    }


def _record(prediction: Prediction) -> dict[str, Any]:
    """A prediction in plain JSON types, the ratios among its keys."""
    record = asdict(prediction)
    return {"macs_budget": record.pop("macs_budget"), **record.pop("ratios"), **record}
