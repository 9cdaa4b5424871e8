"""The report of a run: whether it worked, what it cost, and how it came about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from matplotlib.figure import Figure

from gnnrl_lightning.report.costs import alike_line, latency_line
from gnnrl_lightning.report.files import files_line, lossy_formats, lossy_line
from gnnrl_lightning.report.pages import markup
from gnnrl_lightning.report.pages.candidate_figures import candidates_figure, search_figure
from gnnrl_lightning.report.pages.drawing import styled, svg
from gnnrl_lightning.report.pages.network_figures import (
    layers_figure,
    sensitivity_figure,
    times_figure,
    widths_figure,
)
from gnnrl_lightning.report.pages.records import COMPRESS, NETWORKS, RunRecord
from gnnrl_lightning.report.pages.training_figures import learning_figure, policy_figure, surrogate_figure
from gnnrl_lightning.report.pages.words import (
    candidate_rows,
    finder,
    prediction_rows,
    prune_command,
    repeat_command,
    result_rows,
    stage_rows,
    title,
    verdict,
)
from gnnrl_lightning.report.table import finals_line

CAPTION = (
    "Figures of the test set, which is read once, when the search is over; pruned networks are fine-tuned alike. "
    "Time: of a forward pass."
)

CANDIDATES = (
    "On the holdout, before fine-tuning; costs are shares of the dense network's. A dropped candidate was worse than "
    "the best one on a part of the examples; its figures are estimates from that part."
)

FRONT = (
    "What the search has found for budgets of its range: for each the best candidate by what the search maximises, "
    "before fine-tuning. {} makes, fine-tunes and saves one of them. Rewards below are of candidates with different "
    "budgets."
)

STAGES = (
    "Each stage searches, prunes and fine-tunes what the one before has left; shares are those of the dense network. "
    "The figures and the table of candidates below are of the last stage."
)


@dataclass(frozen=True)
class Panel:
    """A figure of the report.

    Args:
        draw: Draws it; None: the run's files lack what it draws.
        heading: Its heading.
        caption: What it shows.
    """

    draw: Callable[[RunRecord], Figure | None]
    heading: str
    caption: str


PANELS: Mapping[str, Panel] = {
    "candidates": Panel(
        candidates_figure,
        "Score against cost",
        "Every candidate of the search, before fine-tuning. The line connects those that no other one beats in both. "
        "Delivered: the best by what the search maximises, or the fastest of those that are as good.",
    ),
    "search": Panel(
        search_figure,
        "The search over time",
        "What the search maximises, by who proposed the candidate; higher is better. A reward by divergence is minus "
        "its logarithm.",
    ),
    "widths": Panel(widths_figure, "Widths", "Channels of each group before and after; groups are pruned together."),
    "layers": Panel(layers_figure, "MACs by layer", "Where the multiply-accumulates are, before and after."),
    "times": Panel(
        times_figure,
        "Time by layer",
        "Predicted from the times of single operators, scaled to the predicted time of the network. Others: operators "
        "without multiply-accumulates, such as additions and poolings.",
    ),
    "sensitivity": Panel(
        sensitivity_figure,
        "Sensitivity",
        "Change of the network's outputs if one group alone is narrowed to this share of its channels.",
    ),
    "policy": Panel(
        policy_figure,
        "The agent",
        "Entropy of the policy, and mean reward of its episodes. With a surrogate, imagined rewards are gains over the "
        "candidate that an episode starts from.",
    ),
    "surrogate": Panel(
        surrogate_figure,
        "The surrogate",
        "Rank correlation (Kendall's tau) of rewards with what was predicted before; 1 is perfect.",
    ),
    "learning": Panel(
        learning_figure,
        "Learning curves",
        "Training of the dense network unless it was given, and fine-tuning of the pruned ones, on training examples "
        "and on the holdout.",
    ),
}
"""Name of a figure, also of its file -> figure."""


def run_figures(record: RunRecord) -> Iterator[tuple[str, Figure]]:
    """Draw the figures for which the run has data; use and save them within `drawing.styled`.

    Args:
        record: The run.

    Yields:
        Name and figure.
    """
    for name, panel in PANELS.items():
        drawn = panel.draw(record)
        if drawn is not None:
            yield name, drawn


def run_page(record: RunRecord) -> str:
    """Return the page of a run.

    Args:
        record: The run.
    """
    with styled():
        figures = [
            markup.figure(svg(drawn, name, PANELS[name].heading), PANELS[name].heading, PANELS[name].caption)
            for name, drawn in run_figures(record)
        ]
    named = title(record.result) if record.result else f"{record.network}: {record.subcommand} without a result"
    parts = [
        markup.heading(named, 1),
        markup.paragraph(f"Run {record.name}, {record.subcommand}, seed {record.seed}", "about"),
        *_summary(record),
        markup.heading("Figures") if figures else "",
        markup.block(figures, "figures"),
        *_details(record),
    ]
    return markup.page(f"{record.name}: {named}", parts)


def _summary(record: RunRecord) -> Iterator[str]:
    """The verdict and the table of results; for an unfinished run, how far it is."""
    if record.result is None:
        text = f"This run has no result.json; candidates evaluated: {len(record.candidates)}."
        yield markup.block([markup.paragraph(text)], "verdict")
        return
    lossy = [lossy_line(record.result, name) for name in lossy_formats(record.result)]
    lines = [latency_line(record.result), alike_line(record.result), *lossy, files_line(record.result)]
    said = [*verdict(record.result), *map(markup.sentence, filter(None, lines)), *_found(record)]
    yield markup.block([markup.paragraph(text) for text in said], "verdict")
    yield markup.table(*result_rows(record.result), strong="ours")
    lower = "" if record.figure.higher_is_better else f" {record.figure.label}: lower is better."
    yield markup.paragraph(f"{CAPTION}{lower}", "about")
    if record.result["search"].get("front"):
        yield markup.heading("Other budgets")
        yield markup.table(*prediction_rows(record.result, record.result["search"]["front"]))
        command = f"`{prune_command(record.folder, record.config)}`"
        python = "`compress` by a function that asks for its widths"
        yield markup.paragraph(FRONT.format(python if record.subcommand == COMPRESS else command), "about")
    if record.result.get("stages"):
        yield markup.heading("Stages")
        yield markup.table(*stage_rows(record.result))
        yield markup.paragraph(STAGES, "about")


def _found(record: RunRecord) -> Iterator[str]:
    """Who found the network, and what a single run does not tell."""
    search = (record.result or {}).get("search", {})
    if "evaluations" not in search:
        return
    stages = (record.result or {}).get("stages")
    found = f"in the last stage {finder(search)}" if stages else finder(search)
    scored = len(record.candidates)
    if scored < search["evaluations"]:
        found += f"; candidates: {scored}, the other evaluations are converted passes over examples"
    yield (
        f"{found[0].upper()}{found[1:]}. This is one run: small differences may be chance, `compare` repeats a search "
        "with several seeds."
    )
    if search.get("finals"):
        yield f"{finals_line(search['finals'])}."


def _details(record: RunRecord) -> Iterator[str]:
    """Numbers behind the figures, the environment, and how to repeat the run."""
    result = record.result or {}
    if "groups" in result:
        rows = [name for name in ("uniform", "pruned") if name in result]
        stages = result.get("stages", [])[:-1]  # the last one is ours
        widths = zip(*(each["widths"] for each in [*stages, *(result[name] for name in rows)]), strict=True)
        cells = [
            [f"`{name}`", str(number), str(dense), *map(str, own)]
            for number, ((name, dense), own) in enumerate(zip(result["groups"].items(), widths, strict=True), 1)
        ]
        heads = ["group", "number", "dense", *(f"stage {each['stage']}" for each in stages)]
        heads += [*("ours" if name == "pruned" else name for name in rows)]
        yield markup.folded("Widths of all groups", markup.table(heads, cells))
    if "layers" in result:
        yield _layers(result["layers"])
    if record.candidates:
        rows = candidate_rows({"objective": record.objective}, record.candidates)
        yield markup.folded("All candidates", markup.table(*rows) + markup.paragraph(CANDIDATES, "about"))
    yield markup.heading("Repeat")
    if record.subcommand == COMPRESS:
        yield markup.paragraph("A run of `gnnrl_lightning.compress`: the same call in another folder repeats it.")
    else:
        yield markup.code(repeat_command(record.subcommand, record.folder))
    facts = {**result.get("machine", {}), **result.get("versions", {})}
    if facts:
        yield markup.table(["environment", ""], [[name, str(value)] for name, value in facts.items()], kind="facts")
    yield markup.folded("Configuration", markup.code(record.configuration))
    if result:
        yield markup.folded("Search", markup.code(yaml.safe_dump(dict(result["search"]), sort_keys=False)))


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    """Return MACs and, where they are predicted, milliseconds of all layers as a folded table."""
    names, timed = [name for name in NETWORKS if name in layers[0]["macs"]], "latency_ms" in layers[0]
    cells = [
        [
            f"`{layer['name']}`",
            str(number),
            *(f"{layer['macs'][name]:,}" for name in names),
            *(f"{layer['latency_ms'][name]:.3g}" for name in names if timed),
        ]
        for number, layer in enumerate(layers, 1)
    ]
    heads = ["layer", "number", *(NETWORKS[name] for name in names)]
    heads += [f"{NETWORKS[name]}, ms" for name in names if timed]
    return markup.folded(f"MACs{' and times' if timed else ''} of all layers", markup.table(heads, cells))
