import re
import shlex
from pathlib import Path

import pytest
import yaml

from gnnrl_lightning.cli import main

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


def printed_config(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--print_config"])
    assert end.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_base_says_the_defaults(capsys):
    needed = ["--network.class_path", "resnet20", "--data", "Digits"]
    with_base = printed_config(capsys, "fit", "--config", str(EXPERIMENTS / "base.yaml"), *needed)
    assert with_base == printed_config(capsys, "fit", *needed)


def test_defaults_of_callbacks_that_are_enumerations_are_written(capsys):
    timer = ["--trainer.callbacks+", "Timer", "--trainer.callbacks.duration", "00:01:00:00"]
    needed = ["--network.class_path", "resnet20", "--data", "Digits"]
    (written,) = printed_config(capsys, "fit", *needed, *timer)["trainer"]["callbacks"]
    assert written["init_args"]["interval"] == "step"


def test_base_lists_every_key_where_it_belongs(capsys):
    """Keys without a default, and the policy, are comments; only some keys of Lightning's trainer are listed."""
    parts = re.split(r"^(?:# )?(\w+):", (EXPERIMENTS / "base.yaml").read_text(), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    config = printed_config(capsys, "fit", "--network.class_path", "resnet20", "--data", "Digits")
    config.pop("resume", None)  # an option of the command line only
    config["model"] = config["model"]["init_args"]  # the usual learner's need no class_path
    assert sections.keys() == config.keys()
    assert config["finetuning"].keys() == config["pretraining"].keys()  # "the same keys"
    for name in config.keys() - {"trainer", "data", "finetuning"}:
        keys = config[name] if isinstance(config[name], dict) else {}
        assert [key for key in keys if not re.search(rf"^[ #]*{key}:", sections[name], re.MULTILINE)] == [], name
    commented = re.findall(r"^  # (.*)$", sections["model"], re.MULTILINE)
    policy, default = yaml.safe_load("\n".join(commented))["make_policy"], config["model"]["make_policy"]
    assert policy == default


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_is_accepted(capsys, path):
    needed = ["--network.class_path", "resnet20", "--data", "Digits"]
    needed = [] if "network" in yaml.safe_load(path.read_text()) else needed
    config = printed_config(capsys, "fit", *needed, "--config", str(path))
    assert {"trainer", "model", "data", "network", "budget", "search", "run"} <= config.keys()


OTHERS = ["pretrain", "finetune", "validate", "test", "compare", "predict", "prune", "inspect"]


@pytest.mark.parametrize("command", OTHERS)
def test_every_subcommand_accepts_the_same_files(capsys, command):
    config = printed_config(capsys, command, "--config", str(EXPERIMENTS / "digits.yaml"))
    assert {"trainer", "model", "data", "network", "budget", "search", "run"} <= config.keys()


def test_later_files_win(capsys):
    files = ["--config", str(EXPERIMENTS / "digits.yaml"), "--config", str(EXPERIMENTS / "debug.yaml")]
    config = printed_config(capsys, "fit", *files)
    assert config["pretraining"]["epochs"] == 1 and config["finetuning"]["learning_rate"] == 0.005
    assert config["budget"]["macs"] == 0.03 and config["search"]["evaluations"] == 20


def test_sweep_arguments_are_accepted_as_wandb_passes_them(capsys, monkeypatch):
    sweep = yaml.safe_load((EXPERIMENTS / "sweeps" / "digits_ppo.yaml").read_text())
    chosen = {
        name: spec["values"][-1] if "values" in spec else spec["max"] for name, spec in sweep["parameters"].items()
    }
    # As in wandb's agent: ${args} becomes one argument --name=value per parameter.
    arguments = [f"--{name}={value}" for name, value in chosen.items()]
    command = sweep["command"]
    assert command[:4] == ["${env}", "${interpreter}", "-m", "gnnrl_lightning"] and command[-1] == "${args}"
    monkeypatch.chdir(ROOT)
    config = printed_config(capsys, *command[4:-1], *arguments)
    for name, value in chosen.items():
        found = config
        for part in name.split("."):
            found = found.get("init_args", found)[part]
        assert found == value, name
    assert config["trainer"]["logger"]["class_path"].endswith("WandbLogger")


IGNORING = "{objective: {class_path: segmentation, init_args: {ignore_index: 255}}}"
SPECS = {
    "the default": ([], {"class_path": "classification", "init_args": {"label_smoothing": 0.1}}),
    "a name": (["--objective", "segmentation"], {"class_path": "segmentation", "init_args": {"label_smoothing": 0.1}}),
    "a mapping": (
        ["--objective", "{class_path: segmentation, init_args: {ignore_index: 255, label_smoothing: 0.3}}"],
        {"class_path": "segmentation", "init_args": {"ignore_index": 255, "label_smoothing": 0.1}},
    ),
    "of a file": (
        ["--config", IGNORING],
        {"class_path": "segmentation", "init_args": {"ignore_index": 255, "label_smoothing": 0.1}},
    ),
    "another class": (
        ["--config", IGNORING, "--objective.class_path=classification"],
        {"class_path": "classification", "init_args": {"label_smoothing": 0.1}},
    ),
}


@pytest.mark.parametrize(("given", "expected"), SPECS.values(), ids=SPECS)
def test_arguments_of_the_objective_are_options(capsys, given, expected):
    option = "--objective.init_args.label_smoothing=0.1"
    assert printed_config(capsys, "fit", "--config", "digits", *given, option)["objective"] == expected


def test_an_objective_or_optimizer_in_a_later_file_replaces_the_one_in_an_earlier(capsys):
    """And stays where the later file has none."""
    files = [
        IGNORING,
        "{finetuning: {optimizer: {class_path: adamw, init_args: {betas: [0.9, 0.99]}}}}",
        "{objective: {class_path: segmentation, init_args: {label_smoothing: 0.1}}, finetuning: {epochs: 2}}",
    ]
    given = [part for file in files for part in ("--config", file)]
    found = printed_config(capsys, "fit", "--config", "digits", *given)
    assert found["objective"] == {"class_path": "segmentation", "init_args": {"label_smoothing": 0.1}}
    assert found["finetuning"]["optimizer"]["init_args"] == {"betas": [0.9, 0.99]}


def test_arguments_of_an_optimizer_are_options(capsys):
    arguments = {"class_path": "torch.optim.RAdam", "init_args.betas": "[0.9, 0.99]", "init_args.eps": "1e-06"}
    given = [part for name, value in arguments.items() for part in (f"--finetuning.optimizer.{name}", value)]
    found = printed_config(capsys, "fit", "--config", "digits", *given)["finetuning"]
    assert found["optimizer"] == {"class_path": "torch.optim.RAdam", "init_args": {"betas": [0.9, 0.99], "eps": 1e-6}}
    assert found["epochs"] == 15  # the others stay


def test_an_argument_of_the_objective_without_a_value_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "digits", "--objective.init_args.label_smoothing", "--run.name", "other"])
    assert end.value.code == 2 and "--objective has no value: expected one argument" in capsys.readouterr().err


def test_another_learner_has_its_own_defaults(capsys):
    asked = ["fit", "--config", str(EXPERIMENTS / "digits.yaml"), "--model", "DDPG", "--model.tau", "0.2"]
    config = printed_config(capsys, *asked)["model"]
    assert config["class_path"].endswith("DDPG") and config["init_args"]["tau"] == 0.2
    assert config["init_args"]["make_policy"]["class_path"].endswith("DDPGAgent")
    assert config["init_args"]["proxy_warmup"] == 100  # GNNRL has 10


def documented_commands():
    """Those of README and docs that name a configuration of ours: `fit --resume` takes none."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages).replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("python -m gnnrl_lightning ")]
    return sorted({line for line in commands if "--config experiments/" in line})


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_are_accepted(capsys, monkeypatch, line):
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(line, comments=True)[3:]
    assert printed_config(capsys, *arguments)["network"]["class_path"]


def test_there_are_documented_commands():
    named = {shlex.split(line)[3] for line in documented_commands()}
    assert named >= {"fit", "inspect", "test", "compare", "predict", "pretrain", "finetune"}


def test_help_of_every_subcommand_names_every_section(capsys):
    for command in ("fit", *OTHERS):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        text = capsys.readouterr().out
        assert end.value.code == 0
        for option in ("--budget.macs", "--search.evaluations", "--model.help", "--pretraining.epochs"):
            assert option in text
    assert "--json" in text


def test_help_is_to_be_copied_and_says_what_is_meant_here(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(
        "usage: python -m gnnrl_lightning predict [--config FILE ...] [--KEY VALUE ...] [--json JSON]"
    )
    assert text.index("--json JSON File") < text.index("--config CONFIG")  # its own options come first
    assert "Largest number of iterations of the search" in text and "infinite training" not in text
    assert '(0.5, 50%), or a number with its unit ("3 ms")' in text
    assert "--trainer.logger " in text and "--trainer.limit_test_batches" not in text  # nothing here reads it


def test_options_that_help_leaves_out_are_accepted(capsys):
    given = ["--network.class_path", "resnet20", "--data", "Digits", "--trainer.reload_dataloaders_every_n_epochs", "2"]
    assert printed_config(capsys, "fit", *given)["trainer"]["reload_dataloaders_every_n_epochs"] == 2
