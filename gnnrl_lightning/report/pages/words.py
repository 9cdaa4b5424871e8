"""What a result says, in sentences and cells."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gnnrl_lightning.objective import Figure
from gnnrl_lightning.objective.protocol import primary_figure
from gnnrl_lightning.report.comparison import as_subject, in_words
from gnnrl_lightning.report.costs import (
    PREDICTED,
    RATIO,
    TIME_HINT,
    cost_names,
    latency_batch,
    milliseconds,
    readable,
    saves_little_time,
    shown_costs,
)
from gnnrl_lightning.report.files import lossy_formats
from gnnrl_lightning.report.pages.records import NETWORKS

NAMES = {"macs": "MACs", "params": "parameters", "nonzero": "non-zero parameters", "activations": "activations"}
SAVES = 0.97
"""Highest share of the dense network's time that counts as saved time: a measurement varies by some percent."""


def cost_name(metric: str) -> str:
    """Return the name of a cost for readers."""
    return NAMES.get(metric, metric)


def unit_of(figure: Figure) -> str:
    """Return the unit of a figure with a comma before it, for the end of a label; nothing if it has none."""
    return f", {figure.unit}" if figure.unit else ""


def title(result: Mapping[str, Any]) -> str:
    """Return network, data and budget in a few words."""
    costs, budget = cost_names(result["pruned"]), result["budget"]
    limits = [f"{limit(budget[name])} {cost_name(name)}" for name in budget if name in costs]
    return f"{result['network']} on {result['dataset']}: {'at most ' + joined(limits) if limits else 'widths as given'}"


def limit(value: float | str) -> str:
    """Return an upper limit in words: a share as a percentage, a count with its unit prefix."""
    if isinstance(value, str):
        return f"{value.rstrip('% ')} % of the" if value.endswith("%") else value
    return readable(value) if value > 1 else f"{100 * value:.4g} % of the"


def verdict(result: Mapping[str, Any]) -> list[str]:
    """Return what a reader wants to know first: is it good, what does it cost, is it better than uniform pruning.

    Args:
        result: The figures as in result.json.
    """
    primary, figure = primary_figure(result)
    dense, ours = result["dense"], result["pruned"]
    tested = ours[f"{primary}_test_after"]
    examples = f" ({result['test_examples']:,} examples)" if "test_examples" in result else ""
    against = [compared(figure, tested, dense[f"{primary}_test"], "the dense network")]
    if "uniform" in result:
        uniform = result["uniform"][f"{primary}_test_after"]
        against.append(compared(figure, tested, uniform, "uniform pruning with the same budget and fine-tuning"))
    score = f"The pruned network has {figure.with_unit(tested)} {figure.label} on the test set{examples}: "
    kept = [f"{percent(ours[f'{name}{RATIO}'])} of the {cost_name(name)}" for name in shown_costs(result)]
    return [score + " and ".join(against) + ".", f"It keeps {_kept(kept, dense, ours, latency_batch(result))}."]


def compared(figure: Figure, value: float, reference: float, name: str) -> str:
    """Return how far a figure is better or worse than that of another network.

    Args:
        figure: The figure.
        value: Its value.
        reference: The other network's value.
        name: Name of the other network.
    """
    gain = figure.merit(value) - figure.merit(reference)
    unit = {"%": " points", "": ""}.get(figure.unit, f" {figure.unit}")
    text = figure.text(abs(gain))
    if float(text) == 0:
        return f"the same as {name}"
    return f"{text}{unit} {'better' if gain > 0 else 'worse'} than {name} ({figure.text(reference)})"


def _kept(costs: list[str], dense: Mapping[str, Any], ours: Mapping[str, Any], batch: int) -> str:
    before, after = dense["latency_ms"], ours["latency_ms"]
    measured = f"{after:.3g} ms instead of {before:.3g} ms for a batch of {batch}"
    if after > SAVES * before:
        return f"{joined(costs)}, but saves no time on this device: {measured}; {TIME_HINT}"
    hint = f"; {TIME_HINT}" if saves_little_time(dense, ours) else ""
    return f"{joined([*costs, f'{percent(after / before, 0)} of the time'])}: {measured}{hint}"


def finder(search: Mapping[str, Any]) -> str:
    """Return who found the network, of how many evaluations, and how long it took.

    Args:
        search: Figures of the search, as in result.json.
    """
    spent = f"{search['evaluations']} evaluations, {search['seconds']:.0f} s"
    if search["found_by"] == PREDICTED:
        return f"found after {spent}, when the best candidates were measured and brought to the limit on the latency"
    return f"found by {proposer(search)} in {spent}"


def proposer(search: Mapping[str, Any]) -> str:
    """Return the name of what proposed the network, for readers."""
    if search["found_by"] == PREDICTED:
        return "measuring the latency"
    return as_subject(search["found_by"])


def repeat_command(subcommand: str, folder: Path) -> str:
    """Return the command that repeats a run under another name."""
    return (
        f"python -m gnnrl_lightning {subcommand} --config {shlex.quote(str(folder / 'config.yaml'))} --run.name again"
    )


def prune_command(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the command that prunes to the widths of one of the budgets of a run.

    Args:
        folder: The folder of the run.
        config: Its configuration; without a checkpoint of its own, its network is the one that it has trained.
    """
    command = f"python -m gnnrl_lightning prune --config {shlex.quote(str(folder / 'config.yaml'))}"
    if not config.get("checkpoint") and not config.get("artifact"):
        command += f" --checkpoint {shlex.quote(str(folder / 'checkpoints' / 'dense.safetensors'))}"
    return f"{command} --widths {shlex.quote(str(folder / 'result.json'))} --share BUDGET --run.name NAME"


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.{digits}f} %"


def joined(parts: list[str]) -> str:
    """Return an enumeration: a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def result_table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the results of all networks as numbers, what matters most first: one row for each network.

    Args:
        result: The figures as in result.json.
    """
    primary, _ = primary_figure(result)
    costs, dense, rows = shown_costs(result), result["dense"], []
    reference = dense[f"{primary}_test"]
    for key, name in NETWORKS.items():
        if key not in result:  # no uniform network if the user gave the widths
            continue
        row = result[key]
        after = reference if key == "dense" else row[f"{primary}_test_after"]
        rows.append(
            {
                "network": name,
                primary: after,
                "minus_dense": after - reference,
                **{f"{cost}{RATIO}": row[cost] / dense[cost] for cost in costs},
                f"time{RATIO}": row["latency_ms"] / dense["latency_ms"],
                f"{primary}_before": row.get(f"{primary}_test_before"),
                **{cost: row[cost] for cost in costs},
                "latency_ms": row["latency_ms"],
            }
        )
    for name, row in lossy_formats(result).items():
        after = row[f"{primary}_test"]
        scores = {primary: after, "minus_dense": after - reference}
        untold = dict.fromkeys((f"time{RATIO}", f"{primary}_before", "latency_ms"))
        rows.append({**rows[-1], "network": f"{NETWORKS['pruned']}, {name}", **scores, **untold})
    return rows


def result_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the cells of `result_table`.

    Args:
        result: The figures as in result.json.
    """
    primary, figure = primary_figure(result)
    costs = shown_costs(result)
    headings = [
        "network",
        f"{figure.label}{unit_of(figure)}",
        "minus dense",
        *(f"{cost_name(name)} kept" for name in costs),
        "time",
    ]
    headings += ["before fine-tuning", *map(cost_name, costs), f"ms for {latency_batch(result)}"]
    rows = [
        [
            row["network"],
            figure.text(row[primary]),
            "" if row["network"] == NETWORKS["dense"] else figure.text(row["minus_dense"], sign=True),
            *(percent(row[f"{cost}{RATIO}"]) for cost in costs),
            "" if row[f"time{RATIO}"] is None else percent(row[f"time{RATIO}"], 0),
            "" if row[f"{primary}_before"] is None else figure.text(row[f"{primary}_before"]),
            *(readable(row[cost]) for cost in costs),
            "" if row["latency_ms"] is None else milliseconds(row["latency_ms"]),
        ]
        for row in result_table(result)
    ]
    return headings, rows


def prediction_rows(
    found: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the cells of a table of candidates for several budgets.

    Args:
        found: Figures with the objective.
        predictions: As `gnnrl_lightning.job.prediction.Prediction.as_record` writes them; one at least.
    """
    primary, figure = primary_figure(found)
    costs = [key.removesuffix(RATIO) for key in predictions[0] if key.endswith(RATIO)]
    scored = f"{figure.label} on the holdout{unit_of(figure)}"
    rows = [
        [
            f"{row['macs_budget']:g}",
            *(percent(row[f"{name}{RATIO}"]) for name in costs),
            figure.text(row[f"{primary}_search"]),
        ]
        for row in predictions
    ]
    return ["budget", *(f"{cost_name(name)} kept" for name in costs), scored], rows


def stage_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the cells of a table of the stages of a run; no rows if there is one stage.

    Args:
        result: The figures as in result.json.
    """
    primary, figure = primary_figure(result)
    costs, unit = cost_names(result["pruned"]), unit_of(figure)
    headings = ["stage", "budget", *(f"{cost_name(name)} kept" for name in costs)]
    headings += [f"{figure.label} on the holdout{unit}, pruned", "fine-tuned", "epochs", "evaluations", "found by"]
    rows = [
        [
            str(stage["stage"]),
            joined([f"{limit(stage['budget'][name])} {cost_name(name)}" for name in costs if name in stage["budget"]]),
            *(percent(stage[f"{name}{RATIO}"]) for name in costs),
            figure.text(stage[f"{primary}_search_before"]),
            figure.text(stage[f"{primary}_search_after"]),
            str(len(stage[f"{primary}_search_epochs"])),
            str(stage["search"].get("evaluations", "")),
            proposer(stage["search"]),
        ]
        for stage in result.get("stages", ())
    ]
    return headings, rows


def candidate_rows(found: Mapping[str, Any], journal: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the cells of a table of all candidates.

    Args:
        found: Figures with the objective.
        journal: Records in the order of evaluation; one at least.
    """
    primary, figure = primary_figure(found)
    costs, scores = list(journal[0]["costs"]), [name for name in journal[0]["scores"] if name != primary]
    headings = ["candidate", "proposed by", f"{figure.label}{unit_of(figure)}", *map(in_words, scores)]
    headings += [*(f"{cost_name(name)} kept" for name in costs), "seconds", "dropped"]
    rows = [
        [
            str(number),
            in_words(item["proposer"]),
            _finite(item["scores"].get(primary), f".{figure.digits}f"),
            *(_finite(item["scores"].get(name), ".4g") for name in scores),
            *(percent(item[f"{name}{RATIO}"]) for name in costs),
            f"{item['seconds']:.2f}",
            "yes" if item["dropped"] else "",
        ]
        for number, item in enumerate(journal, 1)
    ]
    return headings, rows


def _finite(value: float | None, form: str) -> str:
    """Format a value of the journal, where null stands for infinity."""
    return "infinite" if value is None else format(value, form)


def candidate_table(journal: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the candidates of a journal as numbers, one row for each.

    Args:
        journal: Records in the order of evaluation.
    """
    return [
        {
            "number": number,
            "proposer": item["proposer"],
            **item["scores"],
            **item["costs"],
            **{f"{cost}{RATIO}": item[f"{cost}{RATIO}"] for cost in item["costs"]},
            "seconds": item["seconds"],
            "dropped": item["dropped"],
        }
        for number, item in enumerate(journal, 1)
    ]
