"""The fastest precision and memory format to train a network with, measured on steps of its training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from gnnrl_lightning.networks import eval_mode
from gnnrl_lightning.networks.channels_last import store_channels_last
from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.options import AUTO
from gnnrl_lightning.speed.inference import PRECISIONS
from gnnrl_lightning.speed.rounds import synchronize
from gnnrl_lightning.training.options import REFERENCE, TrainingOptions
from gnnrl_lightning.trees import Tree, call, channels_last, count, device_of, floats

FORMATS = (False, True)
"""Memory formats that are measured: the usual one, and channels last."""

USUAL = (REFERENCE, False)
"""Way to which all others are compared."""

ROUNDS = 3
"""Measurements of each way, in turn, of which the fastest one counts; one step before them warms up."""

WORTH = 0.9
"""Share of the time of float32 in the usual memory format below which another way is taken."""


@dataclass(frozen=True)
class TunedTraining:
    """The fastest way to train a network, with the measurements.

    Attributes:
        precision: Precision, see `TrainingOptions`.
        channels_last: Whether the memory format is channels last.
        milliseconds: Precision and memory format -> time of a step per example, milliseconds.
        refused: Precisions in which the network fails, or does not agree with float32.
        trained: What is trained so, for the user.
    """

    precision: str
    channels_last: bool
    milliseconds: Mapping[tuple[str, bool], float]
    refused: tuple[str, ...] = ()
    trained: str = "the network"

    def __str__(self) -> str:
        """One line for the user."""
        times = ", ".join(f"{value:.2g} in {named(*way)}" for way, value in self.milliseconds.items())
        wrong = "".join(f"; {name} does not agree with {REFERENCE}" for name in self.refused)
        way = named(self.precision, self.channels_last)
        return f"{self.trained}: training in precision {way} (milliseconds an example: {times}{wrong})"

    def applied(self, options: TrainingOptions) -> TrainingOptions:
        """Options whose precision is auto, decided."""
        last = self.channels_last if options.channels_last == AUTO else options.channels_last
        return replace(options, precision=self.precision, channels_last=last)


def named(precision: str, last: bool) -> str:
    """A precision and a memory format in words."""
    return f"{precision} with channels last" if last else precision


def tune_training(
    network: nn.Module,
    inputs: Tree,
    targets: Tree,
    objective: Objective,
    clock: Callable[[], float] = time.perf_counter,
) -> TunedTraining:
    """Measure steps of training, forward and backward, of copies of a network.

    A precision below float32 is taken only if the outputs agree with those of float32 (`Objective.agrees`), and
    whatever differs from float32 in the usual memory format only if it takes less than `WORTH` of its time.

    Args:
        network: The network, some of whose parameters require gradients; it is not changed.
        inputs: Normalised inputs of N examples, on the network's device.
        targets: Their targets.
        objective: Computes the loss, and decides whether outputs agree.
        clock: Returns the time, seconds.
    """
    steps: dict[tuple[str, bool], Callable[[], None]] = {}
    refused = []
    with isolate_rng():
        reference = _outputs(network, inputs, REFERENCE)
        for precision in PRECISIONS:
            try:
                agrees = precision == REFERENCE or objective.agrees(_outputs(network, inputs, precision), reference)
            except (RuntimeError, TypeError):  # an operator that has no kernel for this precision
                agrees = False
            found: dict[tuple[str, bool], Callable[[], None]] = {}
            for last in FORMATS if agrees else ():
                step = Step(network, inputs, targets, objective, precision, last)
                try:
                    step()
                except (RuntimeError, TypeError):  # no kernel, or a view that is impossible with channels last
                    if (precision, last) == USUAL:
                        raise
                    continue
                found[precision, last] = step
            if not found:
                refused.append(precision)
            steps |= found
        seconds: dict[tuple[str, bool], list[float]] = {way: [] for way in steps}
        for _ in range(ROUNDS):
            for way, step in steps.items():
                start = clock()
                step()
                seconds[way].append(clock() - start)
    times = {way: 1000 * min(each) / count(inputs) for way, each in seconds.items()}
    best = min(times, key=lambda way: times[way])
    best = best if times[best] < WORTH * times[USUAL] else USUAL
    return TunedTraining(*best, times, tuple(refused))


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    """Run operators that allow it in a lower precision, as Lightning does."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != REFERENCE)


def _outputs(network: nn.Module, inputs: Tree, precision: str) -> Tree:
    """Outputs `(N, ...)` in evaluation mode, float32."""
    with eval_mode(network), torch.no_grad(), _autocast(device_of(inputs), precision):
        return floats(call(network, inputs))


class Step:
    """A step of training of a copy of a network, without the optimiser.

    Args:
        network: The network.
        inputs: Normalised inputs.
        targets: Targets.
        objective: Computes the loss.
        precision: Precision, see `TrainingOptions`.
        last: Whether the memory format is channels last.
    """

    def __init__(
        self, network: nn.Module, inputs: Tree, targets: Tree, objective: Objective, precision: str, last: bool
    ) -> None:
        self.network = independent_copy(network).train()
        self.inputs, self.targets, self.objective, self.precision = inputs, targets, objective, precision
        if last:
            store_channels_last(self.network)
            self.inputs = channels_last(inputs)

    def __call__(self) -> None:
        """Compute the gradients, and wait until they are computed."""
        device = device_of(self.inputs)
        self.network.zero_grad()
        with torch.enable_grad(), _autocast(device, self.precision):
            loss = self.objective.loss(call(self.network, self.inputs), self.targets)
        loss.backward()
        synchronize(device)
