"""Application of a trained policy to a network, its own or another, without a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from gnnrl_lightning.checks import instance, real, shown
from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.objective.protocol import record
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.rollout import play_without_exploring


@dataclass(frozen=True)
class Prediction:
    """The widths that a policy proposes, or a search has found, for a budget.

    Attributes:
        macs_budget: The budget, a share of the dense MACs.
        ratios: `<metric>_ratio` -> cost relative to that of the dense network.
        scores: The objective's figures on the holdout, before fine-tuning.
        widths: Name of each group -> its width.
    """

    macs_budget: float
    ratios: dict[str, float]
    scores: dict[str, float]
    widths: dict[str, int]

    @classmethod
    def of(cls, graph: ComputationGraph, limits: BoundBudget, macs_budget: float, item: Evaluation) -> Prediction:
        """The prediction of an evaluated candidate.

        Args:
            graph: The traced network.
            limits: Any budget of the network.
            macs_budget: The budget of the prediction, a share of the dense MACs.
            item: The candidate.
        """
        widths = {group.name: width for group, width in zip(graph.groups, item.widths, strict=True)}
        return cls(macs_budget, limits.ratios(item.costs), item.scores, widths)

    def as_record(self) -> dict[str, Any]:
        """The prediction in plain JSON types, with a key for each ratio and figure."""
        row = asdict(self)
        scores = {f"{name}_search": value for name, value in row.pop("scores").items()}
        return {"macs_budget": row.pop("macs_budget"), **row.pop("ratios"), **scores, **row}


def front_figures(
    graph: ComputationGraph, limits: BoundBudget, front: Mapping[float, Evaluation]
) -> dict[str, list[dict[str, Any]]]:
    """Return what a search over a range of budgets has found, as `predict` writes its predictions.

    Args:
        graph: The traced network.
        limits: Any budget of the network.
        front: Share of the dense MACs -> its best candidate; empty without a range.

    Returns:
        `{"front": predictions}`, or nothing.
    """
    if not front:
        return {}
    return {"front": [Prediction.of(graph, limits, share, item).as_record() for share, item in front.items()]}


def proposal(trained: Trained, agent: GraphLearner, limits: BoundBudget) -> Tensor:
    """Return the widths `(G,)` that a policy proposes for a budget without exploring; the dense ones if they meet it.

    Args:
        trained: The job with its trained dense network.
        agent: A learner whose policy has been created or loaded.
        limits: Upper limits on the costs of the candidate.
    """
    job = trained.job
    if limits.met(job.graph.widths):
        return job.graph.widths
    environments = job.environments(limits, job.options.episode.for_one_budget(job.options.measure()))
    env = environments.make(None, None if environments.measure is None else trained.sensitivity)
    play_without_exploring(env, agent.policy, agent.device)
    return env.widths[0]


def check_budgets(budgets: Sequence[float]) -> None:
    """Refuse budgets of a prediction that are not shares of the dense MACs.

    Raises:
        UserError: There is none, or one of them is not a share.
    """
    if isinstance(budgets, str) or not isinstance(budgets, Sequence) or not budgets:
        raise UserError(f"budgets is {shown(budgets)}: expected some, for example --budgets 0.3 0.5 0.7")
    for share in budgets:
        real("share of the dense MACs in budgets", share, 0, 1, "()")


def predict(trained: Trained, agent: GraphLearner, budgets: Sequence[float]) -> list[Prediction]:
    """Score the candidates that a policy proposes for given budgets without exploring, repaired as for delivery.

    Args:
        trained: The job with its trained dense network.
        agent: A learner whose policy has been created or loaded.
        budgets: Shares of the dense MACs, each in place of the budget's.

    Raises:
        UserError: There is no budget, or one of them is not a share or cannot be reached.
    """
    instance("trained", trained, Trained, "what train has returned")
    instance("agent", agent, GraphLearner, "an agent, such as GNNRL()")
    check_budgets(budgets)
    job, found, evaluator = trained.job, list[Prediction](), trained.final_evaluator()
    for share, limits in [(share, job.limits.with_limits(macs=share)) for share in budgets]:
        item = evaluator(proposal(trained, agent, limits), "policy")
        found.append(Prediction.of(job.graph, limits, share, item))
    return found


def record_of(trained: Trained, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Predictions as `predict --json` writes them."""
    return {
        "network": trained.job.task.name,
        "dataset": trained.job.task.data.name,
        "objective": record(trained.job.task.goal),
        "predictions": [prediction.as_record() for prediction in predictions],
    }
