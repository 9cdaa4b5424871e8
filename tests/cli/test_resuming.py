import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import Namespace
from PIL import Image
from safetensors.torch import load_file

from gnnrl_lightning.cli import main
from gnnrl_lightning.cli.resuming import resumed_run, same_wandb_runs
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.files import replacing
from gnnrl_lightning.job import comparison
from gnnrl_lightning.training.checkpoint import LatestCheckpoint
from tests.support.workplace import working_in

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    with working_in(tmp_path_factory.mktemp("resuming")) as folder:
        yield folder


# Three iterations in imagined episodes, a round of four candidates, one more iteration, and a round of the two that are
# left.
NEW = ["fit", "--config", "small.yaml", "--config", "rounds.yaml", "--run.threads", "1", "--run.name"]


def fit(name, *arguments):
    main([*NEW, name, *arguments])


@pytest.fixture(scope="module")
def whole(workplace):
    """The folder of a run that was never interrupted."""
    fit("whole")
    return workplace / "runs" / "whole"


def result_of(folder):
    """The figures without what depends on the clock."""
    result = json.loads((folder / "result.json").read_text())
    result["search"].pop("seconds")
    for name in ("dense", "uniform", "pruned"):
        result[name].pop("latency_ms")
    return result


def journal_of(folder):
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None, "check": None} for line in lines]


def rows_of(folder):
    clock = ("charts/eps", "proxy/episodes_per_second", "result/latency_ms")
    with (folder / "metrics.csv").open() as file:
        return [row | dict.fromkeys(clock) for row in csv.DictReader(file)]


def assert_same(folder, whole):
    """Bit for bit, except for times."""
    assert result_of(folder) == result_of(whole)
    assert journal_of(folder) == journal_of(whole)
    assert rows_of(folder) == rows_of(whole)
    names = [path.name for path in sorted((whole / "checkpoints").glob("*.safetensors"))]
    assert names == [path.name for path in sorted((folder / "checkpoints").glob("*.safetensors"))]
    for path in [*(f"checkpoints/{name}" for name in names), "pruned/weights.safetensors"]:
        assert (folder / path).read_bytes() == (whole / path).read_bytes(), path
    agents = [torch.load(run / "checkpoints" / "agent.ckpt", weights_only=True) for run in (folder, whole)]
    first, second = (agent["state_dict"] for agent in agents)
    assert agents[0]["predicted"] == agents[1]["predicted"]
    assert all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


# A separate program that is interrupted in a given way at a given moment. `end()` kills it immediately.
KILLED = """
import os, signal, sys
from gnnrl_lightning.__main__ import main
from gnnrl_lightning.training.checkpoint import LatestCheckpoint
from gnnrl_lightning.evaluation.journal import Journal

def end():
    signum = getattr(signal, sys.argv[1])
    if sys.argv[2] == "streaming":
        os.killpg(0, signum)  # as a terminal does
    else:
        os.kill(os.getpid(), signum)

def before(owner, name, moment):
    whole, calls = getattr(owner, name), []
    def wrapped(*arguments):
        calls.append(arguments)
        if moment(calls):
            end()
        return whole(*arguments)
    setattr(owner, name, wrapped)

def torn(calls):
    journal, record = calls[-1]
    if len(calls) == 11:
        with journal.path.open("a") as file:
            file.write('{"widths": [3, ')
        return True

MOMENTS = {
    # Workers decode the next images.
    "streaming": (LatestCheckpoint, "on_train_batch_start", lambda calls: len(calls) == 3),
    # The second epoch's checkpoint has been made, but does not count yet.
    "dense": (LatestCheckpoint, "_keep", lambda calls: len(calls) == 3),
    # In the agent's second round: six starting candidates and the four of its first round are known.
    "search": (Journal, "append", torn),
    # Uniform has been trained; of the pruned network's two epochs one is done.
    "pruned": (
        LatestCheckpoint,
        "on_train_epoch_end",
        lambda calls: [call for call in calls if call[0].path.name == "pruned.ckpt"][1:],
    ),
}
before(*MOMENTS[sys.argv[2]])
main(sys.argv[3:])
"""


def ended(workplace, how, moment, *arguments):
    """Run the command line until something ends it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(workplace)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, how, moment, *arguments]
    options = {"capture_output": True, "text": True, "timeout": 300, "start_new_session": True}
    return subprocess.run(command, cwd=workplace, env=environment, **options)


@pytest.mark.parametrize(
    ("moment", "left", "lines"),
    [
        pytest.param("dense", {"dense.ckpt", "dense.ckpt.partial"}, 0, marks=pytest.mark.slow),
        ("search", {"dense.safetensors", "sensitivity.safetensors", "agent.ckpt"}, 10),
        pytest.param(
            "pruned",
            {"dense.safetensors", "sensitivity.safetensors", "agent.ckpt", "policy.safetensors"}
            | {"uniform.safetensors", "pruned.ckpt"},
            12,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_and_resumed_is_never_killed(workplace, whole, monkeypatch, moment, left, lines):
    done = ended(workplace, "SIGKILL", moment, *NEW, f"killed_{moment}")
    folder = workplace / "runs" / f"killed_{moment}"
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {*left, "checksums.json"}
    before = (folder / "journal.jsonl").read_text().splitlines()[:lines] if lines else []
    added = []
    append = Journal.append
    monkeypatch.setattr(Journal, "append", lambda journal, record: added.append(record) or append(journal, record))
    torn = pytest.warns(UserWarning, match=r"journal .*: the last line was cut off .*: \{\"widths\": \[3, $")
    with torn if moment == "search" else nullcontext():
        main(["fit", "--resume", str(folder)])
    assert (folder / "journal.jsonl").read_text().splitlines()[:lines] == before
    # Evaluations in the journal are not repeated.
    assert len(added) == len(journal_of(whole)) - lines
    assert_same(folder, whole)


def test_predictions_of_the_rounds_are_saved(whole):
    agent = torch.load(whole / "checkpoints" / "agent.ckpt", weights_only=True)
    assert len(journal_of(whole)) == 6 + 4 + 2 and len(agent["predicted"]) == 6


# Ctrl-C takes the same way: its pairs with the phases are among the slow tests, and so are three of the phases.
@pytest.mark.parametrize(
    ("signum", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
@pytest.mark.parametrize(
    ("phase", "owner", "method", "count"),
    [
        pytest.param("dense", LatestCheckpoint, "on_train_epoch_end", 2, marks=pytest.mark.slow),
        ("table", "gnnrl_lightning.job.searching", "save_sensitivity", 1),
        pytest.param("starting", Journal, "append", 3, marks=pytest.mark.slow),
        ("search", Journal, "append", 12),
        ("uniform", LatestCheckpoint, "on_train_epoch_end", 3 + 6 + 1),
        pytest.param("export", "gnnrl_lightning.artifacts.artifact", "save", 1, marks=pytest.mark.slow),
    ],
)
def test_signals_end_a_run_cleanly(
    workplace, whole, interrupt, monkeypatch, capsys, signum, code, phase, owner, method, count
):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    name = f"{phase}_{code}"
    with monkeypatch.context():
        interrupt(signum, sys.modules[owner] if isinstance(owner, str) else owner, method, count)
        with pytest.raises(SystemExit) as end:
            fit(name)
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    assert end.value.code == code
    assert capsys.readouterr().err == f"stopped; resume with: python -m gnnrl_lightning fit --resume runs/{name}\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert not (workplace / "runs" / name / "result.json").exists()
    with pytest.raises(SystemExit):
        fit(name)
    unfinished = f"run folder runs/{name} has an unfinished run: resume it with fit --resume runs/{name}, choose"
    assert capsys.readouterr().err.startswith(f"error: {unfinished}")
    main(["fit", "--resume", f"runs/{name}"])
    assert_same(workplace / "runs" / name, whole)


def test_a_comparison_that_a_signal_ends_says_how_it_goes_on(workplace, interrupt, monkeypatch, capsys):
    given = ["compare", "--config", "small.yaml", "--pretraining.epochs", "0", "--compare.methods", "[uniform, random]"]
    given += ["--search.evaluations", "19", "--compare.seeds", "[0]"]
    with monkeypatch.context(), pytest.raises(SystemExit) as end:
        interrupt(signal.SIGINT, comparison, "write_json", 2)
        main([*given, "--run.experiment", "ended"])
    assert end.value.code == 130
    error = capsys.readouterr().err
    (name,) = re.findall(r"^stopped; resume with the same command and --run.name ('?ended\S*'?)\n$", error)
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    main([*given, "--run.name", name.strip("'")])
    assert capsys.readouterr().out.count("random, budget") == 1


def test_a_process_that_a_signal_ends_says_one_line(workplace):
    done = ended(workplace, "SIGINT", "search", *NEW, "ended")
    assert done.returncode == 130
    assert done.stderr == "stopped; resume with: python -m gnnrl_lightning fit --resume runs/ended\n"


@pytest.mark.parametrize(("how", "code"), [pytest.param("SIGINT", 130, marks=pytest.mark.slow), ("SIGTERM", 143)])
def test_a_signal_for_the_workers_too_is_no_error_of_theirs(workplace, how, code):
    data, draw = workplace / "photographs", np.random.default_rng(0)
    for split, label in itertools.product(("train", "test"), "ab"):
        (data / split / label).mkdir(parents=True, exist_ok=True)
        for number in range(30):
            pixels = draw.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data / split / label / f"{number}.png")
    config = {
        "network": {"class_path": "resnet20", "init_args": {"num_classes": 2}},
        "data": {
            "class_path": "gnnrl_lightning.data.StreamingImageFolder",
            "init_args": {"root": str(data), "holdout_size": 10, "batch_size": 4, "num_workers": 1},
        },
        "budget": {"macs": 0.5},
        "candidate": {"calibration_examples": 16},
    }
    (workplace / "streaming.yaml").write_text(yaml.safe_dump(config))
    arguments = ["fit", "--config", "streaming.yaml", "--run.threads", "1", "--overwrite", "--run.name", "streaming"]
    done = ended(workplace, how, "streaming", *arguments)
    assert done.stderr == "stopped; resume with: python -m gnnrl_lightning fit --resume runs/streaming\n"
    assert done.returncode == code


def test_a_journal_that_lost_what_the_agent_counts_is_searched_again(workplace, whole, interrupt, monkeypatch):
    """A crash of the machine may lose the journal's last lines, and not the checkpoint."""
    with monkeypatch.context():
        interrupt(signal.SIGTERM, LatestCheckpoint, "on_train_epoch_end", 3 + 5)  # of the dense network, of the agent
        with pytest.raises(SystemExit):
            fit("lost")
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    folder = workplace / "runs" / "lost"
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 6 + 4
    (folder / "journal.jsonl").write_text("".join(lines[:-2]))
    evaluated = []
    original = Evaluator._evaluate
    monkeypatch.setattr(Evaluator, "_evaluate", lambda *given: evaluated.append(given) or original(*given))
    with pytest.warns(UserWarning, match=r"journal.jsonl lacks evaluations .* the agent starts again"):
        main(["fit", "--resume", str(folder)])
    kept = {tuple(json.loads(line)["widths"]) for line in lines[:-2]}
    asked = {tuple(record["widths"]) for record in journal_of(whole)}
    assert {given[2] for given in evaluated} == asked - kept
    assert_same(folder, whole)


def test_a_journal_that_lost_lines_after_the_search_is_searched_again(whole):
    """Results of the search are discarded: its policy, and networks trained from its winner."""
    folder = whole.parent / "lost_late"
    shutil.copytree(whole, folder)
    (folder / "result.json").unlink()
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[:-2]))
    for name in ("uniform", "pruned"):
        with replacing(folder / "checkpoints" / f"{name}.safetensors", checksum=True) as partial:
            partial.write_bytes(b"of another network")
    with pytest.warns(UserWarning, match=r"journal.jsonl lacks evaluations .* the agent starts again"):
        main(["fit", "--resume", str(folder)])
    assert_same(folder, whole)


def test_a_run_of_another_subcommand_is_not_resumed(workplace, interrupt, monkeypatch, capsys):
    interrupt(signal.SIGTERM, LatestCheckpoint, "on_train_epoch_end", 1)
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--config", "small.yaml", "--run.name", "only_dense"])
    resume = "resume with: python -m gnnrl_lightning pretrain --resume runs/only_dense"
    assert end.value.code == 143 and capsys.readouterr().err == f"stopped; {resume}\n"
    with pytest.raises(SystemExit) as end:
        main(["fit", "--resume", "runs/only_dense"])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: runs/only_dense is a run of pretrain: expected one of fit; use pretrain --resume\n"
    )


def test_a_run_that_ends_before_its_report_is_not_finished(workplace, whole, interrupt, monkeypatch):
    with monkeypatch.context():
        interrupt(signal.SIGTERM, sys.modules["gnnrl_lightning.cli.commands"], "write_report", 1)
        with pytest.raises(SystemExit):
            fit("unreported")
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    folder = workplace / "runs" / "unreported"
    assert (folder / "result.json").exists() and not (folder / "report.html").exists()
    main(["fit", "--resume", str(folder)])
    assert_same(folder, whole)
    assert (folder / "report.html").exists()


def test_a_finished_run_is_shown_again(whole, capsys):
    before = sorted((path, path.stat().st_mtime_ns) for path in whole.rglob("*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["fit", f"--resume={whole}"])
    out = capsys.readouterr().out
    assert end.value.code == 0 and "ours" in out and f"{whole} is finished: there is nothing to resume" in out
    assert sorted((path, path.stat().st_mtime_ns) for path in whole.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "nowhere"], r"nowhere is not the folder of a run \(it has no config.yaml\): give one of fit"),
        (
            ["--resume", "runs/whole", "--search.evaluations", "90"],
            r"--resume expects the folder of a run and no",
        ),
        (["--config", "small.yaml", "--resume", "runs/whole"], r"--resume expects the folder of a run and no"),
        (["--resume=runs/whole", "--overwrite"], r"--resume expects the folder of a run and no"),
        (["--resume"], r"--resume expects the folder of a run and no"),
        (["--config", "small.yaml", "--config", "resume.yaml"], r"resume is not a key of a configuration"),
    ],
)
def test_what_cannot_be_resumed_is_refused(workplace, whole, capsys, arguments, message):
    (workplace / "resume.yaml").write_text("resume: runs/whole\n")
    with pytest.raises(SystemExit) as end:
        main(["fit", *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and re.search(f"^error: {message}", error)


def test_other_subcommands_have_no_such_option():
    assert resumed_run(["fit", "--config", "a.yaml"]) is None
    assert resumed_run(["compare", "--resume", "a"]) is None  # which jsonargparse refuses
    assert resumed_run(["--resume", "a"]) is None
    assert resumed_run([]) is None


def test_a_resolved_configuration_says_whose_it_is(whole):
    text = (whole / "config.yaml").read_text()
    assert text.startswith("# python -m gnnrl_lightning fit --config\n")
    config = yaml.safe_load(text)
    assert "resume" not in config
    # null was given explicitly; it is not the default.
    assert config["model"]["init_args"]["target_kl"] is None


def test_wandb_resumes_the_same_run(workplace, interrupt, monkeypatch, capsys):
    wandb = ["--config", str(ROOT / "experiments" / "wandb.yaml"), "--trainer.logger.init_args.offline", "true"]
    with monkeypatch.context():
        interrupt(signal.SIGTERM, LatestCheckpoint, "on_train_epoch_end", 2)
        with pytest.raises(SystemExit):
            main(["fit", "--config", "small.yaml", *wandb, "--run.root", "wandb_runs"])
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    (folder,) = (workplace / "wandb_runs").iterdir()
    assert (folder / "checkpoints" / "wandb.txt").read_text() == f"{folder.name}\n"
    config = (folder / "config.yaml").read_text()
    assert "project: gnnrl_lightning" in config  # decides no result
    (folder / "config.yaml").write_text(config.replace("project: gnnrl_lightning", "project: another"))
    main(["fit", "--resume", str(folder)])
    # offline-run-TIME-ID, and -1 behind it for a second one of the same second
    ids = {path.name.split("-")[3] for path in (workplace / "wandb").glob("offline-run-*")}
    assert ids == {folder.name} and (folder / "result.json").is_file()


def test_each_wandb_logger_gets_its_own_id():
    def logger(name):
        return Namespace(class_path=name, init_args=Namespace(id=None))

    trainer = Namespace(logger=[logger("a.CSVLogger"), logger("b.WandbLogger"), logger("b.WandbLogger")])
    same_wandb_runs(trainer, ["one", "two"])
    assert [item.init_args.id for item in trainer.logger] == [None, "one", "two"]
    alone = Namespace(logger=logger("b.WandbLogger"))
    same_wandb_runs(alone, ["three"])
    assert alone.logger.init_args.id == "three"
    same_wandb_runs(Namespace(logger=None), ["four"])


def test_seconds_add_up(workplace, interrupt, monkeypatch):
    with monkeypatch.context():
        interrupt(signal.SIGTERM, Journal, "append", 11)
        with pytest.raises(SystemExit):
            fit("clock")
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    path = workplace / "runs" / "clock" / "checkpoints" / "agent.ckpt"
    saved = torch.load(path, weights_only=True)
    assert 0 < saved["seconds"] < 100
    with replacing(path, checksum=True) as partial:
        torch.save(saved | {"seconds": 1000.0}, partial)
    main(["fit", "--resume", "runs/clock"])
    assert 1000 < json.loads((path.parents[1] / "result.json").read_text())["search"]["seconds"] < 1100


def test_callbacks_of_the_users_keep_their_own_checkpoints(workplace, whole):
    callback = "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {save_top_k: -1}}]"
    fit("own", "--trainer.callbacks", callback, "--finetuning.epochs", "0", "--trainer.enable_checkpointing", "false")
    kept = sorted(path.name for path in (workplace / "runs" / "own" / "checkpoints" / "agent").iterdir())
    assert len(kept) == 6 and kept[0] == "epoch=0-step=16.ckpt"
    agents = [load_file(run / "checkpoints" / "policy.safetensors") for run in (workplace / "runs" / "own", whole)]
    assert all(torch.equal(agents[0][name], agents[1][name]) for name in agents[1])
