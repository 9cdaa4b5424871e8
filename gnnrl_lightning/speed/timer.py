"""What measures latency: operators and whole networks, through a back end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from gnnrl_lightning.networks.copies import independent_copy
from gnnrl_lightning.report.progress import ShownSteps, hidden_steps
from gnnrl_lightning.speed.backend import NETWORK, Cell, Pass, Prepare, Prepared, Shaped
from gnnrl_lightning.speed.backends import BACKENDS
from gnnrl_lightning.speed.inference import PRECISIONS
from gnnrl_lightning.speed.memory import heap_alone, keep_kernels
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.rounds import clock_of, measured_ms, reference_operator, with_threads
from gnnrl_lightning.trees import Tree, floats, take, to_device

TABLE_ROUNDS = 5

LEAST_ROUNDS, MOST_ROUNDS, MEASUREMENTS = 5, 15, 60
"""Rounds in which whole networks are measured, and measurements in all of them together: a pair gets most rounds."""

Loaded = tuple[Callable[..., Any], Tree]
"""A network or the function of an operator, and its inputs, on the device."""


@runtime_checkable
class Timer(Protocol):
    """Measures latency: milliseconds of one forward pass of a batch."""

    def check(self, network: nn.Module) -> None:
        """Raise `UserError` if the back end cannot run a network."""
        ...

    def operators(self, cells: Sequence[Cell]) -> list[float]:
        """Measure operators with input and output channels."""
        ...

    def networks(self, networks: Sequence[nn.Module]) -> list[float]:
        """Measure whole networks, in alternation."""
        ...


class RealTimer:
    """Measures on this machine, in interleaved rounds, see `rounds`.

    Args:
        options: What is measured, and with what.
        device: Device of the networks.
        example: One example of the networks' input.
        steps: Shows progress.

    Raises:
        UserError: The back end cannot run here.
    """

    def __init__(
        self, options: LatencyOptions, device: torch.device, example: Tree, steps: ShownSteps = hidden_steps
    ) -> None:
        self.options, self.steps = options, steps
        self.threads = options.threads or torch.get_num_threads()
        self.dtype = PRECISIONS[options.precision]
        self.backend = BACKENDS.find(options.backend, "latency.backend")
        self.device = self.backend.device or device
        self.backend.check(options.precision, self.device)
        self._prepare = self.backend.opened(self.threads)
        repeated = take(example, torch.zeros(options.batch_size, dtype=torch.int64))
        self.batch = floats(to_device(repeated, self.device), self.dtype)
        keep_kernels()

    def check(self, network: nn.Module) -> None:
        """See `Timer`. It takes some seconds if the back end prepares networks."""
        if self.backend.keeps:
            self._maker(self._prepare, lambda: self._network(network), NETWORK)()

    def operators(self, cells: Sequence[Cell]) -> list[float]:
        """See `Timer`."""
        prepare = self.backend.opened(self.threads)  # what it keeps of operators is not needed later
        makers = [self._maker(prepare, lambda cell=cell: self._operator(*cell), cell[0].key) for cell in cells]
        return self._measured(makers, TABLE_ROUNDS, "operators")

    def networks(self, networks: Sequence[nn.Module]) -> list[float]:
        """See `Timer`."""
        rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, MEASUREMENTS // len(networks)))
        makers = [self._maker(self._prepare, lambda each=each: self._network(each), NETWORK) for each in networks]
        return self._measured(makers, rounds, "networks")

    def _maker(self, prepare: Prepare, made: Callable[[], Loaded], key: str) -> Callable[[], Pass]:
        """Return what makes a forward pass in each round; the network is prepared in the first one, or in each."""
        kept = list[Prepared]()

        def make() -> Pass:
            network, inputs = made()
            prepared = kept[0] if kept else prepare(network, inputs, key)
            if self.backend.keeps and not kept:
                kept.append(prepared)
            return prepared(inputs)

        return make

    def _operator(self, form: Shaped, inputs: int, outputs: int) -> Loaded:
        made, given = form.made(inputs, outputs, self.options.batch_size)
        made = made.to(self.device, self.dtype) if isinstance(made, nn.Module) else made
        return made, floats(to_device(given, self.device), self.dtype)

    def _network(self, network: nn.Module) -> Loaded:
        return independent_copy(network).eval().to(self.device, self.dtype), self.batch

    def _measured(self, makers: Sequence[Callable[[], Pass]], rounds: int, what: str) -> list[float]:
        clock, reference = clock_of(self.device, self.threads), reference_operator(self.device)
        with (
            heap_alone(),
            with_threads(self.threads),
            self.steps(f"latency of {what}", rounds * len(makers)) as advance,
        ):
            return measured_ms(makers, clock, reference, rounds, advance)
