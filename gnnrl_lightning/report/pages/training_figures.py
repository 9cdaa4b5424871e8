"""Figures of what learns: the agent, its surrogate, and the trained networks."""

from __future__ import annotations

from matplotlib.figure import Figure

from gnnrl_lightning.report.pages.drawing import (
    DENSE,
    HEIGHT,
    MUTED,
    OTHER,
    OURS,
    SCALE,
    START,
    UNIFORM,
    canvas,
    legend,
    logarithmic,
    whole_numbers,
)
from gnnrl_lightning.report.pages.records import NETWORKS, RunRecord
from gnnrl_lightning.report.pages.words import unit_of
from gnnrl_lightning.report.phases import split_stage

FEW = 20
"""Number of epochs below which each has a mark."""
ROOM = 1.1
"""Top of an axis, as a multiple of the largest value, so that its mark is whole."""

COLOURS = {"dense": DENSE, "uniform": UNIFORM, "pruned": OURS}
POLICY = (
    ("losses/entropy", "entropy, nats", OURS, "o"),
    ("proxy/reward_mean", "reward, imagined", START, "^"),
    ("rollout/reward_mean", "reward, evaluated", OURS, "s"),
)
"""Metric, label, colour and mark of what is drawn of the agent."""


def policy_figure(record: RunRecord) -> Figure | None:
    """Entropy of the policy, and mean reward of imagined and of evaluated episodes, by iteration."""
    found = [(record.series(name, "epoch"), *looks) for name, *looks in POLICY]
    found = [(series, *looks) for series, *looks in found if series[0]]
    if not found:
        return None
    drawing, axes = canvas(len(found), HEIGHT * (0.55 + 0.3 * len(found)), sharex=True)
    for each, (series, label, colour, shape) in zip(axes, found, strict=True):
        each.plot(*series, color=colour, marker=shape, markersize=3)
        each.set_ylabel(label)
    axes[-1].set_xlabel("iteration of the agent")
    whole_numbers(axes[-1])
    drawing.align_ylabels()
    return drawing


def surrogate_figure(record: RunRecord) -> Figure | None:
    """Rank correlation of the surrogate's predictions, and distance of new candidates from the best one if known."""
    tau = record.series("surrogate/tau", "search/evaluations")
    distance = record.series("search/distance", "search/evaluations")
    if not tau[0]:
        return None
    drawing, axes = canvas(2 if distance[0] else 1, (1.15 if distance[0] else 0.7) * HEIGHT, sharex=True)
    axes[0].axhline(0, color=MUTED, linewidth=0.8)
    axes[0].plot(*tau, color=OURS, marker="o", markersize=3)
    axes[0].set(ylim=(-1.05, 1.05), ylabel="rank correlation")
    if distance[0]:
        axes[1].plot(*distance, color=OTHER, marker="D", markersize=3)
        axes[1].set_ylabel("distance of new ones\nfrom the best one")
        axes[1].set_ylim(0, ROOM * max(distance[1]) or None)
    axes[-1].set_xlabel("evaluations spent by the agent")
    whole_numbers(axes[-1])
    drawing.align_ylabels()
    return drawing


def learning_figure(record: RunRecord) -> Figure | None:
    """Primary figure and loss of every training, by epoch."""
    stages = {stage for stage, _ in map(split_stage, record.logged()) if stage}
    looks = {"dense": (COLOURS["dense"], NETWORKS["dense"])}
    for number, stage in sorted((int(stage.strip("/").rpartition("-")[2]), stage) for stage in stages):
        looks[f"{stage}pruned"] = SCALE[(number - 1) % len(SCALE)], f"stage {number}"
    looks |= {phase: (COLOURS[phase], name) for phase, name in NETWORKS.items()}
    curves = [(phase, name) for phase in looks for name in record.logged() if name.startswith(f"{phase}/")]
    labels = {record.primary: record.figure.label + unit_of(record.figure), "loss": "loss"}
    shown = {what: [(phase, name) for phase, name in curves if name.endswith(f"/{what}")] for what in labels}
    shown = {what: names for what, names in shown.items() if names}
    if "loss" not in shown:
        return None
    drawing, axes = canvas(len(shown), HEIGHT * (0.75 + 0.25 * len(shown)), sharex=True)
    for each, (what, names) in zip(axes, shown.items(), strict=True):
        for phase, name in names:
            split = name.removeprefix(f"{phase}/").split("/")[0]
            colour, own = looks[phase]
            epochs, values = record.series(name, f"{phase}/epoch")
            line, few = "-" if split == "train" else "--", len(epochs) < FEW
            label = None if own in each.get_legend_handles_labels()[1] else own
            each.plot(
                [epoch + 1 for epoch in epochs], values, line,
                color=colour, marker="o" if few else None, markersize=3, label=label,
            )  # fmt: skip
        each.set_ylabel(labels[what])
    axes[0].plot([], [], "--", color=MUTED, label="on the holdout")
    logarithmic(axes[-1])
    axes[-1].set_xlabel("epoch")
    whole_numbers(axes[-1])
    legend(drawing, axes[0], columns=4)
    drawing.align_ylabels()
    return drawing
