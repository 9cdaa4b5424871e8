"""The subcommands: names, help and what each takes and leaves; nothing here imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Subcommand:
    """What a subcommand takes and leaves.

    Attributes:
        summary: What it does, in a sentence: the help of `python -m gnnrl_lightning --help`.
        writes: It makes a run.
        shared: Several processes share its work.
        alone: Several processes would disturb it. With neither of the two there is nothing to share.
        restores: What it does with trained weights, of --artifact or --checkpoint, where it needs them.
        hidden: Arguments of its method that are not offered.
    """

    summary: str
    writes: bool = False
    shared: bool = False
    alone: bool = False
    restores: str | None = None
    hidden: frozenset[str] = frozenset()


LIGHTNING_FIT = frozenset({"model", "train_dataloaders", "val_dataloaders", "datamodule", "ckpt_path", "weights_only"})

SUBCOMMANDS = {
    "fit": Subcommand(
        "Search, prune, fine-tune, test once and save: the whole job.", writes=True, shared=True, hidden=LIGHTNING_FIT
    ),
    "pretrain": Subcommand("Train the dense network and save its weights.", writes=True, shared=True),
    "finetune": Subcommand(
        "Train a pruned network (--artifact) or the dense one (--checkpoint) further and save it.",
        writes=True,
        shared=True,
        restores="fine-tune",
    ),
    "validate": Subcommand(
        "Print the top-1 accuracy on the search split, of the network or of a pruned one (--artifact).",
        restores="validate",
    ),
    "test": Subcommand(
        "Print the top-1 accuracy on the test images, of the network or of a pruned one (--artifact).", restores="test"
    ),
    "compare": Subcommand(
        "Compare the agent with every other way to choose widths; goes on with a comparison of the same --run.name.",
        writes=True,
        alone=True,
    ),
    "predict": Subcommand(
        "Apply a trained policy (--model.policy) to the network for --budgets, without any search; print the widths.",
        alone=True,
    ),
    "prune": Subcommand(
        "Prune to the widths in a file (--widths), without any search; fine-tune, test once and save.",
        writes=True,
        alone=True,
    ),
    "inspect": Subcommand(
        "Show what can be pruned: channel groups, limits, frozen groups with reasons, cost, smallest reachable cost."
    ),
}
