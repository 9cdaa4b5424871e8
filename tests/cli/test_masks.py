"""Masks of linear layers on the command line: fit, inspect, and further training of what was delivered."""

import json

import pytest
import torch
from safetensors.torch import load_file

from gnnrl_lightning.artifacts.artifact import read_recipe
from gnnrl_lightning.cli import main
from tests.support.workplace import working_in

MASKED = ["--config", "small.yaml", "--groups.masks", "[torch.nn.Linear]", "--budget.nonzero", "0.4"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with working_in(tmp_path_factory.mktemp("workplace")) as folder:
        main(["fit", *MASKED, "--run.name", "fitted"])
        yield folder / "runs" / "fitted"


def zeros_of(folder, name):
    return load_file(folder / "weights.safetensors")[name] == 0


def test_fit_masks_and_reports(fitted):
    figures = json.loads((fitted / "result.json").read_text())["pruned"]
    assert figures["nonzero_ratio"] <= 0.4 and figures["nonzero"] <= figures["params"]
    (name,) = read_recipe(fitted / "pruned")["steps"][0]["masks"]
    assert bool(zeros_of(fitted / "pruned", name).any())


def test_finetune_keeps_the_zeros(fitted, capsys):
    given = ["--artifact", str(fitted / "pruned"), "--run.name", "tuned", "--finetuning.epochs", "1"]
    main(["finetune", "--config", "small.yaml", *given, "--finetuning.learning_rate", "0.001"])
    tuned, (name,) = fitted.parent / "tuned" / "pruned", read_recipe(fitted / "pruned")["steps"][0]["masks"]
    assert read_recipe(tuned)["steps"] == read_recipe(fitted / "pruned")["steps"]
    assert torch.equal(zeros_of(tuned, name), zeros_of(fitted / "pruned", name))
    with pytest.raises(SystemExit):
        main(["fit", "--config", "small.yaml", "--artifact", str(tuned), "--budget.macs", "0.2"])
    assert "has masked weights (classifier.weight), which a further search would not keep" in capsys.readouterr().err


def test_inspect_shows_masks(fitted, capsys):
    main(["inspect", *MASKED, "--json", "found.json"])
    found = json.loads((fitted.parents[1] / "found.json").read_text())
    assert [(group["width"], group["members"]) for group in found["groups"]][-1] == (64, [])
    assert found["smallest_nonzero"] < found["nonzero"] == found["params"]
    printed = capsys.readouterr().out
    assert "nonzero" in printed and "masked" in printed
