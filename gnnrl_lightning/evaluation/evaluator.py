"""Scores candidates on the search split, and remembers what it has scored."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, nll_loss

from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.evaluation import Evaluation
from gnnrl_lightning.evaluation.inference import for_inference
from gnnrl_lightning.evaluation.pruner import Pruner
from gnnrl_lightning.evaluation.short_finetune import ShortFinetune
from gnnrl_lightning.memory import keep_freed_memory

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16}
"""Name -> precision of weights and activations of a candidate that is scored."""


class Evaluator:
    """Prunes a candidate, scores it on the search split, and caches it by its widths.

    Args:
        pruner: Makes the pruned networks.
        search: The search split.
        normalize: uint8 images -> network inputs.
        batch_size: Images in a batch.
        precision: "32", or "bf16" for bfloat16 weights and activations.
        finetune: Trains each candidate for a few steps before it is scored; None: none is.
    """

    def __init__(
        self,
        pruner: Pruner,
        search: ImageSet,
        normalize: Callable[[Tensor], Tensor],
        batch_size: int = 256,
        precision: str = "32",
        finetune: ShortFinetune | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision is {precision!r}: expected one of {', '.join(PRECISIONS)}")
        keep_freed_memory()
        self.pruner = pruner
        self.dtype = PRECISIONS[precision]
        self.search, self.normalize, self.batch_size = search, normalize, batch_size
        self.finetune = finetune
        self._known: dict[tuple[int, ...], Evaluation] = {}

    def learn(self, evaluations: Iterable[Evaluation]) -> None:
        """Take over what was evaluated elsewhere or before: it is not evaluated again."""
        for evaluation in evaluations:
            self._known.setdefault(evaluation.widths, evaluation)

    def __call__(self, widths: Tensor, proposer: str) -> Evaluation:
        """Score the candidate `widths (G,)`."""
        key = tuple(int(width) for width in widths)
        known = self._known.get(key)
        if known is not None:
            return replace(known, proposer=proposer, seconds=0.0, images=0)
        evaluation = self._known[key] = self._evaluate(widths, key, proposer)
        return evaluation

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs `(B, C, H, W)` and labels `(B,)` of the search split."""
        parts = zip(self.search.images.split(self.batch_size), self.search.labels.split(self.batch_size), strict=True)
        layout = {"dtype": self.dtype, "memory_format": torch.channels_last}
        return [(self.normalize(images).to(**layout), labels) for images, labels in parts]

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
