"""Scores candidates on the search split, in races where that is asked for, and remembers what it has scored."""

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

from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.candidates.short_finetune import ShortFinetune
from gnnrl_lightning.data.image_set import ImageSet
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.racing import Course, estimate, hopeless, random_order, stage_ends
from gnnrl_lightning.evaluation.result import Evaluation, best_of
from gnnrl_lightning.speed.inference import PRECISIONS, for_inference
from gnnrl_lightning.speed.memory import keep_freed_memory, keep_kernels


class Evaluator:
    """Prunes a candidate, scores it on the search split, and caches it by its widths.

    All of that happens on the device that the dense network is on. The search split stays there too, where half of
    the device's free memory holds it; else each batch is sent when it is needed.

    The images are read in a fixed random order. In races a candidate that falls behind the best one asked for so far
    is dropped, see `racing`; every answer, those to known candidates included, may make a new best one, so that a
    search that is repeated with some answers known takes the same course.

    Args:
        pruner: Makes the pruned networks.
        search: The search split.
        normalize: uint8 images -> network inputs.
        batch_size: Images in a batch.
        precision: "32", or "bf16" for bfloat16 weights and activations.
        finetune: Trains each candidate for a few steps before it is scored; None: none is.
        error: Probability with which a candidate as good as the best one may be dropped; None: all are scored on the
            whole split.
        costs: Costs of a candidate `(G,)` by metric, see `BoundBudget.costs`; None: MACs and parameters.
    """

    def __init__(
        self,
        pruner: Pruner,
        search: ImageSet,
        normalize: Callable[[Tensor], Tensor],
        batch_size: int = 256,
        precision: str = "32",
        finetune: ShortFinetune | None = None,
        error: float | None = None,
        costs: Callable[[Tensor], dict[str, int | float]] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision is {precision!r}: expected one of {', '.join(PRECISIONS)}")
        keep_freed_memory()
        keep_kernels()
        self.pruner = pruner
        self.costs = costs or pruner.graph.costs
        self.dtype = PRECISIONS[precision]
        self.search, self.normalize, self.batch_size = search, normalize, batch_size
        self.finetune, self.error = finetune, error
        self._known: dict[tuple[int, ...], Evaluation] = {}
        self._incumbent: Evaluation | None = None

    def learn(self, evaluations: Iterable[Evaluation]) -> None:
        """Take over what was evaluated elsewhere or before: it is not evaluated again.

        It takes the place of what this process has found out itself, so that all know the same. Of several evaluations
        of a candidate the first counts that was not dropped from a race, else the first.
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
            evaluation = replace(known, proposer=proposer, seconds=0.0, images=0)
        if evaluation.course is not None:
            self._incumbent = best_of(filter(None, (self._incumbent, evaluation)))
        return evaluation

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs `(B, C, H, W)` and labels `(B,)` of the search split."""
        search, parts = self.search, random_order(len(self.search)).split(self.batch_size)
        layout = {"dtype": self.dtype, "memory_format": torch.channels_last}
        size = len(search) * math.prod(search.image_shape) * self.dtype.itemsize
        home = self.pruner.device if fits(size, self.pruner.device) else torch.device("cpu")
        return [
            (self.normalize(search.images[part].to(home)).to(**layout), search.labels[part].to(home)) for part in parts
        ]

    @cached_property
    def _stages(self) -> list[slice]:
        """The batches of each stage."""
        sizes = [len(labels) for _, labels in self.batches]
        ends = (len(sizes),) if self.error is None else stage_ends(sizes)
        return [slice(*pair) for pair in zip((0, *ends), ends, strict=False)]

    @cached_property
    def _dense(self) -> list[Tensor]:
        """Log-probabilities of the dense network for each batch; it has to be trained by then."""
        network = for_inference(copy.deepcopy(self.pruner.network).eval(), self.pruner.layers, self.dtype)
        with torch.inference_mode():
            return [log_softmax(network(inputs.to(self.pruner.device)).float(), 1) for inputs, _ in self.batches]

    def _evaluate(self, widths: Tensor, key: tuple[int, ...], proposer: str) -> Evaluation:
        self._dense  # noqa: B018  (not on the first candidate's clock)
        start = time.perf_counter()
        network = self.pruner.prune(self.pruner.plan(widths))
        images = self.pruner.images
        if self.finetune is not None:
            self.finetune(network)
            images += self.finetune.seen
        course = self._run(for_inference(network, self.pruner.layers, self.dtype))
        dropped = course.images < len(self.search)
        if dropped:
            assert self._incumbent is not None and self._incumbent.course is not None
            scores = estimate(course, self._incumbent.course)
        else:
            scores = course.scores
        return Evaluation(
            key,
            self.costs(widths),
            *scores,
            seconds=time.perf_counter() - start,
            images=images + course.images,
            proposer=proposer,
            seen=course.images,
            dropped=dropped,
            course=None if dropped or self.error is None else course,
        )

    def _run(self, network: nn.Module) -> Course:
        """Score a network stage by stage, until it has seen all images or is dropped."""
        course, incumbent = Course(), None if self._incumbent is None else self._incumbent.course
        for stage in self._stages:
            course = course.followed_by(*outcome(network, self.batches[stage], self._dense[stage]))
            if self.error is None or incumbent is None or course.images == len(self.search):
                continue
            if hopeless(course, incumbent, len(self._stages), self.error):
                break
        return course


def outcome(
    network: nn.Module, batches: list[tuple[Tensor, Tensor]], dense: list[Tensor]
) -> tuple[Tensor, float, float]:
    """What a network in evaluation mode makes of some images.

    Args:
        network: The network.
        batches: Inputs `(B, C, H, W)` and labels `(B,)`.
        dense: The dense network's log-probabilities `(B, classes)` of each batch, on the network's device.

    Returns:
        Whether each image is right, bool `(n,)`; sums of the cross-entropy and of the divergence KL(dense || network)
        over the images, in nats.
    """
    correct, loss, divergence = [], [], []
    with torch.inference_mode():
        for (inputs, labels), reference in zip(batches, dense, strict=True):
            log_probs = log_softmax(network(inputs.to(reference.device)).float(), 1)
            labels = labels.to(reference.device)
            correct.append(log_probs.argmax(1) == labels)
            loss.append(nll_loss(log_probs, labels, reduction="sum"))
            divergence.append(kl_div(log_probs, reference, log_target=True, reduction="sum"))
    # The device is asked once, after all batches.
    sums = torch.stack([torch.stack(loss), torch.stack(divergence)]).cpu()
    return torch.cat(correct).cpu(), sum(sums[0].tolist()), sum(sums[1].tolist())


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes take half of a device's free memory at most; the CPU has no choice."""
    if device.type != "cuda":
        return True
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return 2 * size <= torch.cuda.mem_get_info(device)[0] + cached
