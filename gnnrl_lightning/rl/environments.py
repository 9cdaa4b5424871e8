"""Environments of an agent: the real one, and the proxy for warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gnnrl_lightning.cost.budget import BoundBudget
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.evaluation.result import Evaluation
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.rl.acquisition import Acquisition
from gnnrl_lightning.rl.env import Evaluated, VectorPruningEnv
from gnnrl_lightning.rl.env.imagination import SLOPES, Imagination
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.env.proposals import Proposals
from gnnrl_lightning.rl.env.reward import check_reward, find_reward, reward_of
from gnnrl_lightning.rl.env.score import Score
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.learners.own import check_made
from gnnrl_lightning.rl.range_acquisition import RangeAcquisition
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, uniform
from gnnrl_lightning.search.knowledge import Knowledge, evaluated
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import flat_prior
from gnnrl_lightning.surrogate.proxy import Proxy
from gnnrl_lightning.surrogate.sensitivity import Sensitivity, ratios_for
from gnnrl_lightning.surrogate.terms import Terms

AGENT = "agent"
"""Proposer name of the agent's candidates."""


@dataclass(frozen=True)
class Environments:
    """Factory of the environments for one network and budget; all of them share states and actions.

    Args:
        graph: The traced network.
        limits: The budget bound to the graph.
        options: Options of the episodes.
        measure: Name of the sensitivity measure whose statistics the states include; None: no statistics.
        objective: Objective of the network, which names the rewards.
    """

    graph: ComputationGraph
    limits: BoundBudget
    options: EpisodeOptions
    measure: str | None
    objective: Objective

    @property
    def imagines(self) -> bool:
        """Whether a policy learns in imagined episodes."""
        return self.options.imagines(self.measure)

    @property
    def reserved(self) -> int:
        """Evaluations that are kept for the end of a search over a range of budgets."""
        return self.options.reserved(self.measure)

    @property
    def setting(self) -> dict[str, str]:
        """Options that define a policy's states and actions: name -> value as text.

        `gnnrl_lightning.rl.policies.save_policy` stores them, and `load_policy` refuses a policy with other values.
        """
        options = self.options
        one_step = options.max_steps == 1
        return {
            "search.sensitivity": str(self.measure),
            "episode.proposal": str(self.measure and options.proposal),
            "episode.surrogate": str(self.imagines),
            "episode.max_steps": str(options.max_steps),
            "episode.max_ratio_per_step": str(1.0 if one_step else float(options.max_ratio_per_step)),
        }

    def make(self, score: Score | None, sensitivity: Sensitivity | None = None) -> VectorPruningEnv:
        """Create an environment.

        Args:
            score: Rewards of finished episodes; None: rewards are 0, or the mean of the surrogate's prior, to run
                a policy without training.
            sensitivity: Sensitivity of the groups. If the states include its statistics and it is None (not measured
                yet), they are zeros, so that a policy can be created.
        """
        imagined = None
        if self.imagines and sensitivity is not None:  # nothing is evaluated: the mean of the prior
            terms = Terms(self.graph.widths, sensitivity.of_groups)
            nothing = torch.zeros(0, len(self.graph.groups), dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
            prior = Surrogate(terms, [flat_prior(terms, self.limits.allowed.removable is not None)], *nothing)
            imagined = Imagination(self.graph, self.limits, lambda: prior, lambda: nothing, 0.0)
        return self._make(score, sensitivity, self._proposals(sensitivity), imagined)

    def _make(
        self,
        score: Score | None,
        sensitivity: Sensitivity | None,
        proposals: Proposals | None,
        imagined: Imagination | None = None,
    ) -> VectorPruningEnv:
        options, statistics = self.options, None
        if self.measure is not None:
            zeros = torch.zeros(len(self.graph.groups), len(ratios_for(self.limits.allowed)))
            statistics = zeros if sensitivity is None else sensitivity.statistics
        env = VectorPruningEnv(
            self.graph,
            self.limits,
            score,
            max_steps=options.max_steps,
            max_ratio_per_step=options.max_ratio_per_step,
            macs_range=options.macs_range,
            statistics=statistics,
            penalty=options.penalty,
            proposals=proposals,
            imagined=imagined,
            group_features=SLOPES if self.imagines else 0,
        )
        env.setting = self.setting
        return env

    def _proposals(self, sensitivity: Sensitivity | None) -> Proposals | None:
        """Initial proposals of the policy for every limit; None: the policy starts from one ratio for all groups."""
        options = self.options
        if sensitivity is None or options.proposal is None:
            return None
        return Proposals(self.graph, self.limits, sensitivity, FROM_SENSITIVITY[options.proposal], options.macs_range)

    def prepare(self, agent: GraphLearner, scores: Mapping[str, float], examples: int, seen: int = 0) -> None:
        """Create the agent's policy in an environment without scores, and call its reward once.

        Args:
            agent: The agent.
            scores: Scores of some candidate, for the reward: any that the objective may give.
            examples: Forward passes of single examples in an evaluation.
            seen: Held-out examples behind the scores.

        Raises:
            UserError: The policy cannot be made, does not fit, or the reward fails.
        """
        check_made(agent)
        agent.env = self.make(None)
        try:
            agent.configure_model()
        except UserError:
            raise
        except Exception as error:  # the user's own policy may raise anything
            raise UserError(
                f"model.make_policy cannot be made: {one_line(error)}; change it or its arguments"
            ) from error
        if agent.policy is None:
            raise UserError(
                f"{type(agent).__name__}.configure_model makes no policy: call super().configure_model() in it"
            )
        widths, merit, name = uniform(self.graph, self.limits), self.objective.merit(scores), self.options.reward
        tried = Evaluation(
            tuple(widths.tolist()),
            self.limits.costs(widths),
            dict(scores),
            merit,
            seconds=1.0,
            examples=examples,
            proposer=AGENT,
            seen=seen,
        )
        check_reward(find_reward(name, self.objective), name, tried)

    def connect(self, agent: GraphLearner, problem: SearchProblem) -> None:
        """Set the agent's environment and, if a sensitivity is used, its proxy.

        Args:
            agent: The learner.
            problem: The search problem, which counts the evaluations.

        Raises:
            NotApplicable: Too few evaluations are left to pay for the sensitivity.
        """
        reward = partial(reward_of, find_reward(self.options.reward, self.objective))
        sensitivity = None if self.measure is None else problem.sensitivity
        if self.options.macs_range is not None:
            problem.allow(max(self.options.macs_range))
        proposals = self._proposals(sensitivity)
        agent.exchange, agent.proxy, agent.evaluate = problem.exchange, None, None

        if self.imagines and sensitivity is not None:
            knowledge, macs_range = Knowledge(problem, reward), self.options.macs_range
            imagined = Imagination(
                self.graph,
                self.limits,
                lambda: knowledge.surrogate,
                knowledge.evaluated,
                self.options.exploration,
                ranged=macs_range is not None,
            )
            agent.env = agent.proxy = self._make(None, sensitivity, proposals, imagined)
            given = problem, knowledge, imagined, AGENT
            if macs_range is None:
                agent.evaluate = Acquisition(*given)
            else:
                assert proposals is not None  # a surrogate needs them
                agent.evaluate = RangeAcquisition(*given, macs_range, self.options.shares, proposals)
            return

        def known() -> tuple[Tensor, Tensor]:
            return evaluated(problem.history, reward)

        agent.env = self._make(Evaluated(problem.ask, reward, AGENT), sensitivity, proposals)
        if sensitivity is not None:
            agent.proxy = self._make(Proxy(sensitivity.of_groups, known), sensitivity, proposals)
