"""Progress bars of a run: for the search, for each training, and for other long operations."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import get_console
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gnnrl_lightning.quiet import without_others_warnings


class _Bar(Progress):
    """A named bar with a count, a few figures and the time left."""

    def __init__(self, name: str, unit: str, total: int | None) -> None:
        super().__init__(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn(unit + "{task.fields[figures]}, left"),
            TimeRemainingColumn(compact=True),
            console=_console(),
        )
        self.task = self.add_task(name, total=total, figures="")


def _console() -> Console:
    """The console of the bars. In a notebook without ipywidgets they are text: rich would warn at each redrawing."""
    return get_console() if find_spec("ipywidgets") is not None else Console(force_jupyter=False)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Let Lightning only warn within this block: devices and the ends of trainings would bury what we show.

    Warnings that its use of PyTorch causes are hidden, see `gnnrl_lightning.quiet`.
    """
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.WARNING))
    try:
        with without_others_warnings():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


ShownSteps = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""`(name of an operation, number of steps) -> context manager`, which yields a function to call after each step."""


@contextmanager
def shown_steps(name: str, steps: int) -> Iterator[Callable[[], None]]:
    """Show a bar during an operation of a few steps.

    Args:
        name: Name of the operation.
        steps: Number of its steps.

    Yields:
        A function to call after each step.
    """
    with _Bar(name, "steps", steps) as bar:
        yield lambda: bar.update(bar.task, advance=1)


@contextmanager
def hidden_steps(name: str, steps: int) -> Iterator[Callable[[], None]]:
    """Show no bar; see `shown_steps`."""
    yield lambda: None


class _BarCallback(Callback, ABC):
    """A callback that shows a bar on rank 0 from the start of `fit` until its end or an error."""

    def __init__(self) -> None:
        self.bar: _Bar | None = None

    @abstractmethod
    def make(self, trainer: Trainer) -> _Bar:
        """Return the bar to show."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        if trainer.is_global_zero:
            self.bar = self.make(trainer)
            self.bar.start()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the bar, which remains visible."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the bar and release the terminal."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


@dataclass(frozen=True)
class SearchStatus:
    """Status of a running search, shown by the bar.

    Args:
        evaluations: Evaluations so far.
        best_reward: Highest reward so far; None before the first evaluation.
        kept: Limited metric -> cost of the best candidate, relative to the dense network; empty before that.
    """

    evaluations: int
    best_reward: float | None = None
    kept: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.best_reward is None:
            return ""
        return f", best {self.best_reward:.4f}" + "".join(f", {name} {share:.1%}" for name, share in self.kept.items())


class _SearchBar(_Bar):
    """A bar that reads the status each time it is drawn: evaluations happen between Lightning's hooks."""

    def __init__(self, status: Callable[[], SearchStatus], evaluations: int, name: str) -> None:
        self.status = status
        super().__init__(name, "evaluations", evaluations)

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.tasks:
            status = self.status()
            self.update(self.task, completed=status.evaluations, figures=str(status))
        return super().get_renderables()


class SearchProgress(_BarCallback):
    """Bar with evaluation count, best reward, MACs kept and time left, while the agent searches.

    Args:
        status: Returns the status of the search; called from the drawing thread.
        evaluations: Evaluation budget of the search.
        name: Name of the stage of a run in several; None: it is the only one, or the last one.
    """

    def __init__(self, status: Callable[[], SearchStatus], evaluations: int, name: str | None = None) -> None:
        super().__init__()
        self.status, self.evaluations = status, evaluations
        self.name = "search" if name is None else f"{name} search"

    def make(self, trainer: Trainer) -> _Bar:
        """Return the bar of the search."""
        return _SearchBar(self.status, self.evaluations, self.name)


class TrainingProgress(_BarCallback):
    """Bar with epochs, loss and time left, while a network trains.

    Args:
        name: Name of the network.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def make(self, trainer: Trainer) -> _Bar:
        """Return the bar of the training."""
        return _Bar(self.name, "epochs", trainer.max_epochs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start at the completed epochs of a resumed training."""
        if self.bar is not None:
            self.bar.update(self.bar.task, completed=trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Advance by one epoch."""
        loss = trainer.callback_metrics.get("train/loss")  # read on all ranks: it is a collective operation
        if self.bar is not None:
            figures = "" if loss is None else f", loss {float(loss):.4f}"
            self.bar.update(self.bar.task, advance=1, figures=figures)
