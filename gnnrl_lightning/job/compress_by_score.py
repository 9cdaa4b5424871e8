"""A trained network is pruned by any score of networks: a detector, a language head, without a data module of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.cost.metrics import LATENCY
from gnnrl_lightning.errors import UserError, one_line
from gnnrl_lightning.evaluation.callable import SCORE, CallableEvaluator, OutputsAlone, score_of
from gnnrl_lightning.evaluation.result import DIVERGENCE
from gnnrl_lightning.graph import ComputationGraph
from gnnrl_lightning.job.arguments import as_device, check_kinds
from gnnrl_lightning.job.checked import check_prunable, limits_on
from gnnrl_lightning.job.deciding import without_auto
from gnnrl_lightning.job.group_options import GroupOptions
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.prediction import front_figures
from gnnrl_lightning.job.searched import best_within
from gnnrl_lightning.job.searching import search_in_memory
from gnnrl_lightning.job.trial import make_sensitivity
from gnnrl_lightning.networks import check_finite, check_runs
from gnnrl_lightning.networks.copies import independent_copy, uncompiled
from gnnrl_lightning.report.progress import quiet_lightning
from gnnrl_lightning.report.table import as_text, print_scores
from gnnrl_lightning.rl.environments import Environments
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.runs.folder import PRUNED, UNIFORM
from gnnrl_lightning.search.baselines import starting_candidates, uniform
from gnnrl_lightning.search.methods import METHODS, SearchMethod
from gnnrl_lightning.search.problem import SearchProblem, reasons_of
from gnnrl_lightning.speed.latency import measure_latency
from gnnrl_lightning.trees import Tree, count, take, tensors, to_device

UNREAD = {
    **dict.fromkeys(("scoring", "pretraining", "finetuning"), "a score of yours reads nothing of it"),
    **dict.fromkeys(("finals", "stages"), "nothing is trained"),
    "delivery.formats": "nothing is written; save the network",
    "delivery.largest_drop": "nothing is written",
    "delivery.fastest_of": "a score alone does not tell which candidates are as good as the best one",
}
"""Options that a score of the user's own makes meaningless -> why."""


@dataclass(frozen=True, repr=False)
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
        return as_text(lambda console: print_scores(self.figures, console))

    def __repr__(self) -> str:
        """The same, for notebooks and the Python prompt."""
        return str(self)


@quiet_lightning()
def compress_by_score(
    network: nn.Module,
    score: Callable[[nn.Module], float],
    inputs: Tree,
    budget: Budget,
    *,
    examples: int = 1,
    evaluations: int | None = None,
    by: GraphLearner | SearchMethod | None = None,
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

    Nothing is trained, tested or written: there are no targets to do it with. With the default options the agent learns
    from a surrogate of the score.

    Args:
        network: The trained network, which is copied and never changed; of a compiled one, what was compiled.
        score: `(network in evaluation mode, on the device) -> score`, a finite number, the higher the better. Agents
            learn from values between -1,000 and 1,000; what is beyond counts as that.
        inputs: Training examples as the network reads them, with the examples first: a tensor, a tuple of the
            positional arguments, or a dictionary of the keyword arguments. The first one is traced; importance, repair
            and sensitivity calibrate on as many as the options say, as far as there are so many.
        budget: What the smaller network may cost.
        examples: Forward passes of one example that a call of the score takes: by these the examples that are read
            beside the score are counted as evaluations.
        evaluations: Candidates that may be evaluated, in place of `options.search.evaluations`. The dense network and,
            with the repair of the delivery, the uniform and the pruned one are scored besides.
        by: What searches: an agent, or a method, which is a name in `gnnrl_lightning.search.methods.METHODS` or your
            own function (problem, seed); None: `GNNRL`.
        options: The sections `candidate`, `episode`, whose reward `divergence` stands for the score, `search`,
            `latency`, if the budget limits it, and of `delivery` the repair with its examples; None: the defaults.
            Latency is predicted, and not measured of the pruned network. The best candidate is delivered, not the
            fastest of the best ones.
        groups: Layers that stay as they are, and limits of single groups; None: all may be pruned.
        seed: Of all that is random, the score apart.
        device: Where candidates are pruned, repaired and scored.

    Returns:
        The pruned network, its widths and all figures.

    Raises:
        UserError: Anything about the input is wrong, or the score fails or is not a finite number.
    """
    check_kinds(network=network, budget=budget, evaluations=evaluations, by=by, options=options)
    check_kinds(groups=groups, seed=seed, examples=examples)
    if not callable(score):
        raise UserError(f"score is a {type(score).__name__}: expected a function of a network that returns a number")
    device = as_device(device)
    if by is not None and not isinstance(by, GraphLearner):
        METHODS.find(by, "by")
    searcher = GNNRL(seed=seed) if by is None else by
    inputs = _checked_inputs(to_device(inputs, device))
    options = _checked_options(options or Options(), budget)
    dense = _checked_copy(network, inputs, device)
    name = type(dense).__qualname__
    graph, latency = (groups or GroupOptions()).trace(dense, take(inputs, slice(1))), None
    check_prunable(graph, name)
    options = _decided(options, graph, count(inputs), evaluations)
    if LATENCY in budget.parsed:
        latency = measure_latency(graph, dense, take(inputs, slice(1)), options.latency, budget=budget)
        graph = graph.with_latency(latency.model)
    limits = limits_on(graph, budget, name)

    candidate, objective = options.candidate, OutputsAlone()
    calibration = take(inputs, slice(candidate.calibration_count))
    pruner = Pruner(graph, dense, calibration, candidate.importance, candidate.repair, objective=objective)
    problem = _problem(pruner, limits, options, CallableEvaluator(pruner, score, examples, limits.costs))
    environments = Environments(graph, limits, options.episode, options.measure(), objective)
    if isinstance(searcher, GraphLearner):
        options.iterations(problem.limits, problem.evaluation_examples, searcher.episodes_per_iteration)
        environments.prepare(searcher, {SCORE: 0.0}, problem.evaluation_examples)

    scores = {"dense": score_of(score, independent_copy(dense), "the dense network")}
    began = time.perf_counter()
    with reasons_of(f"by {METHODS.name_of(searcher)!r}"):
        front = search_in_memory(problem, searcher, environments, seed, "by")
    best, seconds = best_within(problem), time.perf_counter() - began

    chosen = {UNIFORM: uniform(graph, limits), PRUNED: torch.tensor(best.widths)}
    made = _delivered(pruner, chosen, inputs, options.delivery)
    scores |= {key: score_of(score, independent_copy(each), f"the {key} network") for key, each in made.items()}
    figures = {
        "network": name,
        "budget": limits.budget.as_record(),
        "dense": {**limits.dense, SCORE: scores["dense"]},
        **{key: _row(limits, widths, scores[key]) for key, widths in chosen.items()},
        "search": {
            "evaluations": problem.spent,
            "examples": problem.examples,
            "seed": seed,
            "found_by": best.proposer,
            f"{SCORE}_search": best.scores[SCORE],
            "seconds": seconds,
            **front_figures(graph, limits, front),
        },
    }
    if latency is not None:
        figures["latency"] = latency.summary()
    names = [group.name for group in graph.groups]
    return Compressed(made[PRUNED].cpu().eval(), figures, dict(zip(names, best.widths, strict=True)))


def _checked_options(options: Options, budget: Budget) -> Options:
    """Refuse options that nothing here reads."""
    defaults = Options()
    unread = {key: why for key, why in UNREAD.items() if attrgetter(key)(options) != attrgetter(key)(defaults)}
    if options.delivery.fastest_of == 0:  # as it is here
        unread.pop("delivery.fastest_of", None)
    for key, why in unread.items():
        raise UserError(f"options.{key} is given, and {why}: leave it out")
    if options.latency != defaults.latency and LATENCY not in budget.parsed:
        raise UserError("options.latency is given, and the budget has no limit on latency: leave it out, or give one")
    return options


def _checked_inputs(inputs: Tree) -> Tree:
    """Refuse inputs that are not examples."""
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
    return inputs


def _checked_copy(network: nn.Module, inputs: Tree, device: torch.device | str) -> nn.Module:
    """Copy the network to the device, in evaluation mode, and run it once."""
    dense = independent_copy(uncompiled(network)).eval()
    check_finite(dense)
    dense.to(device)
    check_runs(dense, take(inputs, slice(2)))
    return dense


def _decided(options: Options, graph: ComputationGraph, number: int, evaluations: int | None) -> Options:
    """Resolve every "auto", read no more than `number` examples, and take the score as the reward."""
    options = without_auto(options, graph, number)
    candidate, delivery, search = options.candidate, options.delivery, options.search
    assert isinstance(delivery.calibration_examples, int)  # resolved
    candidate = replace(candidate, calibration_examples=min(candidate.calibration_count, number))
    delivery = replace(delivery, calibration_examples=min(delivery.calibration_examples, number))
    if evaluations is not None:
        search = replace(search, evaluations=evaluations)
    episode = options.episode
    if episode.reward == DIVERGENCE:  # nothing but the score is measured
        episode = replace(episode, reward=None)
    return replace(options, candidate=candidate, delivery=delivery, search=search, episode=episode)


def _problem(pruner: Pruner, limits: BoundBudget, options: Options, evaluate: CallableEvaluator) -> SearchProblem:
    """Return the search problem with all evaluations left."""
    graph, measure = pruner.graph, options.search.sensitivity
    return SearchProblem(
        graph,
        limits,
        evaluate,
        options.search.evaluations,
        starting_candidates(graph, limits),
        None if measure is None else lambda: make_sensitivity(measure, pruner, limits.allowed),
        evaluate.examples + options.candidate.examples,
        pruner,
    )


def _delivered(
    pruner: Pruner, chosen: Mapping[str, Tensor], inputs: Tree, delivery: DeliveryOptions
) -> dict[str, nn.Module]:
    """Prune to widths by name, with the repair of the delivery."""
    assert isinstance(delivery.calibration_examples, int)  # resolved
    final = pruner.final(take(inputs, slice(delivery.calibration_examples)), delivery.repair)
    return {name: final.prune(final.plan(widths)) for name, widths in chosen.items()}


def _row(limits: BoundBudget, widths: Tensor, score: float) -> dict[str, Any]:
    costs = limits.costs(widths)
    return {**costs, **limits.ratios(costs), SCORE: score, "widths": widths.tolist()}
