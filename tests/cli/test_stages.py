"""A run in several stages: files, metrics by stage, and what is left after it is killed."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gnnrl_lightning.cli import main
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.runs.folder import RunFolder
from tests.support.workplace import working_in

ROOT = Path(__file__).parents[2]
STAGED = {
    "budget": {"macs": 0.3},
    "stages": {"shares": [0.7, "50%"], "epochs": 1},
    # 13 evaluations for the first stage's sensitivity and passes, 6 starting candidates, a round of 4.
    "search": {"evaluations": 23},
    "model": {"proxy_warmup": 1, "proxy_between": 0, "proxy_episodes": 8},
    "pretraining": {"epochs": 1},
    "finetuning": {"epochs": 1, "distillation_weight": 0.5},
    "delivery": {"formats": ["weights"]},
    "latency": {"batch_size": 4},
    "run": {"threads": 1},
}
NEW = ["fit", "--config", "small.yaml", "--config", "rounds.yaml", "--config", "staged.yaml", "--run.name"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    with working_in(tmp_path_factory.mktemp("stages")) as folder:
        (folder / "staged.yaml").write_text(yaml.safe_dump(STAGED))
        yield folder


@pytest.fixture(scope="module")
def whole(workplace):
    """The folder of a run that was never interrupted."""
    main([*NEW, "whole"])
    return workplace / "runs" / "whole"


def result_of(folder):
    """The figures without what depends on the clock."""
    result = json.loads((folder / "result.json").read_text())
    for row in (result["search"], *(stage["search"] for stage in result["stages"])):
        row.pop("seconds")
    for name in ("dense", "pruned"):
        result[name].pop("latency_ms")
    return result


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return [{key: value for key, value in row.items() if not clocked(key)} for row in csv.DictReader(file)]


def clocked(key):
    return key.endswith(("charts/eps", "proxy/episodes_per_second", "result/latency_ms"))


def assert_same(folder, whole):
    """Bit for bit, except for times."""
    assert result_of(folder) == result_of(whole) and rows_of(folder) == rows_of(whole)
    for stage in ("stage-1", "stage-2", "."):
        journals = [(each / stage / "journal.jsonl").read_text().splitlines() for each in (folder, whole)]
        lines = [[{**json.loads(line), "seconds": 0, "check": 0} for line in journal] for journal in journals]
        assert lines[0] == lines[1]
        names = [path.relative_to(whole) for path in sorted((whole / stage).glob("*/*.safetensors"))]
        assert len(names) >= 4
        for name in names:
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_stage_is_a_run_within_the_run(whole):
    files = {"agent.ckpt", "policy.safetensors", "pruned.safetensors", "sensitivity.safetensors", "checksums.json"}
    for name, more in (("stage-1", {"dense.safetensors"}), ("stage-2", set()), (".", set())):
        assert {path.name for path in (whole / name / "checkpoints").iterdir()} == files | more
        assert (whole / name / "pruned" / "recipe.json").is_file()
    assert not [path for path in whole.rglob("*") if path.name == "config.yaml" and path.parent != whole]
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert config["stages"] == STAGED["stages"] and config["finetuning"]["epochs"] == 1


def test_metrics_have_the_name_of_the_stage_before_theirs(whole):
    columns = {key for row in rows_of(whole) for key, value in row.items() if value}
    for stage in ("stage-1/", "stage-2/", ""):
        assert {f"{stage}pruned/val/top1", f"{stage}rollout/reward_best", f"{stage}epoch"} <= columns
        assert {f"{stage}result/top1_search", f"{stage}result/macs_ratio"} <= columns
    assert "dense/val/top1" in columns and "stage-1/dense/val/top1" not in columns
    assert not [column for column in columns if "test" in column]


def test_an_earlier_stage_can_be_tested_by_itself(whole, capsys):
    artifact = str(whole / "stage-1" / "pruned")
    main(["validate", "--config", "small.yaml", "--config", "rounds.yaml", "--artifact", artifact])
    after = result_of(whole)["stages"][0]["top1_search_after"]
    assert f"top-1 on the holdout: {after:.2f}" in capsys.readouterr().out


def test_the_widths_are_those_of_groups_of_the_dense_network(workplace, whole):
    """With which it can be pruned at once: prune has no stages, whatever the configuration says."""
    dense = str(whole / "stage-1" / "checkpoints" / "dense.safetensors")
    options = ["--checkpoint", dense, "--widths", str(whole / "result.json"), "--run.name", "at_once"]
    main(["prune", *NEW[1:-1], *options])
    pruned = json.loads((workplace / "runs" / "at_once" / "result.json").read_text())["pruned"]
    assert pruned["widths"] == result_of(whole)["pruned"]["widths"]
    assert pruned["macs"] == result_of(whole)["pruned"]["macs"]


def test_a_run_stopped_in_its_second_stage_is_resumed(workplace, whole, monkeypatch, capsys):
    append, calls = Journal.append, []

    def stopping(journal, record):
        calls.append(journal.path.parent.name)
        if calls.count("stage-2") == 8:  # of its first round
            os.kill(os.getpid(), signal.SIGTERM)
        append(journal, record)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", stopping)
        with pytest.raises(SystemExit) as end:
            main([*NEW, "stopped"])
    assert end.value.code == 143
    assert capsys.readouterr().err == "stopped; resume with: python -m gnnrl_lightning fit --resume runs/stopped\n"
    folder = workplace / "runs" / "stopped"
    assert (folder / "stage-1" / "result.json").exists() and not (folder / "stage-2" / "result.json").exists()
    before = (folder / "stage-1" / "journal.jsonl").read_bytes()
    monkeypatch.chdir(workplace)
    main(["fit", "--resume", "runs/stopped"])
    assert (folder / "stage-1" / "journal.jsonl").read_bytes() == before
    assert_same(folder, whole)


# A separate program that is killed when a method is called in a folder of this name, for the n-th time.
KILLED = """
import os, signal, sys
from gnnrl_lightning.__main__ import main
from gnnrl_lightning.files import keep
from gnnrl_lightning.job import cuts, stages

owner, name, folder = {
    "between": (stages, "check", None),
    "saving": (RunFolder, "write_result", "stage-2"),
    "tuning": (cuts, "finetune", "stage-2"),
}[sys.argv[1]]
whole = getattr(owner, name)

def wrapped(*arguments, **named):
    if folder is None or any(getattr(each, "path", None) and each.path.name == folder for each in arguments):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **named)

setattr(owner, name, wrapped)
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["between", "tuning", "saving"])
def test_a_run_killed_between_or_in_its_stages_is_never_killed(workplace, whole, moment):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(workplace)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, moment, *NEW, moment]
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = workplace / "runs" / moment
    assert (folder / "stage-1" / "result.json").exists() and not (folder / "stage-2" / "result.json").exists()
    main(["fit", "--resume", str(folder)])
    assert_same(folder, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages.shares", "[0.5, 0.7]"], "stages.shares is [0.5, 0.7]: expected falling shares"),
        (["--stages.shares", "[0.2]"], "stages.shares has 0.2, and the budget is macs 0.3 of the dense network"),
        (["--stages.shares", "[60M]"], "stages.shares is ['60M']: expected shares of the dense network's cost"),
        (["--stages.epochs", "[1]"], "stages.epochs is [1] and stages.shares [0.7, '50%']: expected one number"),
    ],
)
def test_stages_that_do_not_fall_to_the_budget_are_refused_in_one_line(workplace, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        main([*NEW, "refused", *options])
    assert end.value.code == 2 and not (workplace / "runs" / "refused").exists()
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_limits_of_the_search_hold_in_each_stage(workplace):
    """Without time for an iteration, the starting candidates are all that each stage has."""
    main([*NEW, "limited", "--trainer.max_time", "00:00:00:00"])
    for folder in (workplace / "runs/limited", workplace / "runs/limited/stage-1"):
        proposers = {json.loads(line)["proposer"] for line in (folder / "journal.jsonl").read_text().splitlines()}
        assert "uniform" in proposers and "agent" not in proposers


def test_overwriting_a_run_deletes_its_stages(whole, tmp_path):
    folder = RunFolder(tmp_path / "run")
    for each in (folder, folder.stage(1), folder.stage(2)):
        each.path.mkdir()
        each.write_config("search: {}\n")
    assert folder.stages == [folder.stage(1), folder.stage(2)]
    RunFolder.create(tmp_path, "run", overwrite=True)
    assert folder.stages == [] and not folder.config.exists()
