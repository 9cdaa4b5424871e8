import json
import re
import shutil

import pytest
import yaml

from gnnrl_lightning.cli import main
from gnnrl_lightning.cli.commands import CompressionCLI
from gnnrl_lightning.job import deciding
from gnnrl_lightning.job.task import Task
from tests.cli.refused import tree

COMPARE = ["--search.evaluations", "19", "--search.sensitivity", "reconstruction", "--compare.seeds", "[0, 1]"]


def compare(*arguments):
    main(["compare", "--config", "small.yaml", "--run.name", "compared", *COMPARE, *arguments])


@pytest.fixture(scope="module")
def compared(fitted, workplace):
    """The folder of a finished comparison, with an agent that differs."""
    (workplace / "variants.yaml").write_text(
        "compare:\n  methods: [agent, three_steps, blind, rounds, deterministic, uniform, greedy, random]\n"
        "  variants: {three_steps: {model: {episodes_per_iteration: 4, epochs: 2}, episode: {max_steps: 3}},\n"
        "    blind: {model: {make_policy: {class_path: gnnrl_lightning.rl.policies.AblatedAgent, init_args: "
        "{ablation: no_messages, encoder: {class_path: gnnrl_lightning.rl.encoders.GCN}}}}},\n"
        "    rounds: {episode: {surrogate: true}, model: {init_args: {episodes_per_iteration: 4}}},\n"
        "    deterministic: {model: {class_path: DDPG, init_args: {episodes_per_iteration: 8, proxy_warmup: 1}}}}\n"
    )
    compare("--config", "variants.yaml")
    return workplace / "runs" / "compared"


def test_comparison_has_the_figures(compared):
    figures = json.loads((compared / "compare.json").read_text())
    keys = {"method", "seed", "budget", "evaluations", "examples", "seconds", "top1_search", "top1_test_before"}
    assert all(keys | {"macs_ratio", "widths"} <= row.keys() and row["macs_ratio"] <= 0.5 for row in figures["rows"])
    spent = {(row["method"], row["seed"]): row["evaluations"] for row in figures["rows"]}
    # Calibration takes 128 images, one evaluation of 287 + 128 for methods that use the sensitivity; with it, an agent
    # has six starting candidates. In rounds it finds the three candidates that are left of six.
    assert spent == {
        ("agent", 0): 1 + 6 + 8,
        ("agent", 1): 1 + 6 + 8,
        ("three_steps", 0): 1 + 6 + 3 * 4,
        ("three_steps", 1): 1 + 6 + 3 * 4,
        ("blind", 0): 1 + 6 + 8,
        ("blind", 1): 1 + 6 + 8,
        ("rounds", 0): 1 + 6 + 3,
        ("rounds", 1): 1 + 6 + 3,
        ("deterministic", 0): 1 + 6 + 8,
        ("deterministic", 1): 1 + 6 + 8,
        ("uniform", None): 1,
        ("greedy", None): 1 + 1,
        ("random", 0): 19,
        ("random", 1): 19,
    }
    assert {(entry["agent"], entry["method"]) for entry in figures["paired"]} >= {("agent", "uniform")}


def test_a_comparison_resumes_where_it_stopped(compared, capsys):
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
            for measured in ("seconds", "latency_ms", "latency_measured_ratio"):
                del again[measured], row[measured]
            assert again == row


def test_a_comparison_that_another_process_has_begun_meanwhile_is_left_alone(compared, workplace, monkeypatch, capsys):
    """Its folder is locked by that process, and was not there when this one looked."""
    late = workplace / "runs" / "late"
    monkeypatch.setattr(CompressionCLI, "_checked", lambda *_, **__: shutil.copytree(compared, late))
    monkeypatch.setattr("gnnrl_lightning.cli.commands.prepare", lambda *_: None)
    monkeypatch.setattr("gnnrl_lightning.cli.commands.Comparison", lambda *_: None)
    with pytest.raises(SystemExit):
        main(["compare", "--config", "small.yaml", "--compare.methods", "[uniform]", "--run.name", "late"])
    assert "run folder runs/late exists; choose another name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search.evaluations", "20"], r"was compared with search.evaluations 19, which is 20 now"),
        (["--compare.test_half", "odd"], r"was compared with compare.test_half 'all', which is 'odd' now"),
        (["--compare.methods", "[agent, magic]"], r"compare.methods has magic: expected some of agent"),
        (["--compare.budgets", "[1.5]"], r"compare.budgets is \[1.5\]"),
        (["--search.sensitivity", "round"], r"search.sensitivity is 'round'"),
        (
            ["--search.sensitivity", "outputs"],
            r"was compared with search.sensitivity 'reconstruction', which is 'outputs'",
        ),
        (["--compare.seeds", "[1, 1]"], r"compare.seeds is \[1, 1\]: expected each once"),
        (
            ["--compare.variants", "{a: {modle: {}}}"],
            r"compare.variants.a has modle: expected the agent's sections, model and episode",
        ),
        (
            ["--compare.variants", "{a: {model: {clip: 1}}}"],
            r"compare.variants.a: model: gnnrl_lightning.GNNRL has no argument clip",
        ),
        (["--compare.variants", "{a: {model: {epochs: 0}}}"], r"compare.variants.a: epochs is 0"),
        (["--compare.variants", "{a: {model: {class_path: DDPG, init_args: {clip: 1}}}}"], r"variants.a: .*clip"),
        (["--compare.variants", "{a: {model: {proxy: null}}}"], r"compare.variants.a: .*proxy"),
        (
            ["--compare.variants", "{a: {candidate: {repair: none}}}"],
            r"variants.a has candidate: .*are the same for all",
        ),
        (["--compare.variants", "{a: {episode: {repair: none}}}"], r"compare.variants.a: .*repair"),
        (
            ["--compare.variants", "{a: {episode: {surrogate: true}}}", "--search.sensitivity", "null"],
            "compare: a: episode.surrogate needs a sensitivity: set search.sensitivity",
        ),
        (["--model.policy_file", "nowhere.safetensors"], r"compare: agent: .*nowhere.safetensors"),
        (
            ["--compare.variants", "{a: {model: {policy_file: nowhere.safetensors}}}"],
            r"compare: a: .*nowhere.safetensors",
        ),
        (
            ["--compare.variants", "{a: {model: {make_policy: {class_path: Agnet, init_args: {}}}}}"],
            r"compare.variants.a: .*Agnet",
        ),
        (
            ["--compare.variants", "{a: {model: {make_policy: {class_path: nowhere.Agent, init_args: {}}}}}"],
            r"compare.variants.a: .*nowhere",
        ),
        (["--compare.variants", "{a: {model: 5}}"], r"compare.variants.a.model is 5: expected its keys with"),
        (["--compare.variants", "{a: {model: {init_args: 3}}}"], r"compare.variants.a.model is {'init_args': 3}: exp"),
        (["--compare.variants", "{a: {episode: [x]}}"], r"compare.variants.a.episode is \['x'\]: expected its keys"),
        (["--compare.variants", "{a: {episode: 0}}"], r"compare.variants.a.episode is 0: expected its keys with"),
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
    """By `fit`, and by a resumed comparison, which keeps its first measurements instead of measuring again."""
    given = ["--checkpoint", str(fitted / "checkpoints" / "dense.safetensors"), "--scoring.precision", "auto"]
    given += ["--finetuning.precision", "auto"]
    fit = ["--trainer.max_epochs", "1", "--finetuning.epochs", "1"]
    main(["fit", "--config", "small.yaml", "--run.name", "measured", *given, *fit])
    config = yaml.safe_load((workplace / "runs" / "measured" / "config.yaml").read_text())
    scoring, finetuning = config["scoring"], config["finetuning"]
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith("candidates are scored in"))
    assert finetuning["precision"] in ("32", "bf16") and finetuning["channels_last"] in (True, False)
    assert any(line.startswith(f"pruned networks: training in precision {finetuning['precision']}") for line in lines)
    assert scoring["precision"] in ("32", "bf16") and scoring["batch_size"] in (64, 128, 256)
    assert f"precision {scoring['precision']}, {scoring['batch_size']} examples a batch" in line

    both = ["compare", "--config", "small.yaml", "--run.name", "measured_too", *given, "--scoring.batch_size", "100"]
    main([*both, "--compare.methods", "[uniform]"])
    before = (workplace / "runs" / "measured_too" / "config.yaml").read_text()
    assert yaml.safe_load(before)["scoring"]["batch_size"] == 100
    monkeypatch.setattr(deciding, "tune", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(Task, "tune_training", lambda *_: pytest.fail("measured again"))
    main([*both, "--compare.methods", "[uniform, greedy]"])
    assert "uniform" in (workplace / "runs" / "measured_too" / "compare.json").read_text()
