"""The subcommands: names, help, required inputs and outputs. Nothing here imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

PROGRAM = "python -m gnnrl_lightning"


@dataclass(frozen=True)
class Subcommand:
    """Properties of a subcommand.

    Attributes:
        summary: Help text in one sentence, shown by `python -m gnnrl_lightning --help`.
        writes: Whether it creates a run folder.
        shared: Whether several processes share its work.
        alone: Whether it must run in a single process. If neither `shared` nor `alone`, there is no work to share.
        resumes: Whether `--resume FOLDER` resumes an interrupted run of it.
        restores: Verb for its use of trained weights (--artifact or --checkpoint), if it needs them.
        hidden: Arguments of its method that are not command-line options.
        configured: Whether its arguments are those of a configuration.
    """

    summary: str
    writes: bool = False
    shared: bool = False
    alone: bool = False
    resumes: bool = False
    restores: str | None = None
    hidden: frozenset[str] = frozenset()
    configured: bool = True


LIGHTNING_FIT = frozenset({"model", "train_dataloaders", "val_dataloaders", "datamodule", "ckpt_path", "weights_only"})

SUBCOMMANDS = {
    "fit": Subcommand(
        "Search, prune, fine-tune, test once and save: the whole job.",
        writes=True,
        shared=True,
        resumes=True,
        hidden=LIGHTNING_FIT,
    ),
    "pretrain": Subcommand("Train the dense network and save its weights.", writes=True, shared=True, resumes=True),
    "finetune": Subcommand(
        "Train a pruned network (--artifact) or the dense one (--checkpoint) further and save it.",
        writes=True,
        shared=True,
        resumes=True,
        restores="fine-tune",
    ),
    "validate": Subcommand(
        "Print the primary figure of the network or of a pruned one (--artifact) on the held-out examples.",
        restores="validate",
    ),
    "test": Subcommand(
        "Print the primary figure of the network or of a pruned one (--artifact) on the test examples.", restores="test"
    ),
    "compare": Subcommand(
        "Compare the agent with every other search method; resumes an earlier comparison of the same --run.name.",
        writes=True,
        alone=True,
    ),
    "predict": Subcommand(
        "Apply a trained policy (--model.policy_file) to the network for --budgets, no search; print the widths.",
        alone=True,
    ),
    "prune": Subcommand(
        "Prune to the widths in a file (--widths), without a search; fine-tune, test once and save.",
        writes=True,
        alone=True,
    ),
    "inspect": Subcommand(
        "Show the prunable channel groups and their limits, the frozen groups with reasons, and the costs."
    ),
    "report": Subcommand(
        "Write report.html of finished runs again, or one page that compares several (--compare).", configured=False
    ),
    "push": Subcommand(
        "Send the pruned network of a run, with a model card, to a repository of the Hugging Face hub.",
        configured=False,
    ),
    "pull": Subcommand(
        "Fetch a pruned network from the Hugging Face hub, and compare its files with their checksums.",
        configured=False,
    ),
}

CONFIGURED = {name: row for name, row in SUBCOMMANDS.items() if row.configured}
"""The subcommands of Lightning's command line; the others have their own arguments."""
