"""The help of a subcommand: what its options mean here, and those of Lightning's trainer that mean nothing left out."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager

from gnnrl_lightning.cli.subcommands import PROGRAM
from gnnrl_lightning.cost.metrics import METRICS

NETWORK_HELP = "Class or function that makes the network; without a dot, one of gnnrl_lightning.networks."
ARTIFACT_HELP = "Folder of a pruned network to use in place of the network: fit prunes it further."
OBJECTIVE_HELP = (
    "Task of the network: classification, segmentation, regression, or the import path of an Objective; "
    "class_path and init_args if it has arguments."
)
LIMITS_HELP = "Limits on metrics of your own, by import path: {my_package.energy: 60%}."
MULTIPLE_HELP = "Widths are multiples of this, or dense; auto: the number with which the network is fastest here."
MIN_WIDTH_HELP = (
    "Smallest number of channels of every group; 0: groups without which the network stays connected may be "
    "removed entirely, with their layers (inspect shows which); null: 0 if the latency is limited, else 1."
)
BUDGETS_HELP = "Shares of the dense MACs, below 1, for which predict proposes widths."

LIMITED = {
    "macs": "multiply-accumulates of one example",
    "params": "parameters",
    "nonzero": "parameters that no mask sets to zero, with groups.masks",
    "activations": "the peak memory of feature maps, in bytes, for one example in float32",
    "latency": "the predicted latency of a forward pass, with the settings of `latency`; the winner is measured",
}
"""Metric -> what a budget limits."""

TRAINER = {
    "accelerator": "cpu, gpu, ... or auto.",
    "strategy": "Strategy of several processes: auto, ddp, ddp_find_unused_parameters_true or _false.",
    "devices": "Devices per machine, one process each, which share training and search; auto: 1.",
    "num_nodes": "Machines with this number of devices; torchrun or SLURM starts the processes.",
    "precision": "Precision of all training, in place of that of pretraining and finetuning: 32, bf16 or 16; null: as "
    "they say.",
    "logger": "Loggers in addition to metrics.csv; null: only metrics.csv. WandbLogger or TensorBoardLogger with its "
    "arguments, see experiments/wandb.yaml and experiments/tensorboard.yaml.",
    "callbacks": "Callbacks of the search, Lightning's or your own, with their arguments.",
    "max_epochs": "Largest number of iterations of the search, including imagined ones; null: as many as "
    "search.evaluations allows.",
    "max_time": "Time after which the search ends, DD:HH:MM:SS; the best candidate so far is delivered.",
    "gradient_clip_val": "Largest gradient norm of the policy, in place of model.max_grad_norm.",
    "deterministic": "Whether to use only deterministic operators; warn: warn where there is none.",
    "detect_anomaly": "Whether autograd names the operator that gives NaN.",
    "profiler": "Profiler of the search: simple, advanced, pytorch, or your own.",
}
"""Argument of the trainer that help shows -> what it means here. All others are accepted as well."""

MEANINGS = {f"trainer.{name}": text for name, text in TRAINER.items()} | {
    "config": "Configuration file, YAML or JSON, or the name of an experiment, such as digits; of several, later ones "
    "take precedence.",
    "print_config": "Print the configuration and exit; skip_default omits keys that have their defaults.",
    "seed_everything": "Seed of weights, training and search; true: a random seed.",
    "data": "The examples: a class of gnnrl_lightning.data, or a LightningDataModule of your own; its "
    "arguments are options, such as --data.batch_size 64.",
}
"""Option -> what it means, in place of what Lightning says."""

TITLES = {
    "trainer": "Lightning's Trainer for the search; its devices apply to all training. Other arguments of "
    "lightning.pytorch.Trainer are accepted, except those that have a key of their own here",
    "model": "What trains the policy",
    "data": "The examples",
}
"""Section -> title of its options, in place of the first line of a docstring."""


def limit_help(name: str) -> str:
    """Return the help of a budget's limit on a metric of `METRICS`."""
    metric = METRICS[name]
    absolute = f'with its unit ("3 {metric.unit}")' if metric.measured else "above 1 (also 60M)"
    return (
        f"Upper limit on {LIMITED.get(name, name)}: a share of the dense network's (0.5, 50%), or a number {absolute}."
    )


def arrange(parser: ArgumentParser, subcommand: str, own: list[str]) -> None:
    """Shorten the usage of a subcommand, and show the options first that only it has (`own`)."""
    options = " ".join(f"[--{name} {name.upper()}]" for name in own)
    parser.usage = f"{PROGRAM} {subcommand} [--config FILE ...] [--KEY VALUE ...] {options}".rstrip()
    groups = parser._action_groups
    for group in groups:
        keys = {action.dest.split(".")[0] for action in group._group_actions}
        group.title = next((title for key, title in TITLES.items() if keys == {key}), group.title)
        if keys and keys <= set(own):
            group.title = f"options of {subcommand}"
    groups.sort(key=lambda group: group.title != f"options of {subcommand}")


@contextmanager
def explained(parser: ArgumentParser) -> Iterator[None]:
    """Give the options of a subcommand's parser their meaning within this block.

    Only there: jsonargparse leaves options without help out of the configurations that it writes.
    """
    before = [(action, action.help) for action in parser._actions]
    for action, _ in before:
        section, _, name = action.dest.partition(".")
        if action.dest in MEANINGS:
            action.help = MEANINGS[action.dest]
        elif section == "trainer" and name and name.removesuffix(".help") not in TRAINER:
            action.help = SUPPRESS
    try:
        yield
    finally:
        for action, text in before:
            action.help = text
