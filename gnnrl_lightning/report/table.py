"""The table at the end of a run: dense, uniform pruning at the same budget, and ours."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gnnrl_lightning.objective import Figure
from gnnrl_lightning.objective.protocol import primary_figure
from gnnrl_lightning.report.costs import (
    RATIO,
    TIME_HINT,
    alike_line,
    cost_names,
    latency_batch,
    latency_line,
    milliseconds,
    readable,
    saves_little_time,
    shown_costs,
)
from gnnrl_lightning.report.files import files_line, lossy_formats, lossy_line
from gnnrl_lightning.report.pages.records import NETWORKS
from gnnrl_lightning.report.pages.words import finder, prediction_rows

FRONT_HINT = "prune --widths .../result.json --share BUDGET makes, fine-tunes and saves one of them"
"""How to get a network of the front."""


def result_table(result: Mapping[str, Any]) -> Table:
    """Lay out the figures of a run.

    Args:
        result: The figures as in result.json: costs of one example, latency in milliseconds, the objective's figures.

    Returns:
        A table with one row for each network.
    """
    given, batch = result["budget"], latency_batch(result)
    budget = ", ".join(f"{name} {_limit(given[name])}" for name in cost_names(result["pruned"]) if name in given)
    costs = shown_costs(result)
    budget = f"budget: {budget}" if budget else "widths as given"
    primary, figure = primary_figure(result)
    unit = f" in {figure.unit}" if figure.unit else ""
    table = Table(
        title=f"{result['network']} on {result['dataset']}, {budget}",
        caption=f"ms/{batch}: measured latency for {batch} examples; {figure.label} on the test examples{unit}, before "
        "and after fine-tuning",
    )
    _add_columns(table, *(part for cost in (*costs, f"ms/{batch}") for part in (cost, "kept")), "pruned", "tuned")
    for key, label in NETWORKS.items():
        if key in result:  # no uniform network if the user gave the widths
            table.add_row(label, *_cells(result[key], result["dense"], costs, primary, figure))
    for name, row in lossy_formats(result).items():
        tested = {**result["pruned"], f"{primary}_test_after": row[f"{primary}_test"]}
        *same, _, _, _, after = _cells(tested, result["dense"], costs, primary, figure)
        table.add_row(f"ours, {name}", *same, "", "", "", after)
    return table


def _add_columns(table: Table, *figures: str) -> None:
    """Add a column for the networks' names and one for each figure; in a narrow terminal, cells have several lines."""
    table.add_column("network", overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", overflow="fold")


def _limit(limit: float | str) -> str:
    return limit if isinstance(limit, str) else f"{limit:g}"


def _share(share: float) -> str:
    return "100%" if share == 1 else f"{share:.1%}"


def _cells(
    row: Mapping[str, Any], dense: Mapping[str, Any], costs: Sequence[str], primary: str, figure: Figure
) -> list[str]:
    before = row.get(f"{primary}_test_before")
    after = row[f"{primary}_test"] if before is None else row[f"{primary}_test_after"]
    return [
        *(part for name in costs for part in (readable(row[name]), _share(row[name] / dense[name]))),
        milliseconds(row["latency_ms"]),
        _share(row["latency_ms"] / dense["latency_ms"]),
        "" if before is None else figure.text(before),
        figure.text(after),
    ]


def as_text(show: Callable[[Console], None]) -> str:
    """Return what is printed as plain text, whatever the terminal, the notebook or FORCE_COLOR.

    Args:
        show: Prints to a console.
    """
    text = io.StringIO()
    show(Console(file=text, width=120, force_jupyter=False, force_terminal=False))
    return text.getvalue().rstrip()


def print_result(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the table and who found the network.

    Args:
        result: The figures as in result.json.
        console: Where to print; standard output by default.
    """
    console = console or Console()
    console.print(result_table(result))
    _print_stages(result, console)
    _print_layers(result, console)
    _print_time(result, console)
    _print_latency(result, console)
    _print_finetuning(result, console)
    _print_files(result, console)
    search = result["search"]
    primary, figure = primary_figure(result)
    if "evaluations" not in search:
        found = figure.with_unit(result["pruned"][f"{primary}_search"])
        console.print(f"{figure.label} on the holdout {found} before fine-tuning")
        return
    agent = search["agent_best"]
    best = "" if agent is None else f", the agent's own best {figure.with_unit(agent)}"
    console.print(
        f"{finder(search)}; {figure.label} on the holdout {figure.with_unit(result['pruned'][f'{primary}_search'])}"
        f"{best}",
        soft_wrap=True,
    )
    if search.get("finals"):
        console.print(finals_line(search["finals"]))
    if search.get("front"):
        console.print(front_table(result))
        console.print(FRONT_HINT, soft_wrap=True)
    proxy = search.get("proxy")
    if proxy is not None and proxy["first_iteration"] is not None:
        tau = "no ranking" if proxy["tau"] is None else f"Kendall's tau {proxy['tau']:.2f}"
        console.print(
            f"the sensitivity alone ranks candidates with {tau}; the agent's first iteration had "
            f"{figure.with_unit(proxy['first_iteration'])} on average, its last one "
            f"{figure.with_unit(proxy['last_iteration'])}",
            soft_wrap=True,
        )


def finals_line(finals: Mapping[str, Any]) -> str:
    """Say what the finals of a search were; `finals` as in result.json."""
    return (
        f"{len(finals['trained'])} finalists were trained for a few steps, {finals['seconds']:.0f} s; the best of them "
        "is delivered"
    )


def _print_stages(result: Mapping[str, Any], console: Console) -> None:
    """Say what each of several stages has left, and what fine-tuning has made of it."""
    primary, figure = primary_figure(result)
    for stage in result.get("stages", ()):
        costs = cost_names(stage)
        kept = ", ".join(f"{name} {stage[f'{name}{RATIO}']:.1%}" for name in costs if name in stage["budget"])
        before, after = (figure.with_unit(stage[f"{primary}_search_{when}"]) for when in ("before", "after"))
        found, epochs = stage["search"].get("evaluations", 0), len(stage[f"{primary}_search_epochs"])
        console.print(
            f"stage {stage['stage']}: {kept} after {found} evaluations; {figure.label} on the holdout {before}, after "
            f"{epochs} {'epoch' if epochs == 1 else 'epochs'} {after}",
            soft_wrap=True,
        )


def _print_layers(result: Mapping[str, Any], console: Console) -> None:
    """Say how many layers are left if some are gone entirely."""
    layers = result["layers"]
    left = sum(layer["macs"]["pruned"] > 0 for layer in layers)
    if left < len(layers):
        console.print(f"{left} of {len(layers)} layers are left")


def _print_time(result: Mapping[str, Any], console: Console) -> None:
    """Say so if the pruned network saves MACs and little time."""
    dense, ours = result["dense"], result["pruned"]
    if saves_little_time(dense, ours):
        kept, taken = (ours[name] / dense[name] for name in ("macs", "latency_ms"))
        console.print(f"{kept:.0%} of the MACs take {taken:.0%} of the dense network's time here: {TIME_HINT}")


def _print_latency(result: Mapping[str, Any], console: Console) -> None:
    """Say whether a limit on the latency is met, and of how many candidates the fastest is delivered."""
    for line in filter(None, (latency_line(result), alike_line(result))):
        console.print(line, soft_wrap=True)


def _print_finetuning(result: Mapping[str, Any], console: Console) -> None:
    """Say what fine-tuning has come to on the holdout, and for which networks it was undone."""
    primary, figure = primary_figure(result)
    for key, label in NETWORKS.items():
        row = result.get(key, {})
        epochs = row.get(f"{primary}_search_epochs")
        if not epochs:
            continue
        before, after = (figure.with_unit(row[f"{primary}_search_{when}"]) for when in ("before", "after"))
        best = max(range(len(epochs)), key=lambda epoch: figure.merit(epochs[epoch]))
        others = f", after epoch {best + 1} of {len(epochs)} {figure.with_unit(epochs[best])}"
        console.print(
            f"{label}: {figure.label} on the holdout before fine-tuning {before}, after it {after}"
            + (others if figure.merit(epochs[best]) > figure.merit(epochs[-1]) else ""),
            soft_wrap=True,
        )
        if not row["finetuning_kept"]:
            advice = "try a smaller finetuning.learning_rate"
            console.print(f"{label}: the network before fine-tuning is delivered: {advice}", soft_wrap=True)


def _print_files(result: Mapping[str, Any], console: Console) -> None:
    """Say how large the files are, and what lossy formats have on the holdout."""
    said = [files_line(result), *(lossy_line(result, name) for name in lossy_formats(result))]
    for line in filter(None, said):
        console.print(line, soft_wrap=True)


def score_table(figures: Mapping[str, Any]) -> Table:
    """Lay out what pruning by a score has come to.

    Args:
        figures: Budget, costs and scores, as `gnnrl_lightning.job.compress_by_score.Compressed` has them.

    Returns:
        A table with one row for each network.
    """
    costs = cost_names(figures["pruned"])
    budget = ", ".join(f"{name} {_limit(figures['budget'][name])}" for name in costs if name in figures["budget"])
    table = Table(title=f"{figures['network']}, budget: {budget}", caption="pruned networks repaired, not fine-tuned")
    _add_columns(table, *(part for cost in costs for part in (cost, "kept")), "score")
    for key, label in NETWORKS.items():
        row, dense = figures[key], figures["dense"]
        shares = (part for name in costs for part in (readable(row[name]), _share(row[name] / dense[name])))
        table.add_row(label, *shares, f"{row['score']:.6g}")
    return table


def print_scores(figures: Mapping[str, Any], console: Console) -> None:
    """Print the table of `score_table`, and who found the network.

    Args:
        figures: Likewise.
        console: Where to print.
    """
    console.print(score_table(figures))
    search = figures["search"]
    console.print(f"{finder(search)}; its score in the search {search['score_search']:.6g}", soft_wrap=True)


def prediction_table(found: Mapping[str, Any]) -> Table:
    """Lay out a policy's predictions, one row for each budget.

    Args:
        found: Predictions as `predict --json` writes them.
    """
    table = Table(title=f"{found['network']} on {found['dataset']}: what the policy takes", caption="widths in order")
    heads, rows = prediction_rows(found, found["predictions"])
    for name in (*heads, "widths"):
        table.add_column(name, justify="left" if name == "widths" else "right")
    for cells, row in zip(rows, found["predictions"], strict=True):
        table.add_row(*cells, " ".join(map(str, row["widths"].values())))
    return table


def front_table(result: Mapping[str, Any]) -> Table:
    """Lay out what a search over a range of budgets has found, one row for each of some budgets.

    Args:
        result: The figures as in result.json.
    """
    table = Table(title="the best for other budgets, before fine-tuning")
    heads, rows = prediction_rows(result, result["search"]["front"])
    for name in heads:
        table.add_column(name, justify="right")
    for cells in rows:
        table.add_row(*cells)
    return table


def inspection_tables(found: Mapping[str, Any]) -> list[Table]:
    """Lay out prunable groups and the reasons of frozen ones.

    Args:
        found: Costs, prunable groups and reasons, as `gnnrl_lightning.job.inspection.inspect` returns them.

    Returns:
        The cost, the prunable groups, with whether they may go entirely, and, if channels are frozen, the reasons, the
        one with most MACs first.
    """
    cost = Table(title="cost of one example")
    for name in ("metric", "dense", "smallest reachable"):
        cost.add_column(name, justify="left" if name == "metric" else "right")
    for name in [key for key in found if f"smallest_{key}" in found]:
        smallest = found[f"smallest_{name}"]
        cost.add_row(name, f"{found[name]:,}", f"{smallest:,} ({smallest / found[name]:.2%})")
    kept = f"kept by the user: {', '.join(found['kept'])}" if found["kept"] else None
    groups = Table(title="channel groups", caption=kept)
    for name in ("group", "width", "lowest", "highest", "may go", "parameters with these channels"):
        groups.add_column(name, overflow="fold")  # names are whole: users copy them
    for group in found["groups"]:
        members = ", ".join(f"{member['parameter']}[{member['dimension']}]" for member in group["members"])
        widths = (str(group[name]) for name in ("width", "lowest", "highest"))
        where = members or "parts of a masked weight"
        groups.add_row(group["name"], *widths, "no" if group["stays"] else "yes", where)
    if not found["reasons"]:
        return [cost, groups]
    caption = "MACs: at least how many fewer the smallest network would have without the reason"
    reasons = Table(title="frozen channels", caption=caption)
    for name in ("frozen groups", "channels", "MACs", "operator", "reason", "where", "what to do"):
        reasons.add_column(name, overflow="fold")
    for row in found["reasons"]:
        sizes = (f"{row[name]:,}" for name in ("channels", "macs"))
        words = (row[name] for name in ("operator", "reason", "source", "remedy"))
        reasons.add_row(", ".join(row["groups"]), *sizes, *words)
    return [cost, groups, reasons]
