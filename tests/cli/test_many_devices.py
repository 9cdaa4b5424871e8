"""Two processes on the CPU, started from the command line; they communicate through gloo."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gnnrl_lightning.cli import main
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, STARTING
from tests.support.workplace import make_workplace

ROOT = Path(__file__).parents[2]

# The command line; writes the final state of each process, and simulates failures.
TWO = """
import json, os, signal, sys, threading, time, torch
from gnnrl_lightning.__main__ import main
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.evaluation.history import Journalled
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.job import stages
from gnnrl_lightning.processes import rank

accident = os.environ.get("ACCIDENT")
append, settle, deliver = Journal.append, Journalled.settle, stages.deliver
written, settled = [], []

def failing_append(journal, record):
    written.append(record)
    if accident == "killed" and len(written) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    append(journal, record)

def slow_settle(journalled, answers):
    settled.append(answers)
    if accident == "ended" and len(settled) == 2:
        # The first process waits for the second one, which is busy, when it alone is told to end.
        if rank() == 0:
            threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            time.sleep(60)
    return settle(journalled, answers)

def noting_deliver(searched, folder):
    history = [(item.widths, item.proposer, item.examples) for item in searched.history]
    known = {"history": history, "spent": searched.evaluations}
    dense = searched.trained.network
    known["dense"] = sum(float(value.double().sum()) for value in dense.state_dict().values())
    (folder.path / f"known-{rank()}.json").write_text(json.dumps(known))
    return deliver(searched, folder)

def on_train_end(module):
    torch.save(module.state_dict(), f"policy-{rank()}.pt")

GNNRL.on_train_end = on_train_end
Journal.append, Journalled.settle, stages.deliver = failing_append, slow_settle, noting_deliver
main()
"""


def spoken(stderr):
    """Standard error without PyTorch's own warnings, which older versions raise at the export."""
    return re.sub(r"^\S+/site-packages/torch/\S+\.py:\d+: \w+Warning: .*\n(  .*\n)?", "", stderr, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    make_workplace(folder)
    (folder / "two.py").write_text(TWO)
    trainer = {"devices": 2, "strategy": "ddp", "accelerator": "cpu"}
    two = {"trainer": trainer, "search": {"evaluations": 10 + 2 * 2 * 8 + 15}, "run": {"threads": 1}}
    # Few widths of two groups fit the budget: nearer to the proposal all episodes may come to the same ones.
    two["model"] = {"proposal_spread": 0.25}
    (folder / "two.yaml").write_text(yaml.safe_dump(two))
    return folder


def two(workplace, *arguments, program=("two.py",), accident=""):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(workplace)]), "ACCIDENT": accident}
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=workplace, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


FIT = ["fit", "--config", "small.yaml", "--config", "two.yaml", "--run.name"]


@pytest.fixture(scope="module")
def pair(workplace):
    """A finished run of two processes: its output and its folder."""
    done = two(workplace, *FIT, "pair")
    assert done.returncode == 0, done.stderr
    return done, workplace / "runs" / "pair"


def lines_of(folder):
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_evaluations_are_those_of_the_whole_job(pair):
    """Of 57 table and calibration take 4, 6 starting candidates as many: 47 are enough for two iterations of 2 x 8."""
    _, folder = pair
    result = json.loads((folder / "result.json").read_text())
    assert result["search"]["evaluations"] == 4 + 6 + 2 * 2 * 8
    lines = lines_of(folder)
    assert len(lines) == 6 + 2 * 2 * 8
    # Those from the first process first, in each iteration; the starting candidates as if there were one process.
    assert [line["proposer"] for line in lines] == [*STARTING, *FROM_SENSITIVITY, *["agent"] * 32]
    with (folder / "metrics.csv").open() as file:
        spent = [float(row["search/evaluations"]) for row in csv.DictReader(file) if row["search/evaluations"]]
    assert spent == [0, 0, 0, 16, 16, 32]


def test_the_loss_is_the_mean_over_the_examples_of_both(pair):
    """One has 144 of the 287 held-out examples, the other 143; without label smoothing, the loss is the figure."""
    _, folder = pair
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dense/val/loss"]]
    losses, figures = ([float(row[f"dense/val/{name}"]) for row in rows] for name in ("loss", "cross_entropy"))
    assert len(losses) == 3 and losses == pytest.approx(figures, rel=1e-5)


def test_processes_try_different_candidates(pair):
    _, folder = pair
    tried = [tuple(line["widths"]) for line in lines_of(folder)[6:]]
    for first in (0, 16):
        assert tried[first : first + 8] != tried[first + 8 : first + 16]


def test_processes_know_the_same_in_the_end(pair, workplace):
    _, folder = pair
    first, second = (json.loads((folder / f"known-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    lines = [[line["widths"], line["proposer"], line["examples"]] for line in lines_of(folder)]
    assert first["history"] == lines
    policies = [torch.load(workplace / f"policy-{rank}.pt", weights_only=True) for rank in range(2)]
    assert policies[0].keys() == policies[1].keys()
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])
    assert policies[0]["evaluations"] == 32
    saved = load_file(folder / "checkpoints" / "policy.safetensors")
    assert all(torch.equal(saved[name], policies[0][f"policy.{name}"]) for name in saved)


def test_processes_share_the_evaluations_that_are_left(workplace):
    """In imagined episodes: 9 of 19 evaluations are left for a round of 2 x 4, and one of a single candidate."""
    rounds = ["fit", "--config", "small.yaml", "--config", "two.yaml", "--config", "rounds.yaml"]
    done = two(workplace, *rounds, "--search.evaluations", "19", "--run.name", "rounds")
    assert done.returncode == 0, done.stderr
    folder = workplace / "runs" / "rounds"
    lines = lines_of(folder)
    assert [line["proposer"] for line in lines] == [*STARTING, *FROM_SENSITIVITY, *["agent"] * (4 + 4 + 1)]
    assert json.loads((folder / "result.json").read_text())["search"]["evaluations"] == 4 + 6 + 4 + 4 + 1
    tried = [tuple(line["widths"]) for line in lines]
    for own in (tried[6:10], tried[10:14], tried[14:]):
        assert len({*own} - {*tried[:6]}) == len(own)
    first, second = (json.loads((folder / f"known-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    policies = [torch.load(workplace / f"policy-{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])
    assert policies[0]["evaluations"] == 9
    assert len(torch.load(folder / "checkpoints" / "agent.ckpt", weights_only=True)["predicted"]) == 9


def test_the_first_process_alone_speaks(pair):
    done, _ = pair
    assert done.stdout.count("written to runs/pair") == done.stdout.count("found by") == 1
    assert done.stdout.count("3/3 epochs") == 1 and not spoken(done.stderr)


@pytest.mark.slow
def test_killed_and_resumed_it_comes_to_the_same(pair, workplace):
    """Killed while it writes down the first iteration of both, of which five records are on the disk."""
    _, whole = pair
    done = two(workplace, *FIT, "killed", accident="killed")
    folder = workplace / "runs" / "killed"
    assert done.returncode == -signal.SIGKILL
    before = lines_of(folder)
    assert len(before) == 11
    done = two(workplace, "fit", "--resume", "runs/killed")
    assert done.returncode == 0, done.stderr
    assert lines_of(folder)[:11] == before
    results = [json.loads((run / "result.json").read_text()) for run in (folder, whole)]
    assert results[0]["search"]["evaluations"] == results[1]["search"]["evaluations"]
    assert [line["widths"] for line in lines_of(folder)] == [line["widths"] for line in lines_of(whole)]
    assert results[0]["pruned"]["widths"] == results[1]["pruned"]["widths"]


@pytest.mark.slow
def test_a_signal_to_the_first_process_ends_all_at_once(workplace):
    done = two(workplace, *FIT, "ended", accident="ended")
    assert done.returncode == 143, done.stderr
    assert done.stderr == "stopped; resume with: python -m gnnrl_lightning fit --resume runs/ended\n"


@pytest.mark.slow
def test_pretrain_and_finetune_share_the_work_too(workplace):
    program = ("-m", "gnnrl_lightning")
    done = two(workplace, "pretrain", *FIT[1:], "dense", program=program)
    assert done.returncode == 0 and not spoken(done.stderr) and done.stdout.count("top-1 on the holdout") == 1
    weights = workplace / "runs" / "dense" / "checkpoints" / "dense.safetensors"
    done = two(workplace, "finetune", *FIT[1:], "tuned", "--checkpoint", str(weights), program=program)
    assert done.returncode == 0 and not spoken(done.stderr)
    assert (workplace / "runs" / "tuned" / "checkpoints" / "dense.safetensors").is_file()


@pytest.mark.parametrize("command", ["compare", "predict"])
def test_what_works_in_one_process_says_so(workplace, monkeypatch, capsys, command):
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(workplace)
    policy = ["--checkpoint", "a.pt", "--model.policy_file", "b.safetensors", "--budgets", "0.5"]
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml", "--config", "two.yaml", *(policy if command == "predict" else [])])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        f"error: trainer.devices and trainer.num_nodes make 2 processes: {command} runs in one, set both to 1\n"
    )
