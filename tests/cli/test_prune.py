"""`prune --widths`: the same network as the widths' own run, scored, fine-tuned and saved."""

import json
import re

import pytest
import torch

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.cli import main
from tests.cli.refused import tree


@pytest.fixture(scope="module")
def dense(workplace):
    main(["pretrain", "--config", "small.yaml", "--run.name", "trained"])
    return ["--checkpoint", "runs/trained/checkpoints/dense.safetensors"]


def prune(name, *options):
    main(["prune", "--config", "small.yaml", "--run.name", name, *options])


def test_widths_by_name_are_applied_fine_tuned_and_saved(workplace, dense, capsys):
    (workplace / "own.json").write_text(json.dumps({"conv2": 5, "conv1": 3}))
    prune("own", "--widths", "own.json", *dense)
    printed = capsys.readouterr().out
    folder = workplace / "runs" / "own"
    result = json.loads((folder / "result.json").read_text())
    assert {"dense", "pruned", "search"} <= result.keys() and "uniform" not in result
    assert result["layers"][0]["macs"] == {"dense": 64 * 9 * 8, "pruned": 64 * 9 * 3}
    assert "widths as given" in (folder / "report.html").read_text(encoding="utf-8")
    assert result["budget"] == {} and result["search"] == {"seed": 0, "found_by": "given"}
    row = result["pruned"]
    # conv1: 64 positions x 9 x 3; conv2: 9 positions x 9 x 3 x 5; classifier: 45 x 10
    assert row["widths"] == [3, 5] and row["macs"] == 64 * 9 * 3 + 9 * 9 * 3 * 5 + 45 * 10
    assert {"top1_search", "top1_test_before", "top1_test_after", "latency_ms"} <= row.keys()
    assert "widths as given" in printed and "uniform" not in printed and "ours" in printed
    assert (folder / "checkpoints" / "pruned.safetensors").is_file() and not (folder / "journal.jsonl").exists()
    recipe = artifact.read_recipe(folder / "pruned")
    assert {name: len(kept) for name, kept in recipe["steps"][0]["kept"].items()} == {"conv1": 3, "conv2": 5}
    main(["test", "--config", "small.yaml", "--artifact", str(folder / "pruned")])
    assert f"{row['top1_test_after']:.2f} %" in capsys.readouterr().out


def test_no_epochs_of_fine_tuning_leave_it_out(workplace, dense):
    (workplace / "list.json").write_text("[4, 4]")
    prune("untuned", "--widths", "list.json", "--finetuning.epochs", "0", *dense)
    row = json.loads((workplace / "runs" / "untuned" / "result.json").read_text())["pruned"]
    assert row["widths"] == [4, 4] and row["top1_test_before"] == row["top1_test_after"]


def test_the_result_of_a_run_is_applied_again(workplace, fitted):
    """The same dense network, pruned and fine-tuned the same way: the same figures."""
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    prune("again", "--widths", str(fitted / "result.json"), "--checkpoint", weights)
    first, again = (json.loads((workplace / "runs" / name / "result.json").read_text()) for name in ("fitted", "again"))
    for name in ("widths", "macs", "params", "top1_test_before", "top1_test_after"):
        assert again["pruned"][name] == first["pruned"][name], name
    kept = [artifact.read_recipe(workplace / "runs" / name / "pruned")["steps"] for name in ("fitted", "again")]
    assert kept[0] == kept[1]


def test_a_prediction_is_applied(workplace, fitted):
    """What predict says of a budget is what prune makes of it."""
    weights = ["--checkpoint", str(fitted / "checkpoints" / "dense.safetensors")]
    policy = ["--model.policy_file", str(fitted / "checkpoints" / "policy.safetensors")]
    budgets = ["--budgets", "0.3", "0.6", "--json", "predicted.json"]
    main(["predict", "--config", "small.yaml", *weights, *policy, *budgets])
    prune("predicted", "--widths", "predicted.json", "--share", "0.6", "--finetuning.epochs", "0", *weights)
    first = json.loads((workplace / "predicted.json").read_text())["predictions"][1]
    row = json.loads((workplace / "runs" / "predicted" / "result.json").read_text())["pruned"]
    assert row["widths"] == list(first["widths"].values())
    assert all(row[name] == first[name] for name in ("top1_search", "macs_ratio", "params_ratio"))


def test_a_dense_network_that_has_no_checkpoint_is_trained_first_and_the_widths_are_the_budget(workplace):
    (workplace / "own.json").write_text(json.dumps({"conv2": 5, "conv1": 3}))
    given = ["--widths", "own.json", "--pretraining.epochs", "1", "--finetuning.epochs", "0"]
    prune("from_nothing", *given, "--budget.macs", "null")
    assert (workplace / "runs" / "from_nothing" / "checkpoints" / "dense.safetensors").is_file()


def test_kept_layers_stay_as_they_are_in_what_is_saved(workplace, dense):
    (workplace / "one.json").write_text(json.dumps({"conv2": 5}))
    prune("kept", "--widths", "one.json", "--groups.keep", "[conv1]", *dense)
    folder = workplace / "runs" / "kept" / "pruned"
    assert artifact.read_recipe(folder)["steps"][0]["keep"] == ["conv1"]
    main(["validate", "--config", "small.yaml", "--artifact", str(folder)])
    program = artifact.load(folder, format="program")
    assert program.state_dict()["conv1.weight"].shape == torch.Size([8, 1, 3, 3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "prune needs --widths FILE"),
        (["--widths", "none.json"], "none.json cannot be read"),
        (["--widths", "wide.json"], "the width of conv1 is 9: expected a whole number from 1 to 8"),
        (["--widths", "wide.json", "--groups.keep", "[conv1]"], "widths has 'conv1'"),
        (
            ["--widths", "wide.json", "--groups.keep", "[conv3]"],
            r"'conv3' matches no module .* \(did you mean",
        ),
        (["--widths", "wide.json", "--groups.limits", "{conv3: {min: 2}}"], "groups.limits 'conv3' matches no group"),
        (["--widths", "wide.json", "--groups.limits", "{conv1: {min: 1}}"], "groups.limits has min 1"),
        (["--widths", "wide.json", "--groups.limits", "{conv1: {}}"], "an entry without limits"),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(workplace, capsys, options, message):
    (workplace / "wide.json").write_text(json.dumps({"conv1": 9, "conv2": 1}))
    before = tree(workplace)
    with pytest.raises(SystemExit) as end:
        prune("refused", *options)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and error.startswith("error: "), error
    assert re.search(message, error), error
    assert tree(workplace) == before
