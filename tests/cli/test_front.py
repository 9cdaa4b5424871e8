import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import docstring_parser
import pytest

from gnnrl_lightning import __version__
from gnnrl_lightning.cli import PLAIN, main
from gnnrl_lightning.cli.subcommands import CONFIGURED, SUBCOMMANDS
from gnnrl_lightning.cli.trainer import SubcommandTrainer

ROOT = Path(__file__).parents[2]

HEAVY = {"torch", "lightning", "torch_geometric", "torchvision", "sklearn", "scipy", "matplotlib", "wandb", "numpy"}
AT_ONCE = {
    "help": (["--help"], 0),
    "short help": (["-h"], 0),
    "version": (["--version"], 0),
    "nothing": ([], 2),
    "no such subcommand": (["fitt"], 2),
    "no such file": (["fit", "--config", "none.yaml"], 2),
    "no such file beside others": (["fit", "-c", "experiments/digits.yaml", "--config=none.yml"], 2),
}

# Runs several command lines like `python -m`, then lists imported modules and written files.
SCRIPT = """
import json
import os
import runpy
import sys

environment = dict(os.environ)
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        runpy.run_module("gnnrl_lightning", run_name="__main__")
    except SystemExit as end:
        print(json.dumps([end.code, sorted(sys.modules), dict(os.environ) == environment]))
"""


def test_what_is_answered_at_once_imports_nothing_heavy():
    """Nor does it write environment variables."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, json.dumps([arguments for arguments, _ in AT_ONCE.values()])]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(answers) == len(AT_ONCE)
    for (case, (_, expected)), (code, modules, untouched) in zip(AT_ONCE.items(), answers, strict=True):
        assert code == expected and untouched, case
        assert HEAVY & set(modules) == set(), case
        assert "gnnrl_lightning.cli.front" in modules


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no subcommand: expected one of fit, pretrain, "),
        (["fitt"], "fitt is no subcommand (did you mean fit?): expected one of fit, pretrain, "),
        (["fit", "--config", "none.yaml"], "--config none.yaml: there is no such file"),
        (["fit", "--config=none.yaml", "--overwrite"], "--config none.yaml: there is no such file"),
    ],
)
def test_plain_mistakes_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == ""
    assert said.err.startswith(f"error: {message}") and said.err.count("\n") == 1


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out == f"gnnrl_lightning {__version__}\n"


def test_help_names_every_subcommand_with_its_summary(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and "Make a trained network physically smaller, within a budget." in text
    for name, subcommand in SUBCOMMANDS.items():
        assert f" {name} {subcommand.summary}" in text


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_subcommand_says_the_same_of_itself(name):
    documented = docstring_parser.parse(getattr(SubcommandTrainer, name).__doc__).short_description
    assert documented == CONFIGURED[name].summary


def test_the_documented_completion_knows_every_subcommand():
    page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    (words,) = [line.split('"')[1] for line in page.splitlines() if line.startswith("complete ")]
    assert {*SUBCOMMANDS, "--config", "--resume", "--help", "--version"} == set(words.split())


def test_subcommands_without_a_configuration_hide_the_warnings_of_other_packages(monkeypatch, capsys):
    def warning(arguments):
        warnings.warn("`torch.jit.script` is deprecated. Please switch", FutureWarning, stacklevel=2)
        return "written\n"

    monkeypatch.setitem(PLAIN, "report", warning)
    main(["report", "runs/mine"])
    assert capsys.readouterr() == ("written\n", "")
