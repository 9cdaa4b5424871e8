"""The subcommands: their names, help and options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer


@dataclass(frozen=True)
class Subcommand:
    """What a subcommand takes and leaves.

    Attributes:
        writes: It makes a run.
        shared: Several processes share its work.
        alone: Several processes would disturb it. With neither of the two there is nothing to share.
        restores: What it does with trained weights, of --artifact or --checkpoint, where it needs them.
        hidden: Arguments of its method that are not offered.
    """

    writes: bool = False
    shared: bool = False
    alone: bool = False
    restores: str | None = None
    hidden: frozenset[str] = frozenset()


LIGHTNING_FIT = frozenset({"model", "train_dataloaders", "val_dataloaders", "datamodule", "ckpt_path", "weights_only"})

SUBCOMMANDS = {
    "fit": Subcommand(writes=True, shared=True, hidden=LIGHTNING_FIT),
    "pretrain": Subcommand(writes=True, shared=True),
    "finetune": Subcommand(writes=True, shared=True, restores="fine-tune"),
    "validate": Subcommand(restores="validate"),
    "test": Subcommand(restores="test"),
    "compare": Subcommand(writes=True, alone=True),
    "predict": Subcommand(alone=True),
    "inspect": Subcommand(),
}


class SubcommandTrainer(Trainer):
    """A trainer with a method for each subcommand: LightningCLI takes names, help and options from them."""

    def fit(self, *args: Any, resume: str | None = None, **kwargs: Any) -> None:
        """Search, prune, fine-tune, test once and save: the whole job.

        Args:
            *args: As Lightning's.
            resume: Folder of a run that was interrupted: it goes on, as its config.yaml says, without other options.
            **kwargs: As Lightning's.
        """
        super().fit(*args, **kwargs)

    def pretrain(self) -> None:
        """Train the dense network and save its weights."""

    def finetune(self) -> None:
        """Train a pruned network (--artifact) or the dense one (--checkpoint) further and save it."""

    def validate(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Print the top-1 accuracy on the search split, of the network or of a pruned one (--artifact)."""

    def test(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Print the top-1 accuracy on the test images, of the network or of a pruned one (--artifact)."""

    def compare_methods(self) -> None:
        """Compare the agent with every other way to choose widths; goes on with a comparison of the same --run.name."""

    compare = compare_methods  # jsonargparse names the options' group after the function, and `compare` is a section

    def predict(self, json: str | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply a trained policy (--model.policy) to the network for --budgets, without any search; print the widths.

        Args:
            json: File to write the same to, as JSON.
        """

    def inspect(self, json: str | None = None, figure: str | None = None) -> None:
        """Show what can be pruned: channel groups, frozen groups with reasons, cost, smallest reachable cost.

        Args:
            json: File to write the same to, as JSON.
            figure: File to draw the computational graph to: .png, .svg or .pdf.
        """
