"""The training of an agent; what Lightning refuses of the user's learner and callbacks becomes an error of one line."""

from __future__ import annotations

from pathlib import Path
from traceback import walk_tb

import lightning
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.call import _call_callback_hooks

from gnnrl_lightning.errors import UserError, one_line, with_place
from gnnrl_lightning.quiet import without_others_warnings
from gnnrl_lightning.rl.learners.base import GraphLearner
from gnnrl_lightning.rl.learners.own import check_trained

LIGHTNING = Path(lightning.__file__).parent
OWN = f"{__name__.partition('.')[0]}."
"""Beginning of the names of this package's modules."""


class _HasOptimizer(Callback):
    """Refuses a learner that gives Lightning no optimizer; Lightning itself would only warn."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trained = any(optimizer.param_groups for optimizer in trainer.optimizers)
        if pl_module.automatic_optimization and not trained:
            name = type(pl_module).__name__
            raise UserError(f"{name}.configure_optimizers returns None: expected an optimizer, as its base class does")


def fit_agent(agent: GraphLearner, trainer: Trainer, checkpoint: Path | None = None) -> None:
    """Train an agent.

    Args:
        agent: The agent, with its environments.
        trainer: Its trainer.
        checkpoint: Lightning's checkpoint from which it resumes; None: it begins.

    Raises:
        UserError: Lightning refuses what the user's own learner returns, a callback of Lightning fails, or the agent
            has not been trained, see `gnnrl_lightning.rl.learners.own`.
    """
    trainer.callbacks.append(_HasOptimizer())  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with without_others_warnings():
            trainer.fit(agent, ckpt_path=checkpoint, weights_only=True)
    except (UserError, OSError):
        raise
    except Exception as error:  # Lightning and its callbacks raise many kinds
        refusal = _refusal(error, agent)
        if refusal is None:
            raise
        raise UserError(refusal) from error
    check_trained(agent, trainer)


def _refusal(error: Exception, agent: GraphLearner) -> str | None:
    """Say what a callback of Lightning, or Lightning's check of the user's learner, has refused; None: neither has."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame in frames:
        if frame.f_code is _call_callback_hooks.__code__:
            kind = type(frame.f_locals["callback"])
            if kind.__module__.startswith("lightning."):
                return f"callback {kind.__name__} fails: {with_place(error)}; change its arguments, or leave it out"
    raised = Path(frames[-1].f_code.co_filename)
    if type(agent).__module__.startswith(OWN) or not raised.is_relative_to(LIGHTNING):
        return None
    return f"Lightning refuses {type(agent).__name__}: {one_line(error)}"
