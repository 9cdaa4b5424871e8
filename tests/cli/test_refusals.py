import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import wandb
import yaml
from safetensors.torch import save_file

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.recipe import recipe_hash
from gnnrl_lightning.cli import main
from gnnrl_lightning.cli.running import _wandb_id
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.spec import NetworkSpec
from tests.cli.refused import assert_refused

ROOT = Path(__file__).parents[2]


SHARES = r"share of the dense MACs in budgets is {}: expected a number above 0 and below 1$"


@pytest.mark.parametrize(("given", "named"), [("1.5", "1.5"), ("0", "0.0"), ("-0.3", "-0.3")])
def test_what_is_no_share_is_refused_by_predict(workplace, capsys, given, named):
    """A limit on MACs may be absolute, and a budget of a prediction may not."""
    files = ["--checkpoint", "dense.pt", "--model.policy_file", "policy.safetensors"]
    with pytest.raises(SystemExit) as end:
        main(["predict", "--config", "small.yaml", *files, "--budgets", "0.5", given])
    error = capsys.readouterr().err
    assert end.value.code == 2 and re.search(SHARES.format(named), error), error


BAD = {
    "no such option": (
        ["--search.evaluatons", "3"],
        r"^error: unrecognized arguments: --search.evaluatons 3 \(did you mean --search.evaluations\?\): expected",
    ),
    "no number": (["--search.evaluations", "many"], r"search.evaluations.*many"),
    "no such file": (["--config", "none.yaml"], r"none.yaml"),
    "no such argument of the data": (["--data.siz", "3"], r"Digits has no argument siz"),
    "impossible budget": (["--budget.macs", "0.001"], r"has 747 macs"),
    "budget of nothing": (["--budget.macs", "0"], r"budget.macs is 0.*expected a positive number"),
    "negative budget": (["--budget.macs", "-0.5"], r"expected a positive number"),
    "budget above dense": (["--budget.macs", "1e9"], r"more than the dense network has \(13,464\)"),
    "budget of all": (["--budget.macs", "13464"], r"meets the budget already"),
    "one": (["--budget.macs", "1.0"], r"budget.macs is 1.0, which is neither a share nor absolute: write"),
    "more than one": (["--budget.macs", "1.5"], r"budget.macs is 1.5, which is neither a share nor absolute"),
    "no metric": (["--budget.limits", "{own.energy: 0.5}"], r"budget 'own.energy' cannot be imported"),
    "no budget": (["--budget.macs", "null"], r"budget is empty"),
    "latency budget": (["--budget.latency", "3.5"], r"budget.latency is 3.5.* or a number with its unit \(3.5 ms\)"),
    "latency table": (["--budget.latency", "0.5", "--latency.table", "no.csv"], r"latency.table no.csv cannot be read"),
    "latency backend": (["--latency.backend", "eagr"], r"latency.backend is 'eagr' .did you mean eager"),
    "missing data": (["--data", "ImageFolder", "--data.root", "nowhere"], r"nowhere"),
    "missing checkpoint": (["--checkpoint", "nowhere.pt"], r"nowhere.pt"),
    "classes of the network": (["--network.init_args.classes", "7"], r"has 7 classes, the data has 10"),
    "classes of the checkpoint": (["--checkpoint", "seven.safetensors"], r"has 7 classes, the network has 10"),
    "weights that are NaN": (["--checkpoint", "nan.safetensors"], r"NaN or infinite values in conv2.bias"),
    "input size": (["--network.init_args.size", "32"], r"refuses inputs of 1x8x8"),
    "unknown network": (["--network.class_path", "own_networks.Large"], r"cannot be imported"),
    "unknown importance": (["--candidate.importance", "size"], r"importance is 'size'"),
    "unknown repair": (["--candidate.repair", "glue"], r"repair is 'glue'"),
    "unknown reward": (["--episode.reward", "luck"], r"episode.reward is 'luck'"),
    "missing reward": (["--episode.reward", "own_networks.luck"], r"episode.reward 'own_networks.luck' cannot be imp"),
    "unknown table": (["--search.sensitivity", "round"], r"search.sensitivity is 'round'.* or an import path"),
    "unknown precision": (["--scoring.precision", "8"], r"scoring.precision is '8'"),
    "range of budgets": (
        ["--episode.macs_range", "[0.9, 0.4]"],
        r"macs_range is \(0.9, 0.4\): .*the smaller one first",
    ),
    "impossible range": (["--episode.macs_range", "[0.001, 0.5]"], r"macs is 0.001"),
    "too few evaluations": (["--search.evaluations", "5"], r"search.evaluations is 5: at least 18 are needed, 10 for"),
    "one too few": (["--search.evaluations", "17"], r"search.evaluations is 17: at least 18"),
    "too few without a table": (
        ["--search.sensitivity", "null", "--search.evaluations", "11"],
        r"search.evaluations is 11: at least 12 are needed, 4 for",
    ),
    "short training": (["--scoring.finetune_steps", "-1"], r"scoring.finetune_steps is -1"),
    "proxy": (["--model.proxy_warmup", "-1"], r"proxy_warmup is -1: expected at least 0"),
    "calibration": (
        ["--candidate.calibration_examples", "100000"],
        r"images is 100000: expected a whole number from",
    ),
    "learning rate": (["--finetuning.learning_rate", "-1"], r"learning_rate is -1"),
    "optimiser": (["--finetuning.optimizer", "adam"], r"optimizer is 'adam' \(did you mean adamw\?\)"),
    "argument of an optimiser": (
        ["--finetuning.optimizer", "{class_path: sgd, init_args: {betas: 1}}"],
        r"optimizer 'sgd' refuses its arguments \{'betas': 1\}",
    ),
    "optimiser of matrices": (
        ["--finetuning.optimizer", "torch.optim.Muon"],
        r"^error: finetuning: .* refuses its arg",
    ),
    "teacher of the dense network": (["--pretraining.distillation_weight", "1"], r"a teacher, which only finetuning"),
    "cutout": (["--data.init_args.cutout", "9"], r"cutout is 9 with images of 8x8 pixels"),
    "batch size": (["--data.init_args.batch_size", "0"], r"^error: batch_size is 0: expected at least 1$"),
    "search size": (["--data.init_args.holdout_size", "0.0"], r"^error: holdout_size is 0.0"),
    "mean of another length": (["--data.init_args.mean", "[0.1, 0.2]"], r"^error: mean is .*one value per channel"),
    "devices": (["--trainer.devices", "2"], r"make 2 processes: only the command line starts them"),
    "nodes": (["--trainer.num_nodes", "2"], r"make 2 processes: only the command line starts them"),
    "strategy": (
        ["--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"],
        r"trainer.strategy is ddp_spawn, .* make 2 processes: expected one of auto, ddp, ddp_find",
    ),
    "endless epochs": (["--trainer.max_epochs", "-1"], r"trainer.max_epochs is -1: expected at least 1"),
    "negative epochs": (["--trainer.max_epochs", "-2"], r"trainer.max_epochs is -2"),
    "a try of one batch": (["--trainer.fast_dev_run", "true"], r"fast_dev_run is True, .* set --config debug"),
    "steps of the search": (["--trainer.max_steps", "3"], r"max_steps is 3, .* set search.evaluations for a search"),
    "part of the examples": (["--trainer.limit_train_batches", "0.1"], r"limit_train_batches is 0.1, which nothing"),
    "few test examples": (["--trainer.limit_test_batches", "2"], r"limit_test_batches is 2, which nothing here reads"),
    "overfitting": (["--trainer.overfit_batches", "1"], r"overfit_batches is 1, which nothing here reads: leave it"),
    "steps in one": (["--trainer.accumulate_grad_batches", "4"], r"accumulate_grad_batches is 4, .* data.batch_size"),
    "rare validation": (["--trainer.check_val_every_n_epoch", "5"], r"check_val_every_n_epoch is 5, .* validated$"),
    "seed": (["--seed_everything", "-1"], r"seed_everything is -1: expected 0 to"),
    "no seed": (
        ["--seed_everything", "false"],
        r"seed_everything is False: expected 0 to \d+, or true for a random one",
    ),
    "accelerator": (["--trainer.accelerator", "tpu"], r"^error: trainer with accelerator tpu"),
    "policy": (["--model.make_policy.head", "tail"], r"^error: head is 'tail': expected one of node, identity, graph"),
    "root": (["--run.root", "small.yaml/runs"], r"run.root small.yaml/runs cannot be created"),
    "artifact that is not there": (["--artifact", "nowhere"], r"nowhere has no recipe.json"),
    "steps": (["--episode.max_steps", "0"], r"max_steps is 0"),
    "threads": (["--run.threads", "0"], r"run.threads is 0"),
    "name with a folder": (["--run.name", "a/b"], r"run.name is .a/b.: expected a plain folder name"),
    "existing name": (["--run.name", "taken"], r"taken exists; choose another name, or replace it by overwrite"),
    "checkpoint in the run that is replaced": (
        ["--run.name", "taken", "--overwrite", "--checkpoint", "bad/taken/checkpoints/own.safetensors"],
        r"overwrite would delete bad/taken/checkpoints/own.safetensors",
    ),
    "policy in the run that is replaced": (
        ["--run.name", "taken", "--overwrite", "--model.policy_file", "bad/taken/checkpoints/own.safetensors"],
        r"overwrite would delete bad/taken/checkpoints/own.safetensors",
    ),
    "policy of a variant in the run that is replaced": (
        [
            "--run.name",
            "taken",
            "--overwrite",
            "--compare.variants",
            "{a: {model: {policy_file: bad/taken/x.safetensors}}}",
        ],
        r"overwrite would delete bad/taken/x",
    ),
}


@pytest.fixture(scope="module")
def spoilt(workplace):
    """Files that are wrong in one way each, and a run that must not be overwritten."""
    state = NetworkSpec("own_networks.Small", {"classes": 7}).build().state_dict()
    save_file(state, workplace / "seven.safetensors")
    state = NetworkSpec("own_networks.Small").build().state_dict()
    state["conv2.bias"][3] = torch.nan
    save_file(state, workplace / "nan.safetensors")
    (workplace / "bad" / "taken" / "checkpoints").mkdir(parents=True)
    (workplace / "bad" / "taken" / "result.json").write_text("{}")
    (workplace / "bad" / "taken" / "config.yaml").write_text("")
    weights = workplace / "bad" / "taken" / "checkpoints" / "own.safetensors"
    save_file(NetworkSpec("own_networks.Small").build().state_dict(), weights)
    return workplace


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(spoilt, capsys, case):
    assert_refused(capsys, spoilt, *BAD[case])


def test_a_process_says_one_line_and_nothing_else(workplace):
    """Nothing that other packages warn of, either."""
    command = [sys.executable, "-m", "gnnrl_lightning", "fit", "--config", "small.yaml", "--budget.macs", "0.001"]
    path = os.pathsep.join([str(ROOT), str(workplace)])
    done = subprocess.run(command, cwd=workplace, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: budget.macs is 0.001") and done.stderr.count("\n") == 1


def test_overwrite_replaces_a_run(spoilt):
    arguments = ["--run.root", "bad", "--run.name", "taken", "--pretraining.epochs", "0", "--overwrite"]
    main(["pretrain", "--config", "small.yaml", *arguments])
    assert not (spoilt / "bad" / "taken" / "result.json").exists()
    config = yaml.safe_load((spoilt / "bad" / "taken" / "config.yaml").read_text())
    assert config["overwrite"] is False


@pytest.mark.parametrize("command", ["pretrain", "finetune", "prune", "compare"])
@pytest.mark.parametrize(
    ("option", "value", "instead"),
    [
        ("max_epochs", "3", "search.evaluations for a search, pretraining.epochs or finetuning.epochs for a training"),
        ("max_time", "00:00:01:00", "search.evaluations for a search"),
        ("gradient_clip_val", "0.5", "model.max_grad_norm for the search, finetuning.gradient_clip for the training"),
    ],
)
def test_what_only_the_search_of_fit_reads_is_refused_elsewhere(workplace, capsys, command, option, value, instead):
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml", f"--trainer.{option}", value])
    error = capsys.readouterr().err
    assert end.value.code == 2 and f"trainer.{option} is {value}, which {command} does not read, only fit" in error
    assert instead in error and error.count("\n") == 1


@pytest.mark.parametrize("command", ["pretrain", "finetune", "prune", "compare"])
def test_callbacks_that_nothing_would_call_are_refused(workplace, capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml", "--trainer.callbacks+", "LearningRateMonitor"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert f"trainer.callbacks is given, which {command} does not read, only the search of fit" in error


def test_what_only_the_search_of_fit_reads_may_stay_in_a_file_that_trains_nothing(workplace, capsys):
    main(["inspect", "--config", "small.yaml", "--trainer.max_epochs", "3"])
    assert "group" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["finetune", "validate", "test"])
def test_missing_artifact(workplace, capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml", "--artifact", "nowhere"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: nowhere has no recipe.json: expected the folder of a pruned network\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network.class_path", "resnet20"], r"was pruned from own_networks.Small with .*network is resnet20"),
        (["--network.init_args.size", "8"], r"from own_networks.Small with init_args \{\}, network is .*size"),
        (["--data.init_args.mean", "[0.5]"], r"was saved with mean \[0.305\], the data module has \[0.5\]"),
    ],
)
def test_an_artifact_of_another_network_or_other_images(fitted, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(["test", "--config", "small.yaml", "--artifact", str(fitted / "pruned"), *arguments])
    assert end.value.code == 2 and re.search(message, capsys.readouterr().err)


def test_a_recipe_runs_nothing_that_it_names(fitted, workplace, capsys):
    recipe = artifact.read_recipe(fitted / "pruned")
    recipe["network"] = {"class_path": "os.mkdir", "init_args": {"path": "ran"}}
    recipe["sha256"]["recipe.json"] = recipe_hash(recipe)
    (workplace / "foreign").mkdir()
    (workplace / "foreign" / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(SystemExit) as end:
        main(["test", "--config", "small.yaml", "--artifact", "foreign"])
    assert end.value.code == 2 and "was pruned from os.mkdir" in capsys.readouterr().err
    assert not (workplace / "ran").exists()


def test_there_is_no_teacher_for_an_artifact(fitted, workplace, capsys):
    with pytest.raises(SystemExit) as end:
        given = [
            "--artifact",
            str(fitted / "pruned"),
            "--run.name",
            "taught",
            "--finetuning.distillation_weight",
            "0.5",
        ]
        main(["finetune", "--config", "small.yaml", *given])
    assert end.value.code == 2 and not (workplace / "runs" / "taught").exists()
    message = "error: finetuning: distillation_weight is 0.5 without a teacher: expected 0\n"
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize(("command", "verb"), [("finetune", "fine-tune"), ("validate", "validate"), ("test", "test")])
def test_trained_weights_are_needed(workplace, capsys, command, verb):
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml"])
    assert end.value.code == 2 and f"nothing to {verb}: give --artifact" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml", "--artifact", "a", "--checkpoint", "b.pt"])
    assert end.value.code == 2 and "artifact and checkpoint exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--json nowhere/found.json", ": folder nowhere does not exist: create it, or give another"),
        ("--figure nowhere/graph.png", ": folder nowhere does not exist: create it, or give another"),
        ("--json bad", " is a folder: expected the name of a file to write"),
    ],
)
def test_inspect_into_what_cannot_be_written(spoilt, capsys, option, message):
    with pytest.raises(SystemExit) as end:
        main(["inspect", "--config", "small.yaml", *option.split()])
    done = capsys.readouterr()
    assert (end.value.code, done.out, done.err) == (2, "", f"error: {option}{message}\n")


@pytest.mark.parametrize("option", ["--json", "--figure"])
def test_a_full_disk_is_named_with_the_file(workplace, tmp_path, capsys, option):
    full = tmp_path / "full.png"
    full.symlink_to("/dev/full")
    with pytest.raises(SystemExit) as end:
        main(["inspect", "--config", "small.yaml", option, str(full)])
    expected = f"error: {full}: No space left on device: make room\n"
    assert (end.value.code, capsys.readouterr().err) == (1, expected)


def test_wandb_without_a_login_is_one_line():
    class Logger:
        _wandb_init: ClassVar[dict] = {"anonymous": None}

        @property
        def experiment(self):
            assert not self._wandb_init
            raise wandb.Error("No API key configured.\nUse `wandb login` to log in.")

    with pytest.raises(UserError, match=r"^W&B refuses: No API key configured.: log in .*, or set .*offline to true$"):
        _wandb_id(Logger())


@pytest.mark.parametrize(("code", "where"), [("0", "__init__"), ("", "forward"), ("3", "forward")])
def test_code_of_the_users_that_ends_the_program_is_one_line(workplace, capsys, code, where):
    body = {"__init__": "super().__init__()", "forward": "return self.conv1(x)"} | {where: f"sys.exit({code})"}
    (workplace / f"leaving{where}{code}.py").write_text(
        "import sys\nfrom own_networks import Small\n\n\nclass Leaves(Small):\n"
        f"    def __init__(self):\n        {body['__init__']}\n\n    def forward(self, x):\n        {body['forward']}\n"
    )
    with pytest.raises(SystemExit) as end:
        main(["inspect", "--config", "small.yaml", "--network.class_path", f"leaving{where}{code}.Leaves"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    said = code or "(None|0)"  # 0 by the hook that W&B leaves in a process with a run
    assert re.search(rf"^error: .*leaving{where}{code}.py, line \d+ calls sys.exit\({said}\): expected", error)


def test_weights_of_a_pruned_network_are_no_checkpoint(workplace, fitted, capsys):
    given = ["--checkpoint", str(fitted / "pruned" / "weights.safetensors")]
    message = r"pruned/weights.safetensors has the weights of a pruned network: give it as artifact: \S+/pruned$"
    assert_refused(capsys, workplace, given, message)
    inside = rf"fitted has no recipe.json \(did you mean {fitted / 'pruned'}\?\)"
    assert_refused(capsys, workplace, ["--artifact", str(fitted)], inside)


def test_unknown_key_in_the_yaml(workplace, capsys):
    (workplace / "typo.yaml").write_text("serch:\n  evaluations: 3\n")
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "small.yaml", "--config", "typo.yaml"])
    assert end.value.code == 2
    assert "serch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [("fails", r"importance own_importances.fails fails: .*beauty.*; expected"), ("few", r"returns scores of shapes")],
)
def test_an_importance_that_fails_is_refused_before_training(workplace, capsys, name, message):
    (workplace / "own_importances.py").write_text(
        "import torch\nfrom gnnrl_lightning.importance import Importance\n\n\n"
        "def fails(network, parameters, calibration):\n    raise KeyError('beauty')\n\n\n"
        "few = Importance(lambda context: [torch.zeros(1, 2)])\n"
    )
    assert_refused(capsys, workplace, ["--candidate.importance", f"own_importances.{name}"], message)
