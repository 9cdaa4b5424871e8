"""The report of a run, made from the files in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.files import os_errors, replacing
from gnnrl_lightning.job.comparison import stem
from gnnrl_lightning.objective import find_objective
from gnnrl_lightning.objective.protocol import record as objective_record
from gnnrl_lightning.report.loggers import Evidence
from gnnrl_lightning.report.metrics import read_rows
from gnnrl_lightning.report.pages.comparison_page import comparison_figures, comparison_page
from gnnrl_lightning.report.pages.drawing import styled
from gnnrl_lightning.report.pages.records import COMPRESS, Losses, RunRecord
from gnnrl_lightning.report.pages.run_page import run_figures, run_page
from gnnrl_lightning.report.pages.runs_page import check_comparable, runs_page
from gnnrl_lightning.report.pages.words import candidate_table, repeat_command, result_table, stage_rows
from gnnrl_lightning.runs.folder import SENSITIVITY, RunFolder
from gnnrl_lightning.runs.integrity import read_figures, read_result
from gnnrl_lightning.runs.settings import read_config
from gnnrl_lightning.surrogate.sensitivity import load_sensitivity


def write_report(folder: RunFolder, subcommand: str) -> Path:
    """Write report.html and its figures as PNG files.

    Returns:
        Path of the page.

    Raises:
        UserError: There is nothing to report yet.
    """
    if subcommand == "compare":
        return _write_methods(folder)
    record = read_run(folder, subcommand)
    with styled():
        _save(folder.figures, run_figures(record))
    return _write(folder.report, run_page(record))


def write_comparison(runs: Mapping[RunFolder, str], path: Path) -> Path:
    """Write a page that compares the results of runs.

    Args:
        runs: Folder -> the subcommand that made the run.
        path: File to write, in a folder that exists.

    Returns:
        The same path.

    Raises:
        UserError: The runs cannot be compared.
    """
    of_methods = [str(folder.path) for folder, subcommand in runs.items() if subcommand == "compare"]
    if of_methods:
        raise UserError(f"--compare: {', '.join(of_methods)} is a run of compare: give runs of fit or prune")
    records = [read_run(folder, subcommand) for folder, subcommand in runs.items()]
    check_comparable(records)
    return _write(path, runs_page(records))


def evidence(folder: RunFolder) -> Evidence:
    """Return what the loggers of a finished run show besides metrics: the tables and figures of its report."""
    result = read_result(folder) if folder.result.exists() else None
    compared = _compared(folder) if folder.compare.exists() else None
    tables = {
        "results": [] if result is None else result_table(result),
        "stages": [] if result is None else _named(*stage_rows(result)),
        "candidates": candidate_table(Journal(folder.journal).read()),
        "runs": [] if compared is None else _runs(compared["rows"]),
    }
    found = {name: rows for name, rows in tables.items() if rows}
    return Evidence(found, sorted(folder.figures.glob("*.png")), folder.pruned if folder.pruned.is_dir() else None)


def _named(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    return [dict(zip(headings, cells, strict=True)) for cells in rows]


def _runs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs of a comparison with single values, the same for all; budgets, of which some are shares, as text.

    Only some runs have finalists, candidates alike or checks of the latency.
    """
    names = dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, (list, dict)))
    return [{**{name: row.get(name) for name in names}, "budget": str(row["budget"])} for row in rows]


def _write_methods(folder: RunFolder) -> Path:
    """Write the report of a comparison of methods."""
    if not folder.compare.exists():
        raise UserError(f"{folder.path} has no compare.json: the comparison has not finished, repeat its command")
    found = _compared(folder)

    def journal(budget: str, method: str, seed: int | None) -> list[dict[str, Any]]:
        return Journal(folder.comparison / f"{stem(method, budget, seed)}.jsonl").read()

    with styled():
        drawn = [(f"{kind}-{budget}", figure) for kind, budget, figure in comparison_figures(found, journal)]
        _save(folder.figures, drawn)
    _, text = read_config(folder)
    command = repeat_command("compare", folder.path)
    return _write(folder.report, comparison_page(folder.path.resolve().name, command, text, found, journal))


def _compared(folder: RunFolder) -> dict[str, Any]:
    return read_figures(folder.compare, "the comparison is summed up again")


def _save(folder: Path, figures: Iterable[tuple[str, Figure]]) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, drawn in figures:
        path = folder / f"{name}.png"
        with os_errors(path):
            drawn.savefig(path, dpi=200)


def _write(path: Path, page: str) -> Path:
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def read_run(folder: RunFolder, subcommand: str) -> RunRecord:
    """Read the files of a run; those that it does not have are left out.

    Raises:
        UserError: There is neither a result nor candidates nor metrics, or a file was damaged or edited.
    """
    config, text = read_config(folder)
    result = read_result(folder) if folder.result.exists() else None
    candidates, rows = Journal(folder.journal).read(), read_rows(folder.metrics)
    metrics = [{name: float(value) for name, value in row.items() if value} for row in rows]
    if result is None and not candidates and not metrics:
        raise UserError(f"{folder.path} has nothing to report yet: expected a result, candidates or metrics")
    if result is None and subcommand == COMPRESS:
        raise UserError(f"{folder.path} has no result.json: repeat the call of `compress`, which resumes it")
    objective = objective_record(find_objective(config["objective"])) if result is None else result["objective"]
    saved, losses = folder.weights(SENSITIVITY), None
    if saved.is_file():
        sensitivity = load_sensitivity(saved)
        losses = Losses(sensitivity.ratios, sensitivity.measured.tolist())
    return RunRecord(folder.path, subcommand, config, text, objective, result, candidates, metrics, losses)
