"""Scores candidates on the holdout, optionally in races, and caches the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.checks import one_of
from gnnrl_lightning.data.examples import ExampleSet
from gnnrl_lightning.errors import finite_number
from gnnrl_lightning.evaluation.racing import Course, estimate, hopeless, random_order, stage_ends
from gnnrl_lightning.evaluation.result import DIVERGENCE, Evaluation, best_of
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.objective import Measured, Objective
from gnnrl_lightning.objective.protocol import added_up, figures_of
from gnnrl_lightning.speed.inference import PRECISIONS, for_inference
from gnnrl_lightning.speed.memory import keep_freed_memory, keep_kernels
from gnnrl_lightning.surgery.masks import zeros_held
from gnnrl_lightning.trees import Tree, call, channels_last, count, floats, take, tensors, to_device

Batch = tuple[Tree, Tree]
"""Inputs and targets."""


class Evaluator:
    """Prunes a candidate, scores it on the holdout, and caches the result by widths.

    Candidates run on the device of the dense network. The holdout is kept on that device if it fits in half of the free
    memory; otherwise batches are moved when they are needed.

    The examples are read in a fixed random order. In races, a candidate that falls behind the incumbent is dropped, see
    `racing`. Every evaluation, including cached ones, may become the incumbent, so that a resumed search repeats the
    same decisions.

    Args:
        pruner: Makes the pruned networks.
        holdout: The held-out examples.
        normalize: Inputs of the holdout -> network inputs.
        objective: Measures outputs.
        batch_size: Examples in a batch.
        precision: "32", or "bf16" for bfloat16 weights and activations.
        finetune: Trains each candidate for a few steps before it is scored; None: no training.
        drop_probability: Probability with which a candidate as good as the incumbent may be dropped; None: no races,
            every candidate is scored on the whole holdout.
        costs: Costs of a candidate `(G,)` by metric, see `BoundBudget.costs`; None: MACs and parameters.
        reward: Ranks candidates before the figures of the objective do; None: these alone.
    """

    def __init__(
        self,
        pruner: Pruner,
        holdout: ExampleSet,
        normalize: Callable[[Tree], Tree],
        objective: Objective,
        batch_size: int = 256,
        precision: str = "32",
        finetune: ShortFinetune | None = None,
        drop_probability: float | None = None,
        costs: Callable[[Tensor], dict[str, int | float]] | None = None,
        reward: Callable[[Evaluation], float] | None = None,
    ) -> None:
        one_of("precision", precision, PRECISIONS)
        keep_freed_memory()
        keep_kernels()
        self.pruner = pruner
        self.costs = costs or pruner.graph.costs
        self.dtype = PRECISIONS[precision]
        self.holdout, self.normalize, self.objective, self.batch_size = holdout, normalize, objective, batch_size
        self.finetune, self.drop_probability, self.reward = finetune, drop_probability, reward
        self._known: dict[tuple[int, ...], Evaluation] = {}
        self._incumbent: Evaluation | None = None

    def learn(self, evaluations: Iterable[Evaluation]) -> None:
        """Add evaluations from other processes or an earlier run to the cache.

        They replace this process's own evaluations, so that all processes have the same cache. Of several evaluations
        of a candidate, the first one that was not dropped counts, else the first.
        """
        learnt: dict[tuple[int, ...], Evaluation] = {}
        for evaluation in evaluations:
            if learnt.setdefault(evaluation.widths, evaluation).dropped and not evaluation.dropped:
                learnt[evaluation.widths] = evaluation
        self._known |= learnt

    def __call__(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score the candidate `widths (G,)`."""
        key = tuple(int(width) for width in widths)
        known = self._known.get(key)
        if known is None:
            evaluation = self._known[key] = self._evaluate(widths, key, proposer)
        else:
            evaluation = replace(known, proposer=proposer, seconds=0.0, examples=0)
        if evaluation.course is not None:
            self._incumbent = best_of(filter(None, (self._incumbent, evaluation)))
        return evaluation

    @cached_property
    def batches(self) -> list[Batch]:
        """Inputs and targets of the holdout, in batches."""
        holdout, parts = self.holdout, random_order(len(self.holdout)).split(self.batch_size)
        one = floats(self.normalize(take(holdout.inputs, slice(1))), self.dtype)
        size = len(holdout) * sum(tensor.nbytes for tensor in tensors(one))
        home = self.pruner.device if fits(size, self.pruner.device) else torch.device("cpu")
        return [(self._inputs(part, home), to_device(take(holdout.targets, part), home)) for part in parts]

    def _inputs(self, part: Tensor, home: torch.device) -> Tree:
        given = to_device(take(self.holdout.inputs, part), home)
        return channels_last(floats(self.normalize(given), self.dtype), self.pruner.channels_last)

    @cached_property
    def _stages(self) -> list[slice]:
        """The batches of each stage."""
        sizes = [count(inputs) for inputs, _ in self.batches]
        ends = (len(sizes),) if self.drop_probability is None else stage_ends(sizes)
        return [slice(*pair) for pair in zip((0, *ends), ends, strict=False)]

    @cached_property
    def _dense(self) -> list[Tree]:
        """Outputs of the dense network for each batch. Train the dense network first."""
        network = self._fast(independent_copy(self.pruner.network).eval())
        with torch.inference_mode():
            return [floats(call(network, to_device(inputs, self.pruner.device))) for inputs, _ in self.batches]

    @cached_property
    def _measuring(self) -> Objective:
        """The objective, whose distances do not depend on the batch."""
        return self.objective.relative_to(self._dense)

    def _fast(self, network: nn.Module) -> nn.Module:
        return for_inference(network, self.pruner.layers, self.dtype, self.pruner.channels_last)

    def _evaluate(self, widths: Tensor, key: tuple[int, ...], proposer: str) -> Evaluation:
        self._dense  # noqa: B018  (excluded from the first candidate's time)
        start = time.perf_counter()
        network = self.pruner.prune(self.pruner.plan(widths))
        examples = self.pruner.examples
        if self.finetune is not None:
            with zeros_held(network, self.pruner.graph.masked):
                self.finetune(network)
            examples += self.finetune.cost
        course = self._run(self._fast(network))
        dropped = course.examples < len(self.holdout)
        means = course.means()
        if dropped:
            assert self._incumbent is not None and self._incumbent.course is not None
            means = estimate(course, self._incumbent.course)
        divergence = float(means.pop(DIVERGENCE))
        scores = figures_of(self._measuring, means) | {DIVERGENCE: divergence}
        evaluation = Evaluation(
            key,
            self.costs(widths),
            scores,
            self.objective.merit(scores),
            seconds=time.perf_counter() - start,
            examples=examples + course.examples,
            proposer=proposer,
            seen=course.examples,
            dropped=dropped,
            course=None if dropped or self.drop_probability is None else course,
        )
        if self.reward is None:
            return evaluation
        reward, what = self.reward, f"the reward of the candidate with widths {list(key)}"
        return replace(evaluation, merit=(finite_number(lambda: reward(evaluation), what), *evaluation.merit))

    def _run(self, network: nn.Module) -> Course:
        """Score a network stage by stage until it is dropped or all examples have been read."""
        course, incumbent = Course(), None if self._incumbent is None else self._incumbent.course
        for stage in self._stages:
            course = course.followed_by(*outcome(network, self.batches[stage], self._dense[stage], self._measuring))
            if self.drop_probability is None or incumbent is None or course.examples == len(self.holdout):
                continue
            if hopeless(course, incumbent, len(self._stages), self.drop_probability):
                break
        return course


def outcome(
    network: nn.Module, batches: Sequence[Batch], dense: Sequence[Tree], objective: Objective
) -> tuple[Tensor, dict[str, list[float]]]:
    """Score a network in evaluation mode on some examples.

    Args:
        network: The network.
        batches: Inputs and targets.
        dense: The dense network's outputs for each batch, on the network's device.
        objective: Measures the outputs.

    Returns:
        Score of each example `(n,)`, and name -> elements of the sums over the examples, including `divergence`.
    """
    measured = []
    with torch.inference_mode():
        for (inputs, targets), reference in zip(batches, dense, strict=True):
            device = tensors(reference)[0].device
            outputs = floats(call(network, to_device(inputs, device)))
            batch = objective.measure(outputs, to_device(targets, device))
            distance = objective.distance(outputs, reference).sum()
            measured.append(Measured(batch.scores, {**batch.sums, DIVERGENCE: distance}))
    return torch.cat([batch.scores for batch in measured]).cpu(), added_up([batch.sums for batch in measured])


def fits(size: int, device: torch.device) -> bool:
    """Whether `size` bytes fit in half of the device's free memory (always true on the CPU)."""
    if device.type != "cuda":
        return True
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return 2 * size <= torch.cuda.mem_get_info(device)[0] + cached
