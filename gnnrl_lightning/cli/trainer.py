"""A trainer with a method for each subcommand, from which LightningCLI derives the command line."""

from __future__ import annotations

import inspect
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from gnnrl_lightning.cli.subcommands import SUBCOMMANDS
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.training.options import PRECISIONS as TRAINED_IN

PRECISIONS = {name: short for short, long in TRAINED_IN.items() for name in (short, long)}
"""Precisions of the trainer with which networks stay in float32, as surgery, search and delivery need them, and what
trainings of networks call them."""

GIVEN = ("accelerator", "devices", "strategy", "num_nodes", "precision")
"""Settings that Lightning refuses depending on each other and on the machine."""

LENGTH = "search.evaluations for a search, pretraining.epochs or finetuning.epochs for a training"
SPLITS = "data.holdout_size for the holdout; all training and test examples are read"
STEPS = "data.batch_size for a training, model.minibatches for a search"
VALIDATED = "pretraining.epochs or finetuning.epochs; after each, the network is validated"
REPLACED = {
    "fast_dev_run": "--config debug after other files, which makes an experiment tiny",
    "max_steps": LENGTH,
    "min_steps": LENGTH,
    "min_epochs": LENGTH,
    "limit_train_batches": SPLITS,
    "limit_val_batches": SPLITS,
    "limit_test_batches": SPLITS,
    "limit_predict_batches": SPLITS,
    "overfit_batches": SPLITS,
    "accumulate_grad_batches": STEPS,
    "val_check_interval": VALIDATED,
    "check_val_every_n_epoch": VALIDATED,
}
"""Settings that would cut the iterations of a search short, or that no training reads -> what to set instead."""

OF_SEARCH = {
    "max_epochs": LENGTH,
    "max_time": LENGTH,
    "gradient_clip_val": "model.max_grad_norm for the search, finetuning.gradient_clip for the training",
}
"""Settings that only the search of `fit` reads -> what to set for other subcommands that train."""


def check_settings(config: Namespace, subcommand: str) -> None:
    """Refuse settings that Lightning would refuse late or not at all, and replace automatic ones.

    A precision of the trainer is that of all trainings, whatever their sections say.

    Args:
        config: The configuration; `trainer` and the precisions of the trainings are changed in place.
        subcommand: The subcommand.

    Raises:
        UserError: A setting is refused.
    """
    trainer = config["trainer"]
    usual = inspect.signature(Trainer).parameters
    for name, instead in REPLACED.items():
        if trainer[name] != usual[name].default:
            raise UserError(f"trainer.{name} is {trainer[name]}, which nothing here reads: leave it out; set {instead}")
    for name, instead in OF_SEARCH.items():
        if trainer[name] is not None and SUBCOMMANDS[subcommand].writes and subcommand != "fit":
            raise UserError(
                f"trainer.{name} is {trainer[name]}, which {subcommand} does not read, only fit: set it to null, and "
                f"{instead}"
            )
    if trainer["callbacks"] and SUBCOMMANDS[subcommand].writes and subcommand != "fit":
        raise UserError(
            f"trainer.callbacks is given, which {subcommand} does not read, only the search of fit: set it to null; "
            "metrics.csv and the loggers have what trainings log"
        )
    if trainer["devices"] == "auto":
        trainer["devices"] = 1
    if trainer["max_epochs"] is not None and trainer["max_epochs"] < 1:
        raise UserError(f"trainer.max_epochs is {trainer['max_epochs']}: expected at least 1, or null")
    if trainer["precision"] is None:
        return
    precision = str(trainer["precision"])
    if precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision is {precision}, which changes the weights: expected one of {', '.join(PRECISIONS)}, or "
            "null"
        )
    for section in ("pretraining", "finetuning"):
        config[section]["precision"] = PRECISIONS[precision]


def as_given(trainer: Namespace) -> str:
    """Return the settings of a trainer that are neither null nor auto as text, for messages."""
    given = [f"{name} {trainer[name]}" for name in GIVEN if trainer[name] not in (None, "auto")]
    return ", ".join(given)


class SubcommandTrainer(Trainer):
    """A trainer with a method for each subcommand: LightningCLI takes names, help and options from them."""

    def fit(self, *args: Any, resume: str | None = None, **kwargs: Any) -> None:
        """Search, prune, fine-tune, test once and save: the whole job.

        Args:
            *args: As Lightning's.
            resume: Folder of an interrupted run to resume with its own config.yaml, without other options.
            **kwargs: As Lightning's.
        """
        super().fit(*args, **kwargs)

    def pretrain(self, resume: str | None = None) -> None:
        """Train the dense network and save its weights.

        Args:
            resume: Folder of an interrupted run to resume with its own config.yaml, without other options.
        """

    def finetune(self, resume: str | None = None) -> None:
        """Train a pruned network (--artifact) or the dense one (--checkpoint) further and save it.

        Args:
            resume: Folder of an interrupted run to resume with its own config.yaml, without other options.
        """

    def validate(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Print the primary figure of the network or of a pruned one (--artifact) on the held-out examples."""

    def test(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Print the primary figure of the network or of a pruned one (--artifact) on the test examples."""

    def compare_methods(self) -> None:
        """Compare the agent with every other search method; resumes an earlier comparison of the same --run.name."""

    compare = compare_methods  # jsonargparse names the options' group after the function, and `compare` is a section

    def predict(self, json: str | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply a trained policy (--model.policy_file) to the network for --budgets, no search; print the widths.

        Args:
            json: File to write as well, as JSON.
        """

    def prune(self, widths: str | None = None, share: float | None = None) -> None:
        """Prune to the widths in a file (--widths), without a search; fine-tune, test once and save.

        Args:
            widths: Output of `predict --json`, a run's result.json, or your own JSON: name of each group -> width.
            share: Share of the dense MACs of the prediction to use, if there are several, or of one of the candidates
                that a search over a range of budgets (episode.macs_range) has named in its result.json.
        """

    def inspect(self, json: str | None = None, figure: str | None = None) -> None:
        """Show the prunable channel groups and their limits, the frozen groups with reasons, and the costs.

        Args:
            json: File to write as well, as JSON.
            figure: File to draw the computational graph to: .png, .svg or .pdf.
        """
