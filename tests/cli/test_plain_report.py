import errno
import json
import re
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gnnrl_lightning.cli import main
from gnnrl_lightning.report.pages.run_page import PANELS
from tests.cli.refused import assert_refused

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
# The agent of small.yaml learns without a surrogate, and the latency is not limited.
DRAWN = set(PANELS) - {"surrogate", "times"}


def test_a_run_ends_with_its_report(fitted):
    page = (fitted / "report.html").read_text(encoding="utf-8")
    result = json.loads((fitted / "result.json").read_text())
    assert f"{result['pruned']['top1_test_after']:.2f} % top-1 on the test set (360 examples)" in page
    assert len(re.findall("<svg", page)) == len(DRAWN)
    figures = {path.stem: path.read_bytes()[:8] for path in (fitted / "figures").iterdir()}
    assert figures == dict.fromkeys(DRAWN, b"\x89PNG\r\n\x1a\n")
    assert str(fitted.name) in page and result["machine"]["processor"] in page


def test_report_writes_the_same_from_the_files_alone(fitted, workplace, capsys):
    before = (fitted / "report.html").read_text(encoding="utf-8")
    (fitted / "report.html").unlink()
    (fitted / "figures" / "old.png").write_bytes(b"")
    main(["report", "runs/fitted"])
    assert capsys.readouterr().out == "written to runs/fitted/report.html\n"
    assert (fitted / "report.html").read_text(encoding="utf-8") == before
    assert {path.stem for path in (fitted / "figures").iterdir()} == DRAWN


def test_a_full_disk_is_named_with_the_figure(fitted, workplace, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(SystemExit):
        main(["report", "runs/fitted"])
    assert re.fullmatch(r"error: runs/fitted/figures/\w+.png: No space .*: make room\n", capsys.readouterr().err)


def test_runs_are_compared_on_one_page(fitted, workplace, capsys):
    shutil.copytree(fitted, workplace / "runs" / "copied")
    main(["report", "--compare", "runs/fitted", "runs/copied"])
    page = workplace / "runs" / "comparison.html"
    assert str(page) in capsys.readouterr().out and "2 copied" in page.read_text(encoding="utf-8")
    main(["report", "--compare", "runs/fitted", "runs/copied", "--output", "two.html"])
    assert (workplace / "two.html").read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_an_interrupted_run_is_reported_as_far_as_it_is(fitted, workplace):
    folder = workplace / "runs" / "interrupted"
    folder.mkdir()
    for name in ("config.yaml", "journal.jsonl", "metrics.csv"):
        shutil.copy(fitted / name, folder)
    main(["report", "runs/interrupted"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "This run has no result.json; candidates evaluated: 22." in page
    assert {path.stem for path in (folder / "figures").iterdir()} == {"candidates", "search", "policy", "learning"}


REFUSED = {
    "nothing": ([], "report: the following arguments are required: RUN"),
    "no folder": (["runs/none"], "runs/none is not the folder of a run .it has no config.yaml.: give runs/NAME"),
    "one alone": (["--compare", "runs/fitted"], "--compare got 1 runs: expected 2 to 6"),
    "output": (["runs/fitted", "--output", "x.html"], "--output x.html needs --compare"),
    "no place": (["--compare", "runs/fitted", "runs/fitted", "--output", "no/x.html"], "folder no does not exist"),
    "a folder": (
        ["--compare", "runs/fitted", "runs/fitted", "--output", "runs"],
        "--output runs is a folder: expected",
    ),
    "empty": (["runs/empty"], "runs/empty has nothing to report yet"),
    "unfinished comparison": (["runs/comparing"], "runs/comparing has no compare.json"),
    "comparisons": (["--compare", "runs/fitted", "runs/comparing"], "runs/comparing is a run of compare"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(case, fitted, workplace, capsys):
    for name, first in (("empty", "fit"), ("comparing", "compare")):
        (workplace / "runs" / name).mkdir(exist_ok=True)
        (workplace / "runs" / name / "config.yaml").write_text(f"# python -m gnnrl_lightning {first} --config\na: 1\n")
    arguments, message = REFUSED[case]
    with pytest.raises(SystemExit) as end:
        main(["report", *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and re.search(message, error), error


def test_wandb_gets_what_the_report_shows(fitted, workplace, monkeypatch):
    """Offline: tables, figures and the artifact are among its local files."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    given = ["--checkpoint", str(fitted / "checkpoints" / "dense.safetensors"), "--finetuning.epochs", "1"]
    given += ["--trainer.max_epochs", "4", "--run.root", "shown"]
    main(["fit", "--config", "small.yaml", "--config", str(EXPERIMENTS / "wandb.yaml"), *given])
    (folder,) = (workplace / "shown").iterdir()
    (files,) = (workplace / "wandb").glob(f"offline-run-*-{folder.name}/files")
    media = {path.name.rsplit("_", 2)[0] for path in (files / "media").rglob("*.*")}
    assert media == {"results", "candidates", *DRAWN}
    (table,) = (files / "media" / "table" / "report").glob("results_*.json")
    columns, rows = (json.loads(table.read_text())[name] for name in ("columns", "data"))
    result = json.loads((folder / "result.json").read_text())
    tested = dict(zip(columns, rows[-1], strict=True))
    assert [row[0] for row in rows] == ["dense", "uniform", "ours"]
    assert (tested["top1"], tested["macs"]) == (result["pruned"]["top1_test_after"], result["pruned"]["macs"])


def test_tensorboard_by_configuration(fitted, workplace):
    pytest.importorskip("tensorboard")
    given = ["--pretraining.epochs", "1", "--run.root", "board_runs"]
    main(["pretrain", "--config", "small.yaml", "--config", str(EXPERIMENTS / "tensorboard.yaml"), *given])
    assert list((workplace / "runs" / "tensorboard" / "version_0").glob("events.*"))
    assert len(list((workplace / "board_runs").iterdir())) == 1


def test_a_missing_package_is_named(workplace, monkeypatch, capsys):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard.{name}", False)
    arguments = ["--config", str(EXPERIMENTS / "tensorboard.yaml")]
    assert_refused(capsys, workplace, arguments, "error: a package is missing: Neither `tensorboard` nor")
