import csv
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.cli import main
from gnnrl_lightning.cost.metrics import METRICS
from gnnrl_lightning.networks.spec import NetworkSpec
from tests.support.workplace import SPENT, TABLE

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_result_has_the_figures(fitted):
    result = result_of(fitted)
    assert list(result) == [
        "network",
        "dataset",
        "objective",
        "budget",
        "dense",
        "uniform",
        "pruned",
        "latency",
        "test_examples",
        "search",
        "groups",
        "layers",
        "machine",
        "versions",
        "formats",
    ]
    assert (result["network"], result["dataset"], result["budget"]["macs"]) == ("Small", "digits", 0.5)
    assert set(result["dense"]) == {"macs", "params", "top1_test", "top5_test", "cross_entropy_test", "latency_ms"}
    # conv1: 64 positions x 9 x 8; conv2: 9 positions x 9 x 8 x 12; classifier: 108 x 10
    assert result["dense"]["macs"] == 64 * 9 * 8 + 9 * 9 * 8 * 12 + 108 * 10
    assert result["dense"]["params"] == (9 * 8 + 8) + 16 + (9 * 8 * 12 + 12) + 24 + (108 * 10 + 10)
    for name in ("uniform", "pruned"):
        row, (first, second) = result[name], result[name]["widths"]
        assert row["macs"] == 64 * 9 * first + 9 * 9 * first * second + 9 * second * 10
        assert row["macs_ratio"] == row["macs"] / result["dense"]["macs"] <= 0.5
        assert row["params_ratio"] == row["params"] / result["dense"]["params"]
        assert {"top1_search", "top1_test_before", "top1_test_after", "latency_ms"} <= row.keys()
    threads = torch.get_num_threads()
    assert result["latency"] == {"batch_size": 64, "threads": threads, "precision": "32", "backend": "eager"}
    assert (result["test_examples"], result["groups"]) == (360, {"conv1": 8, "conv2": 12})
    assert [layer["name"] for layer in result["layers"]] == ["conv1", "conv2", "classifier"]
    for name in ("dense", "uniform", "pruned"):
        assert sum(layer["macs"][name] for layer in result["layers"]) == result[name]["macs"]
    assert result["layers"][0]["macs"]["pruned"] == 64 * 9 * result["pruned"]["widths"][0]
    search = result["search"]
    assert set(search) == {"evaluations", "examples", "seconds", "seed", "found_by", "agent_best", "finals", "proxy"}
    assert search["finals"] is None
    assert set(search["proxy"]) == {"tau", "first_iteration", "last_iteration"}
    assert search["evaluations"] == 4 + 6 + 2 * 8 == SPENT
    assert result["pruned"]["top1_search"] >= max(search["agent_best"], result["uniform"]["top1_search"])
    # Besides calibration and sensitivity, each new candidate reads the holdout and the examples of its repair.
    evaluated = (search["examples"] - 128 * 10) / (287 + 128)
    lines = [json.loads(line) for line in (fitted / "journal.jsonl").read_text().splitlines()]
    assert len(lines) == 6 + 2 * 8 >= evaluated == sum(line["examples"] > 0 for line in lines)


def test_run_folder_is_complete(fitted):
    names = {path.name for path in fitted.iterdir()}
    assert {"config.yaml", "metrics.csv", "journal.jsonl", "checkpoints", "pruned", "result.json"} <= names
    assert {"report.html", "figures", "checksums.json", ".began.yaml"} <= names
    files = [str(path.relative_to(fitted)) for path in (fitted / "checkpoints").rglob("*.*")]
    # Three iterations in the proxy, one in the environment, one in the proxy, one in the environment: of 16 steps.
    assert sorted(files) == [
        "checkpoints/agent.ckpt",
        "checkpoints/checksums.json",
        "checkpoints/dense.safetensors",
        "checkpoints/policy.safetensors",
        "checkpoints/pruned.safetensors",
        "checkpoints/sensitivity.safetensors",
        "checkpoints/uniform.safetensors",
    ]
    agent = torch.load(fitted / "checkpoints" / "agent.ckpt", weights_only=True)
    assert (agent["epoch"], agent["global_step"]) == (5, 96)
    journal = [json.loads(line) for line in (fitted / "journal.jsonl").read_text().splitlines()]
    assert {"uniform", "agent"} <= {line["proposer"] for line in journal}
    known = [tuple(line["widths"]) for line in journal if line["examples"] > 0]
    assert len(journal) == 6 + 2 * 8 and len(set(known)) == len(known)
    assert set(known) == {tuple(line["widths"]) for line in journal}
    with (fitted / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    assert {"dense/train/loss", "pruned/train/top1", "rollout/reward_best", "result/top1_search"} <= set(columns)
    assert {"rollout/reward_mean", "proxy/reward_mean", "proxy/episodes_per_second"} <= set(columns)
    assert not [column for column in columns if "test" in column]


def spent_by_iteration(folder):
    with (folder / "metrics.csv").open() as file:
        return [int(float(row["search/evaluations"])) for row in csv.DictReader(file) if row["search/evaluations"]]


def test_only_iterations_in_the_environment_spend_evaluations(fitted):
    assert spent_by_iteration(fitted) == [0, 0, 0, 8, 8, 16]


def test_a_search_may_end_earlier(fitted, workplace):
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    arguments = ["--checkpoint", weights, "--trainer.max_epochs", "4", "--finetuning.epochs", "0"]
    main(["fit", "--config", "small.yaml", "--run.name", "earlier", *arguments])
    folder = workplace / "runs" / "earlier"
    assert spent_by_iteration(folder) == [0, 0, 0, 8]
    assert result_of(folder)["search"]["evaluations"] == TABLE + 6 + 8


def test_fit_with_ddpg(fitted, workplace):
    """The learner is a class with arguments; its run is resumed and repeated like any other."""
    config = yaml.safe_load((workplace / "small.yaml").read_text())
    episodes = {name: config["model"][name] for name in ("episodes_per_iteration", "proxy_warmup", "proxy_between")}
    config["model"] = {"class_path": "gnnrl_lightning.rl.learners.DDPG", "init_args": {**episodes, "batch_size": 4}}
    (workplace / "ddpg.yaml").write_text(yaml.safe_dump(config))
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    common = ["--checkpoint", weights, "--finetuning.epochs", "0"]
    main(["fit", "--config", "ddpg.yaml", "--run.name", "ddpg", *common])
    folder = workplace / "runs" / "ddpg"
    assert spent_by_iteration(folder) == [0, 0, 0, 8, 8, 16]
    assert result_of(folder)["search"]["evaluations"] == TABLE + 6 + 2 * 8
    main(["fit", "--config", str(folder / "config.yaml"), "--run.name", "ddpg_again"])
    assert result_of(workplace / "runs" / "ddpg_again")["pruned"]["widths"] == result_of(folder)["pruned"]["widths"]


def test_a_search_may_end_with_finals(fitted, workplace, capsys):
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    arguments = ["--checkpoint", weights, "--trainer.max_epochs", "4", "--finetuning.epochs", "0"]
    finals = ["--finals.candidates", "2", "--finals.steps", "3"]
    main(["fit", "--config", "small.yaml", "--run.name", "finals", *arguments, *finals])
    folder = workplace / "runs" / "finals"
    result, found = result_of(folder), result_of(folder)["search"]["finals"]
    assert len((folder / "finals.jsonl").read_text().splitlines()) == len(found["trained"]) == 2
    assert result["pruned"]["widths"] in [row["widths"] for row in found["trained"]]
    assert "2 finalists were trained" in capsys.readouterr().out


def test_fit_without_a_table_and_over_a_range_of_budgets(fitted, workplace):
    """There is no proxy, and episodes exceed the budget, but the delivered network meets it."""
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    search = ["--search.sensitivity", "null", "--episode.macs_range", "[0.4, 0.9]", "--search.evaluations", "20"]
    main(["fit", "--config", "small.yaml", "--run.name", "ranged", "--checkpoint", weights, *search])
    folder = workplace / "runs" / "ranged"
    assert spent_by_iteration(folder) == [8, 16]
    result = result_of(folder)
    assert result["search"]["evaluations"] == 4 + 2 * 8 and result["pruned"]["macs_ratio"] <= 0.5
    journal = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert 0.5 < max(line["macs_ratio"] for line in journal) <= 0.9
    within = [line["scores"]["top1"] for line in journal if line["macs_ratio"] <= 0.5]
    assert result["pruned"]["top1_search"] == max(within)


def test_artifact_is_the_network_of_the_result(fitted):
    recipe = artifact.read_recipe(fitted / "pruned")
    dense = NetworkSpec(**recipe["network"]).build()
    pruned = artifact.load(fitted / "pruned", dense, torch.zeros(1, *recipe["input"]["shape"]))
    result = result_of(fitted)["pruned"]
    assert [pruned.conv1.out_channels, pruned.conv2.out_channels] == result["widths"]
    assert sum(parameter.numel() for parameter in pruned.parameters()) == result["params"]
    assert recipe["figures"] == result
    assert recipe["transform"]["mean"] == [0.305]


def test_resolved_configuration_repeats_the_run(fitted, workplace):
    config = str(fitted / "config.yaml")
    main(["fit", "--config", config, "--run.name", "again"])
    first, second = result_of(fitted), result_of(workplace / "runs" / "again")
    for result in (first, second):
        result["search"].pop("seconds")
        for name in ("dense", "uniform", "pruned"):
            result[name].pop("latency_ms")
    assert first == second


def test_a_checkpoint_is_loaded_instead_of_training(fitted, workplace):
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    main(["fit", "--config", "small.yaml", "--checkpoint", weights, "--run.name", "loaded"])
    loaded = workplace / "runs" / "loaded"
    assert result_of(loaded)["dense"]["top1_test"] == result_of(fitted)["dense"]["top1_test"]
    assert result_of(loaded)["pruned"]["widths"] == result_of(fitted)["pruned"]["widths"]
    assert not (loaded / "checkpoints" / "dense.safetensors").exists()


def test_default_names_do_not_collide(workplace):
    for _ in range(2):
        main(["pretrain", "--config", "small.yaml", "--pretraining.epochs", "0", "--run.root", "many"])
    names = [path.name for path in (workplace / "many").iterdir()]
    assert len(names) == 2 and all(name.startswith("small-2") for name in names)


def printed_percent(capsys):
    return float(capsys.readouterr().out.strip().rsplit(" ", 2)[1])


def test_validate_and_test_agree_with_the_result(fitted, capsys):
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    result = result_of(fitted)
    main(["test", "--config", "small.yaml", "--checkpoint", weights])
    assert printed_percent(capsys) == pytest.approx(result["dense"]["top1_test"], abs=0.006)
    main(["test", "--config", "small.yaml", "--artifact", str(fitted / "pruned")])
    assert printed_percent(capsys) == pytest.approx(result["pruned"]["top1_test_after"], abs=0.006)
    main(["validate", "--config", "small.yaml", "--artifact", str(fitted / "pruned")])
    assert 0 < printed_percent(capsys) <= 100


def test_finetune_trains_an_artifact_further(fitted, workplace):
    """Again and again: the costs and their ratios stay, the weights change."""
    folders = [fitted, workplace / "runs" / "tuned", workplace / "runs" / "tuned_again"]
    for before, after in pairwise(folders):
        given = ["--artifact", str(before / "pruned"), "--run.name", after.name]
        main(["finetune", "--config", "small.yaml", *given, "--finetuning.epochs", "1"])
    first, *others = (artifact.read_recipe(folder / "pruned") for folder in folders)
    costs = {name: first["figures"][name] for name in ("macs", "macs_ratio", "params", "params_ratio")}
    for recipe in others:
        assert recipe["steps"] == first["steps"]
        assert {name: value for name, value in recipe["figures"].items() if not name.endswith("_after")} == costs
    hashes = {recipe["sha256"]["weights.safetensors"] for recipe in (first, *others)}
    assert len(hashes) == 3


def test_finetune_writes_the_formats_of_the_delivery(fitted, workplace, capsys):
    """A lossy one calibrates, and is scored on the holdout."""
    given = ["--artifact", str(fitted / "pruned"), "--run.name", "tuned_int8"]
    main(["finetune", "--config", "small.yaml", *given, "--delivery.formats", "[weights,int8]"])
    folder = workplace / "runs" / "tuned_int8" / "pruned"
    files = {path.name for path in folder.iterdir()}
    assert files == {"recipe.json", "weights.safetensors", "model.int8.onnx"}
    assert re.search(r"^int8: top-1 on the holdout: \d+\.\d\d %$", capsys.readouterr().out, re.MULTILINE)
    assert artifact.load(folder, format="int8")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_finetune_undoes_a_training_that_harms(fitted, workplace, capsys):
    given = ["--artifact", str(fitted / "pruned"), "--run.name", "harmed"]
    main(["finetune", "--config", "small.yaml", *given, "--finetuning.epochs", "1", "--finetuning.learning_rate", "3"])
    assert "the network before fine-tuning is saved" in capsys.readouterr().out
    hashes = {
        artifact.read_recipe(folder / "pruned")["sha256"]["weights.safetensors"]
        for folder in (fitted, workplace / "runs" / "harmed")
    }
    assert len(hashes) == 1


def test_finetune_trains_weights_further(fitted, workplace):
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    main(["finetune", "--config", "small.yaml", "--checkpoint", weights, "--run.name", "dense"])
    assert (workplace / "runs" / "dense" / "checkpoints" / "dense.safetensors").is_file()


def test_inspect_writes_json(workplace, capsys):
    main(["inspect", "--config", "small.yaml", "--json", "found.json"])
    found = json.loads((workplace / "found.json").read_text())
    costs = [
        part for name, row in METRICS.items() if not (row.measured or row.masked) for part in (name, f"smallest_{name}")
    ]
    assert list(found) == [*costs, "kept", "groups", "frozen", "reasons"]
    assert [(group["name"], group["width"]) for group in found["groups"]] == [("conv1", 8), ("conv2", 12)]
    assert found["smallest_macs"] == 64 * 9 + 9 * 9 + 9 * 10
    assert {"parameter": "conv1.weight", "dimension": 0, "role": "output"} in found["groups"][0]["members"]
    assert all(set(group) == {"name", "width", "operator", "reason", "source"} for group in found["frozen"])
    assert "channel groups" in capsys.readouterr().out


def test_inspect_draws_the_graph(workplace, capsys):
    main(["inspect", "--config", "small.yaml", "--figure", "graph.svg"])
    drawing = (workplace / "graph.svg").read_text(encoding="utf-8")
    assert "Small: " in drawing and 'id="network nodes"' in drawing
    assert "channel groups" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["inspect", "--config", "small.yaml", "--figure", "graph.txt"])
    assert end.value.code == 2 and "--figure graph.txt: expected a name that ends in .png" in capsys.readouterr().err


def test_wandb_by_configuration(workplace):
    """Offline; the run's folder is named after the W&B run, and metrics.csv is there as well."""
    arguments = ["--trainer.logger.init_args.offline", "true", "--pretraining.epochs", "1", "--run.root", "wandb_runs"]
    main(["pretrain", "--config", "small.yaml", "--config", str(EXPERIMENTS / "wandb.yaml"), *arguments])
    main(["pretrain", "--config", "small.yaml", "--config", str(EXPERIMENTS / "wandb.yaml"), *arguments])
    folders = list((workplace / "wandb_runs").iterdir())
    ids = {path.name.rsplit("-", 1)[1] for path in (workplace / "wandb").glob("offline-run-*")}
    assert {folder.name for folder in folders} == ids and len(ids) == 2
    assert all("dense/train/loss" in (folder / "metrics.csv").read_text() for folder in folders)


def test_a_pruned_network_is_pruned_further(fitted, workplace, capsys):
    """Its own costs are the dense ones of the second run, whose artifact is restored in one go."""
    given = ["--config", "small.yaml", "--artifact", str(fitted / "pruned")]
    quick = ["--run.name", "further", "--trainer.max_epochs", "1", "--finetuning.epochs", "0"]
    main(["fit", *given, *quick])
    first, second = result_of(fitted), result_of(workplace / "runs" / "further")
    assert second["dense"]["macs"] == first["pruned"]["macs"] and second["pruned"]["macs_ratio"] <= 0.5
    capsys.readouterr()
    main(["test", "--config", "small.yaml", "--artifact", "runs/further/pruned"])
    assert f"{second['pruned']['top1_test_after']:.2f} %" in capsys.readouterr().out


def test_an_agent_by_default_evaluates_different_candidates(workplace):
    """As long as there are any. Its figures are logged, its policy applies to other budgets."""
    common = ["--config", "small.yaml", "--config", "rounds.yaml", "--finetuning.epochs", "0"]
    main(["fit", *common, "--run.name", "imagined"])
    run = workplace / "runs" / "imagined"
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    own = [tuple(line["widths"]) for line in lines if line["proposer"] == "agent"]
    known = {tuple(line["widths"]) for line in lines[:6]}
    assert len(own) == len({*own} - known) == 4 + 2 and len(known) == 4
    assert spent_by_iteration(run) == [0, 0, 0, 4, 4, 6]
    # Twelve passes for calibration and sensitivity.
    search = result_of(run)["search"]
    assert search["examples"] == 128 * 12 + (287 + 128) * (4 + 6)
    assert search["evaluations"] == -(-128 * 12 // (287 + 128)) + len(lines)
    # The candidate of the least divergence is delivered.
    best = min(lines, key=lambda line: line["scores"]["divergence"])
    assert result_of(run)["pruned"]["widths"] == best["widths"]
    with (run / "metrics.csv").open() as file:
        logged = {name for row in csv.DictReader(file) for name, value in row.items() if value}
    assert {"surrogate/tau", "search/new", "search/distance"} <= logged
    dense, policy = (str(run / "checkpoints" / f"{name}.safetensors") for name in ("dense", "policy"))
    main(["predict", *common, "--checkpoint", dense, "--model.policy_file", policy, "--budgets", "0.7", "0.4"])
