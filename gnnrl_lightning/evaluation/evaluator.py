"""Scores candidates on the search split, remembers them, and writes them down."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, nll_loss

from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.inference import for_inference
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.pruner import Pruner
from gnnrl_lightning.evaluation.short_finetune import ShortFinetune
from gnnrl_lightning.graph.budget import Budget, Prunable
from gnnrl_lightning.memory import keep_freed_memory

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16}
"""Name -> precision of weights and activations of a candidate that is scored."""


@dataclass(frozen=True)
class Evaluation:
    """One candidate, scored.

    Attributes:
        widths: Width of each group.
        macs: MACs for one image.
        params: Number of parameters.
        top1: Top-1 accuracy on the search split, percent.
        cross_entropy: Mean cross-entropy on the search split, nats; infinite if the outputs are not numbers.
        divergence: Mean Kullback-Leibler divergence KL(dense || candidate) of the outputs there, nats; likewise.
        seconds: Time that the evaluation took.
        images: Forward passes of one image that it took, calibration included.
        proposer: Who proposed it: "agent", or the name of a starting candidate.
    """

    widths: tuple[int, ...]
    macs: int
    params: int
    top1: float
    cross_entropy: float
    divergence: float
    seconds: float
    images: int
    proposer: str


class Evaluator:
    """Prunes a candidate, scores it on the search split, caches it by its widths and journals it.

    Args:
        pruner: Makes the pruned networks.
        search: The search split.
        normalize: uint8 images -> network inputs.
        batch_size: Images in a batch.
        journal: Where each new evaluation is written; None: nowhere.
        precision: "32", or "bf16" for bfloat16 weights and activations.
        finetune: Trains each candidate for a few steps before it is scored; None: none is.

    Attributes:
        count: Evaluations asked for, answers from the cache included.
        images: Forward passes of one image so far.
        seconds: Time spent so far.
        history: The evaluations in the order in which they were asked for.
    """

    def __init__(
        self,
        pruner: Pruner,
        search: ImageSet,
        normalize: Callable[[Tensor], Tensor],
        batch_size: int = 256,
        journal: Journal | None = None,
        precision: str = "32",
        finetune: ShortFinetune | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision is {precision!r}: expected one of {', '.join(PRECISIONS)}")
        keep_freed_memory()
        self.pruner = pruner
        self.dtype = PRECISIONS[precision]
        self.batches = [
            (normalize(images).to(self.dtype, memory_format=torch.channels_last), labels)
            for images, labels in zip(search.images.split(batch_size), search.labels.split(batch_size), strict=True)
        ]
        self.journal, self.finetune = journal, finetune
        self.images = 0
        self.seconds = 0.0
        self.history: list[Evaluation] = []
        self._known: dict[tuple[int, ...], Evaluation] = {}

    @property
    def count(self) -> int:
        """Evaluations asked for, answers from the cache included."""
        return len(self.history)

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation so far: highest top-1, then lowest cross-entropy, then first."""
        return best_of(self.history)

    def best_by(self, proposer: str) -> Evaluation | None:
        """The best evaluation that `proposer` asked for."""
        return best_of([evaluation for evaluation in self.history if evaluation.proposer == proposer])

    def __call__(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score the candidate `widths (G,)`."""
        key = tuple(int(width) for width in widths)
        known = self._known.get(key)
        if known is None:
            evaluation = self._known[key] = self._evaluate(widths, key, proposer)
            self.images += evaluation.images
            self.seconds += evaluation.seconds
            if self.journal is not None:
                graph = self.pruner.graph
                dense = int(graph.cost.macs(graph.widths))
                self.journal.append(asdict(evaluation) | {"macs_ratio": evaluation.macs / dense})
        else:
            evaluation = Evaluation(**(asdict(known) | {"proposer": proposer, "seconds": 0.0, "images": 0}))
        self.history.append(evaluation)
        return evaluation

    @cached_property
    def _dense(self) -> list[Tensor]:
        """Log-probabilities of the dense network for each batch; it has to be trained by then."""
        network = for_inference(copy.deepcopy(self.pruner.network).eval(), self.pruner.layers, self.dtype)
        with torch.inference_mode():
            return [log_softmax(network(inputs).float(), 1) for inputs, _ in self.batches]

    def _evaluate(self, widths: Tensor, key: tuple[int, ...], proposer: str) -> Evaluation:
        dense, start = self._dense, time.perf_counter()
        cost = self.pruner.graph.cost
        network = self.pruner.prune(self.pruner.plan(widths))
        images = self.pruner.images + sum(len(labels) for _, labels in self.batches)
        if self.finetune is not None:
            self.finetune(network)
            images += self.finetune.seen
        scores = score(for_inference(network, self.pruner.layers, self.dtype), self.batches, dense)
        seconds = time.perf_counter() - start
        return Evaluation(key, int(cost.macs(widths)), int(cost.params(widths)), *scores, seconds, images, proposer)


def best_of(evaluations: list[Evaluation]) -> Evaluation | None:
    """The evaluation with the highest top-1, then the lowest cross-entropy, then the first; None of none."""
    return max(evaluations, key=lambda item: (item.top1, -item.cross_entropy), default=None)


def within(graph: Prunable, budget: Budget, evaluation: Evaluation) -> bool:
    """Whether a candidate meets a budget: a policy for all budgets also evaluates some that do not."""
    return bool(budget.met(graph, torch.tensor([evaluation.widths]))[0])


def score(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], dense: list[Tensor]
) -> tuple[float, float, float]:
    """Score a network in evaluation mode.

    Args:
        network: The network.
        batches: Inputs `(B, C, H, W)` and labels `(B,)`.
        dense: The dense network's log-probabilities `(B, classes)` of each batch.

    Returns:
        Top-1 accuracy in percent, mean cross-entropy in nats, and mean divergence KL(dense || network) in nats.
    """
    correct, loss, divergence, images = 0, 0.0, 0.0, 0
    with torch.inference_mode():
        for (inputs, labels), reference in zip(batches, dense, strict=True):
            log_probs = log_softmax(network(inputs).float(), 1)
            correct += int((log_probs.argmax(1) == labels).sum())
            loss += float(nll_loss(log_probs, labels, reduction="sum"))
            divergence += float(kl_div(log_probs, reference, log_target=True, reduction="sum"))
            images += len(labels)
    # A network whose outputs are not numbers ranks behind every other.
    loss, divergence = (value / images if math.isfinite(value) else math.inf for value in (loss, divergence))
    return 100 * correct / images, loss, divergence
