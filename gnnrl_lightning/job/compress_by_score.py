"""A trained network is pruned by any score of networks: a detector, a language head, without a data module of ours."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from torch import nn

from gnnrl_lightning.candidates.pruner import Pruner, default_final_examples
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.evaluation.callable import SCORE, CallableEvaluator, OutputsAlone, score_of
from gnnrl_lightning.evaluation.result import Evaluation, best_of, within
from gnnrl_lightning.job.comparison import run_agent
from gnnrl_lightning.job.groups import GroupOptions
from gnnrl_lightning.job.job import PRUNED, UNIFORM
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.networks import check_finite, check_runs
from gnnrl_lightning.options import AUTO
from gnnrl_lightning.repair.table import default_repair
from gnnrl_lightning.report.table import print_scores
from gnnrl_lightning.rl.env.reward import check_reward, find_reward
from gnnrl_lightning.rl.environments import AGENT, Environments
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.search.baselines import starting_candidates, uniform
from gnnrl_lightning.search.methods import METHODS
from gnnrl_lightning.search.problem import SearchProblem
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.trees import Tree, count, map_tensors, take, tensors, to_device


@dataclass(frozen=True)
class Compressed:
    """What pruning by a score has come to.

    Args:
        network: The pruned network, repaired but not fine-tuned, in evaluation mode, on the CPU.
        figures: Costs and score of the dense network, of uniform pruning and of the pruned one, and what the search
            cost, in plain JSON types.
        widths: Name of each group -> its width.
    """

    network: nn.Module
    figures: Mapping[str, Any]
    widths: Mapping[str, int]

    def __str__(self) -> str:
        """The figures as a table."""
        text = io.StringIO()
        print_scores(self.figures, Console(file=text, width=120))
        return text.getvalue().rstrip()


def compress_by_score(
    network: nn.Module,
    score: Callable[[nn.Module], float],
    inputs: Tree,
    budget: Budget,
    *,
    examples: int = 1,
    evaluations: int | None = None,
    by: GraphLearner | str | None = None,
    options: Options | None = None,
    groups: GroupOptions | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Compressed:
    """Prune a trained network to a budget by a score of your own: search, prune, repair.

    ```
    def mean_average_precision(network): ...  # of yours, with your held-out data; the higher the better

    found = compress_by_score(detector, mean_average_precision, images, Budget(macs=0.5), examples=500, evaluations=100)
    print(found)             # the dense network, uniform pruning, and the smaller one
    smaller = found.network  # of the same class; fine-tune it, then test it on other data than the score's
    ```

    Nothing is trained, tested or written: there are no targets to do it with.

    Args:
        network: The trained network, which is copied and never changed.
        score: `(network in evaluation mode, on the device) -> score`, a finite number, the higher the better. Agents
            learn from values between -1,000 and 1,000; what is beyond counts as that.
        inputs: Training examples as the network reads them, with the examples first: a tensor, or a tuple of the
            positional arguments. The first one is traced; importance, repair and sensitivity calibrate on as many as
            the options say, as far as there are so many.
        budget: What the smaller network may cost.
        examples: Forward passes of one example that a call of the score takes: by these the examples that are read
            beside the score are counted as evaluations.
        evaluations: Candidates that may be evaluated, in place of `options.search.evaluations`. The dense network and,
            with the repair of the delivery, the uniform and the pruned one are scored besides.
        by: What searches: an agent of yours, or the name of a method of `gnnrl_lightning.search.methods.METHODS`;
            None: `GNNRL`.
        options: The sections `candidate`, `episode`, `search` and `delivery`, apart from its formats; None: the
            defaults.
        groups: Layers that stay as they are, and limits of single groups; None: all may be pruned.
        seed: Of all that is random, the score apart.
        device: Where candidates are pruned, repaired and scored.

    Returns:
        The pruned network, its widths and all figures.

    Raises:
        UserError: Anything about the input is wrong, or the score fails or is no finite number.
    """
    agent = GNNRL(seed=seed) if by is None else by
    device = torch.device(device)
    method = METHODS.find(by, "by") if isinstance(by, str) else None
    inputs = to_device(inputs, device)
    given, number = _checked(options or Options(), inputs)
    dense = copy.deepcopy(network).eval()
    check_finite(dense)
    dense.to(device)
    check_runs(dense, take(inputs, slice(2)))
    graph = (groups or GroupOptions()).trace(dense, take(inputs, slice(1)))
    name = type(network).__qualname__
    if not graph.groups:
        raise UserError(f"{name} has no channels that can be pruned: see its graph's frozen groups for why")
    limits = budget.on(graph)
    if limits.met(graph.widths):
        raise UserError(f"{name} meets the budget as it is: nothing to prune")
    options = _decided(given, dense, inputs, number, evaluations)

    candidate, search, objective = options.candidate, options.search, OutputsAlone()
    calibration = take(inputs, slice(candidate.calibration_examples))
    pruner = Pruner(graph, dense, calibration, candidate.importance, candidate.repair, objective=objective)
    evaluate = CallableEvaluator(pruner, score, examples, limits.costs)
    measure = search.sensitivity
    problem = SearchProblem(
        graph,
        limits,
        evaluate,
        search.evaluations,
        starting_candidates(graph, limits),
        None if measure is None else lambda: SENSITIVITIES.find(measure).make(pruner),
        examples + candidate.examples,
        pruner,
    )
    environments = Environments(graph, limits, options.episode, options.measure(), objective)
    if isinstance(agent, GraphLearner):
        _prepare(agent, environments, options, problem.evaluation_examples)
    scores = {"dense": score_of(score, copy.deepcopy(dense), "the dense network")}

    began = time.perf_counter()
    if method is None:
        assert isinstance(agent, GraphLearner)
        run_agent(problem, agent, environments)
    else:
        method.run(problem, seed)
    seconds = time.perf_counter() - began
    best = best_of(item for item in problem.history if within(limits, item))
    if best is None:
        raise UserError("the search has asked for no candidate within the budget")

    delivery = options.delivery
    assert isinstance(delivery.calibration_examples, int)  # decided
    final = pruner.final(take(inputs, slice(delivery.calibration_examples)), delivery.repair)
    chosen = {UNIFORM: uniform(graph, limits), PRUNED: torch.tensor(best.widths)}
    made = {key: final.prune(final.plan(widths)) for key, widths in chosen.items()}
    for key, each in made.items():
        scores[key] = score_of(score, copy.deepcopy(each), f"the {key} network")
    figures = {
        "network": name,
        "budget": limits.budget.as_record(),
        "dense": {**limits.dense, SCORE: scores["dense"]},
        **{key: _row(limits, widths.tolist(), scores[key]) for key, widths in chosen.items()},
        "search": {
            "evaluations": problem.spent,
            "examples": problem.examples,
            "seed": seed,
            "found_by": best.proposer,
            f"{SCORE}_search": best.scores[SCORE],
            "seconds": seconds,
        },
    }
    names = [group.name for group in graph.groups]
    return Compressed(made[PRUNED].cpu().eval(), figures, dict(zip(names, best.widths, strict=True)))


def _checked(options: Options, inputs: Tree) -> tuple[Options, int]:
    """The options, none of which goes unread, and the number of inputs."""
    defaults = Options()
    for section in ("scoring", "pretraining", "finetuning"):
        if getattr(options, section) != getattr(defaults, section):
            raise UserError(f"options.{section} is given, and a score of yours reads nothing of it: leave it out")
    if options.delivery.formats != defaults.delivery.formats:
        raise UserError("options.delivery.formats is given, and nothing is written: leave it out, and save the network")
    if isinstance(inputs, dict):
        raise UserError("inputs is a dictionary: expected a tensor, or a tuple of the network's positional arguments")
    if any(tensor.dim() == 0 for tensor in tensors(inputs)):
        raise UserError("inputs has a tensor without dimensions: expected the examples first")
    try:
        number = count(inputs)
    except ValueError as error:
        raise UserError(f"inputs: {one_line(error)}") from error
    if number < 1:
        raise UserError("inputs is empty: expected training examples, as the network reads them")
    for tensor in tensors(inputs):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError("inputs has NaN or infinite values: give training examples, as the network reads them")
    return options, number


def _decided(options: Options, network: nn.Module, inputs: Tree, number: int, evaluations: int | None) -> Options:
    """Options without any "auto", and with no more examples than there are."""
    candidate, delivery, search = options.candidate, options.delivery, options.search
    candidate = replace(candidate, calibration_examples=min(candidate.calibration_examples, number))
    if candidate.repair == AUTO:
        candidate = replace(candidate, repair=default_repair(network))
    wanted = delivery.calibration_examples
    if wanted == AUTO:
        wanted = default_final_examples(map_tensors(lambda tensor: tensor[:1], inputs))
    delivery = replace(delivery, calibration_examples=min(wanted, number))
    if evaluations is not None:
        search = replace(search, evaluations=evaluations)
    return replace(options, candidate=candidate, delivery=delivery, search=search)


def _prepare(agent: GraphLearner, environments: Environments, options: Options, examples: int) -> None:
    """Refuse an agent without an iteration, with a policy that cannot be made or a reward that fails."""
    options.iterations(environments.graph, examples, agent.episodes_per_iteration)
    agent.env = environments.make(None)
    try:
        agent.configure_model()
    except UserError:
        raise
    except Exception as error:  # the user's own policy may raise anything
        raise UserError(f"the agent's policy cannot be made: {one_line(error)}") from error
    limits, reward = environments.limits, options.episode.reward
    widths = uniform(environments.graph, limits)
    key, costs = tuple(widths.tolist()), limits.costs(widths)
    tried = Evaluation(key, costs, {SCORE: 0.0}, (0.0,), seconds=1.0, examples=examples, proposer=AGENT)
    check_reward(find_reward(reward, environments.objective), reward, tried)


def _row(limits: BoundBudget, widths: list[int], score: float) -> dict[str, Any]:
    costs = limits.costs(torch.tensor(widths))
    return {**costs, **limits.ratios(costs), SCORE: score, "widths": widths}
