import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from gnnrl_lightning import artifact, pipeline
from gnnrl_lightning.cli import main
from gnnrl_lightning.networks.spec import NetworkSpec
from tests.workplace import SPENT, TABLE, working_in

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"

@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a network of the user's own and its configuration; the tests run in it."""
    with working_in(tmp_path_factory.mktemp("workplace")) as folder:
        yield folder


@pytest.fixture(scope="module")
def fitted(workplace):
    """The folder of a finished run."""
    main(["fit", "--config", "small.yaml", "--run.name", "fitted"])
    return workplace / "runs" / "fitted"


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_result_has_the_figures(fitted):
    result = result_of(fitted)
    assert list(result) == [
        "network",
        "dataset",
        "budget",
        "dense",
        "uniform",
        "pruned",
        "search",
        "versions",
    ]
    assert (result["network"], result["dataset"], result["budget"]["macs"]) == ("Small", "digits", 0.5)
    assert set(result["dense"]) == {"macs", "params", "top1_test", "latency_ms"}
    # conv1: 64 positions x 9 x 8; conv2: 9 positions x 9 x 8 x 12; classifier: 108 x 10
    assert result["dense"]["macs"] == 64 * 9 * 8 + 9 * 9 * 8 * 12 + 108 * 10
    assert result["dense"]["params"] == (9 * 8 + 8) + 16 + (9 * 8 * 12 + 12) + 24 + (108 * 10 + 10)
    for name in ("uniform", "pruned"):
        row, (first, second) = result[name], result[name]["widths"]
        assert row["macs"] == 64 * 9 * first + 9 * 9 * first * second + 9 * second * 10
        assert row["macs_ratio"] == row["macs"] / result["dense"]["macs"] <= 0.5
        assert row["params_ratio"] == row["params"] / result["dense"]["params"]
        assert {"top1_search", "top1_test_before", "top1_test_after", "latency_ms"} <= row.keys()
    search = result["search"]
    assert set(search) == {"evaluations", "images", "seconds", "seed", "found_by", "agent_best", "proxy"}
    assert set(search["proxy"]) == {"tau", "first_iteration", "last_iteration"}
    assert search["evaluations"] == 4 + 6 + 2 * 8 == SPENT
    assert result["pruned"]["top1_search"] >= max(search["agent_best"], result["uniform"]["top1_search"])
    # Besides calibration and table each candidate that was not known yet: the search split, and what its repair reads.
    evaluated = (search["images"] - 128 * 10) / (287 + 128)
    lines = [json.loads(line) for line in (fitted / "journal.jsonl").read_text().splitlines()]
    assert len(lines) == 6 + 2 * 8 >= evaluated == sum(line["images"] > 0 for line in lines)


def test_run_folder_is_complete(fitted):
    names = {path.name for path in fitted.iterdir()}
    assert {"config.yaml", "metrics.csv", "journal.jsonl", "checkpoints", "pruned", "result.json"} <= names
    weights = [str(path.relative_to(fitted)) for path in (fitted / "checkpoints").rglob("*.*")]
    # Three iterations in the proxy, one in the environment, one in the proxy, one in the environment: of 16 steps.
    assert sorted(weights) == [
        "checkpoints/agent.ckpt",
        "checkpoints/dense.safetensors",
        "checkpoints/policy.safetensors",
        "checkpoints/pruned.safetensors",
        "checkpoints/table.safetensors",
        "checkpoints/uniform.safetensors",
    ]
    agent = torch.load(fitted / "checkpoints" / "agent.ckpt", weights_only=True)
    assert (agent["epoch"], agent["global_step"]) == (5, 96)
    journal = [json.loads(line) for line in (fitted / "journal.jsonl").read_text().splitlines()]
    assert {"uniform", "agent"} <= {line["proposer"] for line in journal}
    known = [tuple(line["widths"]) for line in journal if line["images"] > 0]
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


def test_fit_without_a_table_and_over_a_range_of_budgets(fitted, workplace):
    """No proxy then, but episodes beyond the budget; what is delivered is within it."""
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    search = ["--search.table", "null", "--search.macs_range", "[0.4, 0.9]", "--search.evaluations", "20"]
    main(["fit", "--config", "small.yaml", "--run.name", "ranged", "--checkpoint", weights, *search])
    folder = workplace / "runs" / "ranged"
    assert spent_by_iteration(folder) == [8, 16]
    result = result_of(folder)
    assert result["search"]["evaluations"] == 4 + 2 * 8 and result["pruned"]["macs_ratio"] <= 0.5
    journal = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert 0.5 < max(line["macs_ratio"] for line in journal) <= 0.9
    within = [line["top1"] for line in journal if line["macs_ratio"] <= 0.5]
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


def test_finetune_goes_on_with_an_artifact(fitted, workplace):
    main(["finetune", "--config", "small.yaml", "--artifact", str(fitted / "pruned"), "--run.name", "tuned"])
    before, after = (artifact.read_recipe(folder / "pruned") for folder in (fitted, workplace / "runs" / "tuned"))
    assert after["kept"] == before["kept"]
    assert after["sha256"]["weights.safetensors"] != before["sha256"]["weights.safetensors"]


def test_finetune_goes_on_with_weights(fitted, workplace):
    weights = str(fitted / "checkpoints" / "dense.safetensors")
    main(["finetune", "--config", "small.yaml", "--checkpoint", weights, "--run.name", "dense"])
    assert (workplace / "runs" / "dense" / "checkpoints" / "dense.safetensors").is_file()


def test_inspect_writes_json(workplace, capsys):
    main(["inspect", "--config", "small.yaml", "--json", "found.json"])
    found = json.loads((workplace / "found.json").read_text())
    assert list(found) == ["macs", "params", "smallest_macs", "groups", "frozen"]
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


COMPARE = ["--search.evaluations", "19", "--search.table", "reconstruction", "--compare.seeds", "[0, 1]"]


def compare(*arguments):
    main(["compare", "--config", "small.yaml", "--run.name", "compared", *COMPARE, *arguments])


@pytest.fixture(scope="module")
def compared(fitted, workplace):
    """The folder of a finished comparison, with an agent that differs."""
    (workplace / "variants.yaml").write_text(
        "compare:\n  methods: [agent, three_steps, blind, uniform, greedy, random]\n"
        "  variants: {three_steps: {model: {episodes_per_iteration: 4, epochs: 2}, search: {max_steps: 3}},\n"
        "    blind: {model: {actor_critic: {class_path: gnnrl_lightning.agents.AblatedAgent, init_args: "
        "{ablation: no_messages, encoder: {class_path: gnnrl_lightning.encoders.GCN}}}}}}\n"
    )
    compare("--config", "variants.yaml")
    return workplace / "runs" / "compared"


def test_comparison_has_the_figures(compared):
    figures = json.loads((compared / "compare.json").read_text())
    keys = {"method", "seed", "budget", "evaluations", "images", "seconds", "top1_search", "top1_test_before"}
    assert all(keys | {"macs_ratio", "widths"} <= row.keys() and row["macs_ratio"] <= 0.5 for row in figures["rows"])
    spent = {(row["method"], row["seed"]): row["evaluations"] for row in figures["rows"]}
    # The table takes 128 calibration images, worth one evaluation of 287 + 128 for those who read it; with the table
    # an agent has six candidates to start from.
    assert spent == {
        ("agent", 0): 1 + 6 + 8,
        ("agent", 1): 1 + 6 + 8,
        ("three_steps", 0): 1 + 6 + 3 * 4,
        ("three_steps", 1): 1 + 6 + 3 * 4,
        ("blind", 0): 1 + 6 + 8,
        ("blind", 1): 1 + 6 + 8,
        ("uniform", None): 1,
        ("greedy", None): 1 + 1,
        ("random", 0): 19,
        ("random", 1): 19,
    }
    assert {(entry["agent"], entry["method"]) for entry in figures["paired"]} >= {("agent", "uniform")}


def test_a_comparison_goes_on_where_it_stopped(compared, capsys):
    before = json.loads((compared / "compare.json").read_text())
    (compared / "compare" / "random-0.5-seed1.json").unlink()
    capsys.readouterr()
    fewer = ["--compare.methods", "[agent, uniform, random]", "--compare.seeds", "[0, 1, 2]"]
    compare("--config", "variants.yaml", *fewer)
    printed = capsys.readouterr().out
    finished = [line.split(":")[0] for line in printed.splitlines() if "evaluations," in line]
    assert finished == ["random, budget 0.5, seed 1", "agent, budget 0.5, seed 2", "random, budget 0.5, seed 2"]
    after = {(row["method"], row["seed"]): row for row in json.loads((compared / "compare.json").read_text())["rows"]}
    assert len(after) == 7
    for row in before["rows"]:
        if row["method"] in ("agent", "uniform", "random"):
            again = after[row["method"], row["seed"]]
            assert {**again, "seconds": 0} == {**row, "seconds": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search.evaluations", "20"], r"was compared with search.evaluations 19, which is 20 now"),
        (["--compare.test_half", "odd"], r"was compared with compare.test_half 'all', which is 'odd' now"),
        (["--compare.methods", "[agent, magic]"], r"compare.methods has magic: expected some of agent"),
        (["--compare.budgets", "[1.5]"], r"compare.budgets is \[1.5\]"),
        (["--search.table", "round"], r"search.table is 'round'"),
        (["--search.table", "sensitivity"], r"was compared with search.table 'reconstruction', which is 'sensitivity'"),
        (["--compare.seeds", "[1, 1]"], r"compare.seeds is \[1, 1\]: each is run once"),
        (["--compare.variants", "{a: {modle: {}}}"], r"compare.variants.a has modle: expected keys of model and"),
        (["--compare.variants", "{a: {model: {clip: 1}}}"], r"compare.variants.a: .*clip"),
        (["--compare.variants", "{a: {model: {epochs: 0}}}"], r"compare.variants.a: epochs is 0"),
        (["--compare.variants", "{a: {model: {proxy: null}}}"], r"compare.variants.a: .*proxy"),
        (["--compare.variants", "{a: {search: {repair: none}}}"], r"variants.a.search has repair, which is the same"),
        (["--compare.variants", "{a: {search: {table: sensitivity}}}"], r"a.search has another table, sensitivity"),
        (["--model.policy", "nowhere.safetensors"], r"compare: agent: .*nowhere.safetensors"),
        (
            ["--compare.variants", "{a: {model: {policy: nowhere.safetensors}}}"],
            r"compare: a: .*nowhere.safetensors",
        ),
        (
            ["--compare.variants", "{a: {model: {actor_critic: {class_path: Agnet, init_args: {}}}}}"],
            r"compare.variants.a: .*Agnet",
        ),
        (
            ["--compare.variants", "{a: {model: {actor_critic: {class_path: nowhere.Agent, init_args: {}}}}}"],
            r"compare.variants.a: .*nowhere",
        ),
        (["--compare.variants", "{random: {}}"], r"compare.variants has 'random': expected a new name"),
    ],
)
def test_comparisons_that_are_refused(compared, capsys, arguments, message):
    before = tree(compared)
    with pytest.raises(SystemExit) as end:
        compare(*arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and re.search(message, error)
    assert tree(compared) == before


def test_what_is_measured_is_written_down_and_read_again(fitted, workplace, capsys, monkeypatch):
    """By `fit`, and by a comparison that goes on: what it began with counts, not what would be measured now."""
    given = ["--checkpoint", str(fitted / "checkpoints" / "dense.safetensors"), "--search.precision", "auto"]
    fit = ["--trainer.max_epochs", "1", "--finetuning.epochs", "0"]
    main(["fit", "--config", "small.yaml", "--run.name", "measured", *given, *fit])
    search = yaml.safe_load((workplace / "runs" / "measured" / "config.yaml").read_text())["search"]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("candidates are scored in"))
    assert search["precision"] in ("32", "bf16") and search["batch_size"] in (64, 128, 256)
    assert f"precision {search['precision']}, {search['batch_size']} images a batch" in line

    both = ["compare", "--config", "small.yaml", "--run.name", "measured_too", *given, "--search.batch_size", "100"]
    main([*both, "--compare.methods", "[uniform]"])
    before = (workplace / "runs" / "measured_too" / "config.yaml").read_text()
    assert yaml.safe_load(before)["search"]["batch_size"] == 100
    monkeypatch.setattr(pipeline, "tune", lambda *_: pytest.fail("measured again"))
    main([*both, "--compare.methods", "[uniform, greedy]"])
    assert "uniform" in (workplace / "runs" / "measured_too" / "compare.json").read_text()


def test_wandb_by_configuration(workplace):
    """Offline; the run's folder is named after the W&B run, and metrics.csv is there as well."""
    arguments = ["--trainer.logger.init_args.offline", "true", "--pretraining.epochs", "1", "--run.root", "wandb_runs"]
    main(["pretrain", "--config", "small.yaml", "--config", str(EXPERIMENTS / "wandb.yaml"), *arguments])
    main(["pretrain", "--config", "small.yaml", "--config", str(EXPERIMENTS / "wandb.yaml"), *arguments])
    folders = list((workplace / "wandb_runs").iterdir())
    ids = {path.name.rsplit("-", 1)[1] for path in (workplace / "wandb").glob("offline-run-*")}
    assert {folder.name for folder in folders} == ids and len(ids) == 2
    assert all("dense/train/loss" in (folder / "metrics.csv").read_text() for folder in folders)


BAD = {
    "impossible budget": (["--budget.macs", "0.001"], r"has 747 macs"),
    "budget of nothing": (["--budget.macs", "0"], r"budget.macs is 0.*must be positive"),
    "negative budget": (["--budget.macs", "-0.5"], r"must be positive"),
    "budget above dense": (["--budget.macs", "1e9"], r"more than the dense network has \(13,464\)"),
    "budget of all": (["--budget.macs", "1.0"], r"meets the budget as it is"),
    "no budget": (["--budget.macs", "null"], r"budget is empty"),
    "latency budget": (["--budget.latency", "0.5"], r"budget.latency is not available yet"),
    "missing data": (["--data", "ImageFolder", "--data.root", "nowhere"], r"nowhere"),
    "missing checkpoint": (["--checkpoint", "nowhere.pt"], r"nowhere.pt"),
    "classes of the network": (["--network.init_args.classes", "7"], r"has 7 classes, the data has 10"),
    "classes of the checkpoint": (["--checkpoint", "seven.safetensors"], r"has 7 classes, the network has 10"),
    "weights that are NaN": (["--checkpoint", "nan.safetensors"], r"NaN or infinite values in conv2.bias"),
    "input size": (["--network.init_args.size", "32"], r"refuses images of 1x8x8"),
    "unknown network": (["--network.class_path", "own_networks.Large"], r"cannot be imported"),
    "unknown importance": (["--search.importance", "size"], r"importance is 'size'"),
    "unknown repair": (["--search.repair", "glue"], r"repair is 'glue'"),
    "unknown reward": (["--search.reward", "luck"], r"search.reward is 'luck'"),
    "missing reward": (["--search.reward", "own_networks.luck"], r"search.reward 'own_networks.luck' cannot be imp"),
    "unknown table": (["--search.table", "round"], r"search.table is 'round'.* or null"),
    "unknown precision": (["--search.precision", "8"], r"search.precision is '8'"),
    "range of budgets": (["--search.macs_range", "[0.9, 0.4]"], r"macs_range is \(0.9, 0.4\), .*the smaller one first"),
    "impossible range": (["--search.macs_range", "[0.001, 0.5]"], r"macs is 0.001"),
    "too few evaluations": (["--search.evaluations", "5"], r"search.evaluations is 5: at least 18 are needed, 10 for"),
    "one too few": (["--search.evaluations", "17"], r"search.evaluations is 17: at least 18"),
    "too few without a table": (
        ["--search.table", "null", "--search.evaluations", "11"],
        r"search.evaluations is 11: at least 12 are needed, 4 for",
    ),
    "short training": (["--search.finetune_steps", "-1"], r"search.finetune_steps is -1"),
    "proxy": (["--model.proxy_warmup", "-1"], r"proxy_warmup is -1, expected at least 0"),
    "calibration": (["--search.calibration_images", "100000"], r"expected 1 to"),
    "learning rate": (["--finetuning.learning_rate", "-1"], r"learning_rate=-1"),
    "batch size": (["--data.init_args.batch_size", "0"], r"^error: batch_size=0: expected at least 1$"),
    "search size": (["--data.init_args.search_size", "0.0"], r"^error: search_size=0.0"),
    "mean of another length": (["--data.init_args.mean", "[0.1, 0.2]"], r"^error: mean=.*one of each for a channel"),
    "devices": (["--trainer.devices", "2"], r"are for 2 processes: only the command line starts them"),
    "nodes": (["--trainer.num_nodes", "2"], r"are for 2 processes: only the command line starts them"),
    "strategy": (
        ["--trainer.devices", "2", "--trainer.strategy", "ddp_spawn"],
        r"trainer.strategy is ddp_spawn, .* are for 2 processes: expected one of auto, ddp, ddp_find",
    ),
    "endless epochs": (["--trainer.max_epochs", "-1"], r"trainer.max_epochs is -1: expected at least 1"),
    "negative epochs": (["--trainer.max_epochs", "-2"], r"trainer.max_epochs is -2"),
    "seed": (["--seed_everything", "-1"], r"seed_everything is -1: expected 0 to"),
    "accelerator": (["--trainer.accelerator", "tpu"], r"^error: trainer: "),
    "policy": (["--model.actor_critic.head", "tail"], r"^error: model.actor_critic cannot be made: "),
    "root": (["--run.root", "small.yaml/runs"], r"run.root small.yaml/runs cannot be made"),
    "artifact of fit": (["--artifact", "nowhere"], r"fit reads no --artifact"),
    "steps": (["--search.max_steps", "0"], r"max_steps is 0"),
    "threads": (["--run.threads", "0"], r"run.threads is 0"),
    "name with a folder": (["--run.name", "a/b"], r"not a plain folder name"),
    "existing name": (["--run.name", "taken"], r"taken exists; choose another name or pass --overwrite"),
    "checkpoint in the run that is replaced": (
        ["--run.name", "taken", "--overwrite", "--checkpoint", "bad/taken/checkpoints/own.safetensors"],
        r"--overwrite would delete bad/taken/checkpoints/own.safetensors",
    ),
    "policy in the run that is replaced": (
        ["--run.name", "taken", "--overwrite", "--model.policy", "bad/taken/checkpoints/own.safetensors"],
        r"--overwrite would delete bad/taken/checkpoints/own.safetensors",
    ),
    "policy of a variant in the run that is replaced": (
        ["--run.name", "taken", "--overwrite", "--compare.variants", "{a: {model: {policy: bad/taken/x.safetensors}}}"],
        r"--overwrite would delete bad/taken/x.safetensors",
    ),
}


POLICIES = """
import torch
from torch import nn

from gnnrl_lightning.agents.actor_critic import graph_mean


class Encoder(nn.Module):
    def __init__(self, state_dim, out_features=6):
        super().__init__()
        self.out_features, self.layer = out_features, nn.Linear(state_dim, out_features)

    def forward(self, state):
        return self.layer(state.x).tanh()


class Actor(nn.Module):
    def __init__(self, state_dim, action_dim, numbers=2):
        super().__init__()
        self.layer = nn.Linear(state_dim, numbers * action_dim)

    def forward(self, state):
        return 0.1 * self.layer(graph_mean(state.x, state)).view(state.num_graphs, -1, 2)


class Critic(nn.Module):
    def __init__(self, state_dim: int, action_dim: int, nan: bool = False):
        super().__init__()
        self.layer, self.nan = nn.Linear(state_dim, 1), nan

    def forward(self, state):
        values = self.layer(graph_mean(state.x, state))[:, 0].tanh()
        return values / 0 * 0 if self.nan else values


class Whole(nn.Module):
    def __init__(self, state_dim, action_dim):
        super().__init__()
        self.mean, self.value = nn.Linear(state_dim, action_dim), nn.Linear(state_dim, 1)

    def distribution(self, state):
        return torch.distributions.Normal(graph_mean(self.mean(state.x), state).sigmoid(), 0.1)

    @torch.no_grad()
    def act(self, state):
        action = self.distribution(state).sample()
        return action, self.distribution(state).log_prob(action).sum(1)

    def evaluate(self, state, action):
        found = self.distribution(state)
        value = graph_mean(self.value(state.x), state)[:, 0]
        return found.log_prob(action).sum(1), value, found.entropy().sum(1)


class NoPolicy(nn.Module):
    def __init__(self, state_dim, action_dim):
        super().__init__()


def raising(evaluation):
    return evaluation.beauty


def nothing(evaluation):
    return float("nan")
"""


@pytest.fixture(scope="module")
def policies(workplace):
    """A module with policies and rewards of a user's own, most of them without type hints."""
    (workplace / "own_policies.py").write_text(POLICIES)
    return workplace


AGENT = "gnnrl_lightning.agents.Agent"
OWN = {
    "encoder": {"class_path": AGENT, "init_args": {"encoder": {"class_path": "own_policies.Encoder"}}},
    "actor": {"class_path": AGENT, "init_args": {"actor": {"class_path": "own_policies.Actor"}}},
    "critic": {"class_path": AGENT, "init_args": {"critic": {"class_path": "own_policies.Critic"}}},
    "both": {
        "class_path": AGENT,
        "init_args": {
            "actor": {"class_path": "own_policies.Actor", "init_args": {"numbers": 2}},
            "critic": {"class_path": "own_policies.Critic"},
            "distribution": "gnnrl_lightning.agents.ClippedGaussian",
            "fixed_spread": True,
        },
    },
    "whole": {"class_path": "own_policies.Whole"},
}


@pytest.mark.parametrize("own", OWN)
def test_a_users_own_parts_are_named_in_the_yaml(policies, capsys, own):
    (policies / "own.yaml").write_text(yaml.safe_dump({"model": {"actor_critic": OWN[own]}}))
    quick = ["--pretraining.epochs", "0", "--finetuning.epochs", "0", "--run.threads", "1"]
    name = f"own_{own}"
    main(["fit", "--config", "small.yaml", "--config", "own.yaml", *quick, "--run.name", name])
    result = json.loads((policies / "runs" / name / "result.json").read_text())
    assert result["search"]["evaluations"] == SPENT and result["search"]["agent_best"] is not None
    weights = load_file(policies / "runs" / name / "checkpoints" / "policy.safetensors")
    part = {"encoder": "actor.decisions.encoder", "both": "actor"}.get(own, own)
    layer = {"whole": "mean.weight"}.get(own, f"{part}.layer.weight")
    assert layer in weights


BAD_PARTS = {
    "no such class": (["--model.actor_critic", f"{AGENT}s"], r"model.actor_critic.*no attribute 'Agents'"),
    "no policy": (["--model.actor_critic", "own_policies.NoPolicy"], r"model.actor_critic .* has no attribute 'act'"),
    "another number of outputs": (
        ["--model.actor_critic.init_args.actor", "{class_path: own_policies.Actor, init_args: {numbers: 4}}"],
        r"model.actor_critic cannot be made: act's action has shape \(2, 4\), expected \(2, 2\)",
    ),
    "no numbers": (
        ["--model.actor_critic.init_args.critic", "{class_path: own_policies.Critic, init_args: {nan: true}}"],
        r"model.actor_critic cannot be made: evaluate's value is not finite",
    ),
    "a reward that fails": (
        ["--search.reward", "own_policies.raising"],
        r"search.reward 'own_policies.raising' fails: 'Evaluation' object has no attribute 'beauty'",
    ),
    "a reward that is no number": (
        ["--search.reward", "own_policies.nothing"],
        r"search.reward 'own_policies.nothing' gives nan: expected a finite number",
    ),
    "no such option": (["--search.evaluatons", "3"], r"^error: unrecognized arguments: --search.evaluatons 3$"),
    "no number": (["--search.evaluations", "many"], r"search.evaluations.*many"),
    "no such file": (["--config", "none.yaml"], r"none.yaml"),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_what_a_user_gets_wrong_is_one_line_before_anything_is_scored(policies, capsys, case):
    arguments, message = BAD_PARTS[case]
    before = tree(policies)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "small.yaml", "--run.root", "bad", *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and error.startswith("error: "), error
    assert re.search(message, error), error
    assert tree(policies) == before


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


def tree(folder):
    files = [path for path in folder.rglob("*") if not {"__pycache__", "wandb"} & set(path.parts)]
    return sorted((str(path), path.stat().st_mtime_ns) for path in files)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(spoilt, capsys, case):
    arguments, message = BAD[case]
    before = tree(spoilt)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "small.yaml", "--run.root", "bad", *arguments])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert re.search(message, error)
    assert tree(spoilt) == before


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


@pytest.mark.parametrize("command", ["finetune", "validate", "test"])
def test_missing_artifact(workplace, capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml", "--artifact", "nowhere"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: nowhere has no recipe.json: it is not the folder of a pruned network\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network.class_path", "resnet20"], r"was pruned from own_networks.Small with .*network is resnet20"),
        (["--network.init_args.size", "8"], r"from own_networks.Small with init_args \{\}, network is .*size"),
        (["--data.init_args.mean", "[0.5]"], r"reads images of mean \[0.305\], the data module gives \[0.5\]"),
    ],
)
def test_an_artifact_of_another_network_or_other_images(fitted, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(["test", "--config", "small.yaml", "--artifact", str(fitted / "pruned"), *arguments])
    assert end.value.code == 2 and re.search(message, capsys.readouterr().err)


def test_a_recipe_runs_nothing_that_it_names(fitted, workplace, capsys):
    recipe = artifact.read_recipe(fitted / "pruned")
    recipe["network"] = {"class_path": "os.mkdir", "init_args": {"path": "ran"}}
    recipe["sha256"]["recipe.json"] = artifact._recipe_hash(recipe)
    (workplace / "foreign").mkdir()
    (workplace / "foreign" / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(SystemExit) as end:
        main(["test", "--config", "small.yaml", "--artifact", "foreign"])
    assert end.value.code == 2 and "was pruned from os.mkdir" in capsys.readouterr().err
    assert not (workplace / "ran").exists()


@pytest.mark.parametrize(("command", "verb"), [("finetune", "fine-tune"), ("validate", "validate"), ("test", "test")])
def test_trained_weights_are_needed(workplace, capsys, command, verb):
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml"])
    assert end.value.code == 2 and f"nothing to {verb}: give --artifact" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([command, "--config", "small.yaml", "--artifact", "a", "--checkpoint", "b.pt"])
    assert end.value.code == 2 and "--artifact and --checkpoint exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json nowhere/found.json", "--figure nowhere/graph.png"])
def test_inspect_into_a_folder_that_is_not_there(workplace, capsys, option):
    with pytest.raises(SystemExit) as end:
        main(["inspect", "--config", "small.yaml", *option.split()])
    done = capsys.readouterr()
    assert (end.value.code, done.out) == (2, "")
    assert done.err == f"error: {option}: there is no folder nowhere\n"


@pytest.mark.parametrize(
    "arguments",
    [["--serch.evaluations", "3"], ["--search.evaluations", "many"], ["--config", "nowhere.yaml"], ["--data.siz", "3"]],
)
def test_unknown_keys_and_values_are_jsonargparse_errors(workplace, capsys, arguments):
    before = tree(workplace)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "small.yaml", *arguments])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "error:" in error and "Traceback" not in error
    assert tree(workplace) == before


def test_unknown_key_in_the_yaml(workplace, capsys):
    (workplace / "typo.yaml").write_text("serch:\n  evaluations: 3\n")
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "small.yaml", "--config", "typo.yaml"])
    assert end.value.code == 2
    assert "serch" in capsys.readouterr().err


def printed_config(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--print_config"])
    assert end.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_base_says_the_defaults(capsys):
    needed = ["--network.class_path", "resnet20", "--data", "Digits"]
    with_base = printed_config(capsys, "fit", "--config", str(EXPERIMENTS / "base.yaml"), *needed)
    assert with_base == printed_config(capsys, "fit", *needed)


def test_base_lists_every_key_where_it_belongs(capsys):
    """Those that have no default of their own, and the policy, as comments; of Lightning's trainer some."""
    parts = re.split(r"^(?:# )?(\w+):", (EXPERIMENTS / "base.yaml").read_text(), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    config = printed_config(capsys, "fit", "--network.class_path", "resnet20", "--data", "Digits")
    config.pop("resume", None)  # an option of the command line alone
    assert sections.keys() == config.keys()
    assert config["finetuning"].keys() == config["pretraining"].keys()  # "the same keys"
    for name in config.keys() - {"trainer", "data", "finetuning"}:
        keys = config[name] if isinstance(config[name], dict) else {}
        assert [key for key in keys if not re.search(rf"^[ #]*{key}:", sections[name], re.MULTILINE)] == [], name
    commented = re.findall(r"^  # (.*)$", sections["model"], re.MULTILINE)
    policy, default = yaml.safe_load("\n".join(commented))["actor_critic"], config["model"]["actor_critic"]
    default["init_args"]["encoder"].pop("init_args")
    assert policy == default


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_is_accepted(capsys, path):
    needed = ["--network.class_path", "resnet20", "--data", "Digits"]
    needed = [] if "network" in yaml.safe_load(path.read_text()) else needed
    config = printed_config(capsys, "fit", *needed, "--config", str(path))
    assert {"trainer", "model", "data", "network", "budget", "search", "run"} <= config.keys()


@pytest.mark.parametrize("command", ["pretrain", "finetune", "validate", "test", "compare", "predict", "inspect"])
def test_every_subcommand_accepts_the_same_files(capsys, command):
    config = printed_config(capsys, command, "--config", str(EXPERIMENTS / "digits.yaml"))
    assert {"trainer", "model", "data", "network", "budget", "search", "run"} <= config.keys()


def test_later_files_win(capsys):
    files = ["--config", str(EXPERIMENTS / "digits.yaml"), "--config", str(EXPERIMENTS / "debug.yaml")]
    config = printed_config(capsys, "fit", *files)
    assert config["pretraining"]["epochs"] == 1 and config["finetuning"]["learning_rate"] == 0.02
    assert config["budget"]["macs"] == 0.5 and config["search"]["evaluations"] == 20


def test_sweep_arguments_are_accepted_as_wandb_passes_them(capsys, monkeypatch):
    sweep = yaml.safe_load((EXPERIMENTS / "sweeps" / "digits_ppo.yaml").read_text())
    chosen = {
        name: spec["values"][-1] if "values" in spec else spec["max"] for name, spec in sweep["parameters"].items()
    }
    # As wandb's agent does: ${args} becomes --name=value for each parameter, each an argument of its own.
    arguments = [f"--{name}={value}" for name, value in chosen.items()]
    command = sweep["command"]
    assert command[:4] == ["${env}", "${interpreter}", "-m", "gnnrl_lightning"] and command[-1] == "${args}"
    monkeypatch.chdir(ROOT)
    config = printed_config(capsys, *command[4:-1], *arguments)
    for name, value in chosen.items():
        found = config
        for part in name.split("."):
            found = found[part]
        assert found == value, name
    assert config["trainer"]["logger"]["class_path"].endswith("WandbLogger")


def readme_commands():
    """Those that name a configuration: `fit --resume` takes none."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [line for line in readme.splitlines() if line.startswith("python -m gnnrl_lightning ")]
    return [line for line in commands if "--config" in line]


@pytest.mark.parametrize("line", readme_commands())
def test_commands_of_the_readme_are_accepted(capsys, monkeypatch, line):
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(line)[3:]
    assert printed_config(capsys, *arguments)["network"]["class_path"]


def test_readme_has_commands():
    assert {shlex.split(line)[3] for line in readme_commands()} >= {"fit", "inspect", "test", "compare"}


def test_help_of_every_subcommand_names_every_section(capsys):
    for command in ("fit", "pretrain", "finetune", "validate", "test", "compare", "predict", "inspect"):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        text = capsys.readouterr().out
        assert end.value.code == 0
        for option in ("--budget.macs", "--search.evaluations", "--model.clip_epsilon", "--pretraining.epochs"):
            assert option in text
    assert "--json" in text


def test_help_says_what_the_program_and_fit_do(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Make a trained network physically smaller, within a budget." in text
    assert "Search, prune, fine-tune, test once and save: the whole job." in text
