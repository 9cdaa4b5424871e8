"""A deep cut in several stages: what each of them is given, leaves, and does not repeat."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from gnnrl_lightning import Budget, GroupOptions, UserError, compress, compress_by_score
from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.formats import FORMATS
from gnnrl_lightning.data import Digits
from gnnrl_lightning.evaluation.evaluator import Evaluator
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.compare_options import CompareOptions
from gnnrl_lightning.job.comparison import Comparison
from gnnrl_lightning.job.delivery import deliver
from gnnrl_lightning.job.job import Runtime
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.stage_options import StageOptions
from gnnrl_lightning.job.stages import through_stages
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer
from tests.support.fake_timer import FakeTimer, network_ms
from tests.support.options import options_of
from tests.support.two_hidden import TwoHidden, two_hidden_task

DENSE = 64 * 24 + 24 * 16 + 16 * 10


def macs(first, second):
    return 64 * first + first * second + second * 10


@pytest.fixture(scope="module")
def network():
    """A classifier of digits, trained a little."""
    torch.manual_seed(0)
    made, task = TwoHidden(), Task(TwoHidden(), Digits())
    task.data.setup()
    task.train(made, TrainingOptions(epochs=3), quiet_trainer)
    return made


def staged(shares=(0.7, 0.5), epochs=None, **given):
    finetuning = TrainingOptions(epochs=2, learning_rate=0.02, distillation_weight=0.5)
    options = options_of(**{"evaluations": 8, "calibration_examples": 32, "finetuning": finetuning} | given)
    return replace(options, stages=StageOptions([*shares], epochs))


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    """A finished run in three stages: its folder, and what it delivered."""
    folder = tmp_path_factory.mktemp("stages") / "run"
    options = staged(epochs=[1, 3], delivery={"formats": ["weights", "program", "onnx"]})
    return folder, compress(network, Digits(), Budget(macs=0.3), by="random", options=options, folder=folder)


def test_each_stage_meets_its_share_of_the_dense_network(run):
    folder, delivered = run
    stages = delivered.figures["stages"]
    assert [stage["budget"]["macs"] for stage in stages] == [0.7, 0.5, 0.3]
    for share, stage in zip((0.7, 0.5, 0.3), stages, strict=True):
        assert stage["macs"] == macs(*stage["widths"]) <= share * DENSE
        assert stage["macs_ratio"] == stage["macs"] / DENSE > share - 0.1
    assert all(later <= earlier for earlier, later in zip(stages[0]["widths"], stages[2]["widths"], strict=True))
    assert [len(stage["top1_search_epochs"]) for stage in stages] == [1, 3, 2]
    assert [stage["search"]["evaluations"] for stage in stages] == [8, 8, 8]
    assert [json.loads((folder / f"stage-{n}" / "result.json").read_text()) for n in (1, 2)] == stages[:2]
    assert not (folder / "stage-3").exists()


def test_only_the_last_stage_is_tested_and_delivered(run, network):
    _, delivered = run
    result, data = delivered.figures, Digits()
    data.setup()
    assert "uniform" not in result and not [key for stage in result["stages"] for key in stage if "_test" in key]
    assert result["groups"] == {"1": 24, "3": 16} and list(delivered.widths) == ["1", "3"]
    first, second = delivered.widths.values()
    assert result["pruned"]["widths"] == [first, second] == result["stages"][-1]["widths"]
    assert (delivered.network[1].out_features, delivered.network[3].out_features) == (first, second)
    assert result["dense"]["macs"] == DENSE and sum(layer["macs"]["pruned"] for layer in result["layers"]) == macs(
        first, second
    )
    task = Task(network, data)
    assert result["dense"]["top1_test"] == pytest.approx(task.figures(network, data.test)["top1"])
    assert result["pruned"]["top1_test_after"] == pytest.approx(task.figures(delivered.network, data.test)["top1"])


@pytest.mark.parametrize("name", ["weights", "program", "onnx"])
def test_the_artifact_of_the_last_stage_loads_in_every_format(run, network, name):
    """From the dense network: its recipe has the prunings of all stages."""
    folder, delivered = run
    assert set(FORMATS) >= {name} and len(artifact.read_recipe(folder / "pruned")["steps"]) == 3
    images = torch.randn(1, 1, 8, 8)
    loaded = artifact.load(folder / "pruned", network, images, format=name)
    assert torch.allclose(loaded(images), delivered.network(images), atol=1e-4)


def test_the_report_has_a_table_of_the_stages(run, capsys):
    from gnnrl_lightning.cli import main

    folder, delivered = run
    main(["report", str(folder)])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Stages</h2>" in page and "<th>stage 2</th>" in page.replace(' scope="col"', "")
    for share in ("70 % of the MACs", "50 % of the MACs", "30 % of the MACs"):
        assert f"<td>{share}</td>" in page
    assert "stage 1: macs 6" in str(delivered) and "stage 3: macs 2" in str(delivered)


@pytest.mark.parametrize("distillation", ["outputs", "features"])
def test_the_dense_network_teaches_every_stage(network, monkeypatch, tmp_path, distillation):
    """And the test examples are read after the last one."""
    taught, kept, reads, original = [], [], [], Task.train

    def record(task, trained, options, trainer, teacher=None, **given):
        taught.append((options.epochs, [tuple(each.shape) for each in teacher.network.parameters()]))
        kept.append({name: positions.tolist() for name, positions in teacher.kept.items()})
        return original(task, trained, options, trainer, teacher=teacher, **given)

    monkeypatch.setattr(Task, "train", record)
    read = Digits.test.fget
    monkeypatch.setattr(Digits, "test", property(lambda data: reads.append(1) or read(data)))
    finetuning = TrainingOptions(epochs=2, learning_rate=0.02, distillation=distillation, distillation_weight=0.5)
    options, folder = staged([0.6], 1, finetuning=finetuning), RunFolder(tmp_path / "run")
    checked = check(Task(network, Digits()), Budget(macs=0.4), options)
    last = through_stages(checked, "uniform", folder)
    assert last.job.origin.network is checked.network and not reads
    shapes = [tuple(each.shape) for each in network.parameters()]
    assert taught == [(1, shapes)]
    deliver(search(train(last, folder), "uniform", folder), folder)
    assert taught == [(1, shapes), (2, shapes)] and reads
    first, second = artifact.read_recipe(folder.pruned)["steps"]
    expected = []
    for group, layer in (("1", "3.weight"), ("3", "5.weight")):
        once, again = first["kept"][group], second["kept"][group]
        expected.append((layer, once, [once[position] for position in again]))
    assert (
        kept == [{}, {}]
        if distillation == "outputs"
        else kept == [{layer: positions[stage] for layer, *positions in expected} for stage in (0, 1)]
    )


def test_limits_of_groups_are_shares_of_the_dense_width(network):
    """24 * 60 % is 14.4; of what the first stage leaves, it would be fewer than 15."""
    limits = GroupOptions(limits={"1": {"min": "60%"}, "3": {"max": "75%"}})
    given = {"by": "random", "options": staged([0.8]), "groups": limits}
    stages = compress(network, Digits(), Budget(macs=0.55), **given).figures["stages"]
    assert all(stage["widths"][0] >= 15 and stage["widths"][1] <= 12 for stage in stages)
    assert stages[1]["widths"][0] < stages[0]["widths"][0] < 24


def test_each_stage_has_an_agent_of_its_own(network):
    agent = GNNRL(episodes_per_iteration=4, proxy_warmup=1, proxy_between=0, proxy_episodes=8, epochs=1)
    given = {"by": agent, "options": staged([0.6], evaluations=16)}
    stages = compress(network, Digits(), Budget(macs=0.3), **given).figures["stages"]
    assert [stage["macs_ratio"] <= share for stage, share in zip(stages, (0.6, 0.3), strict=True)] == [True, True]
    assert all(stage["search"]["evaluations"] > 8 for stage in stages)


class Residual(nn.Module):
    """A stem and two branches that may go entirely."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 12)
        self.ins = nn.ModuleList([nn.Linear(12, 8) for _ in range(2)])
        self.outs = nn.ModuleList([nn.Linear(8, 12) for _ in range(2)])
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        x = self.stem(x.flatten(1)).relu()
        for inner, outer in zip(self.ins, self.outs, strict=True):
            x = x + outer(inner(x).relu())
        return self.head(x)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_that_are_gone_or_have_one_channel_keep_their_place(seed):
    """The widths in the groups of the dense network explain the costs of what is left of it."""
    torch.manual_seed(seed)
    network = Residual()
    options = staged([0.5, 0.2], finetuning=TrainingOptions(epochs=0), repair="none", reads_sensitivity=False)
    given = {"by": "random", "options": options, "seed": seed}
    delivered = compress(network, Digits(), Budget(macs=0.09, min_width=0), **given)
    result = delivered.figures
    for stage in result["stages"]:
        stem, *inner = stage["widths"]
        assert stage["macs"] == 74 * stem + sum(2 * stem * each for each in inner)
    assert list(result["groups"].values()) == [12, 8, 8]
    parameters = sum(each.numel() for each in delivered.network.parameters())
    assert parameters == result["pruned"]["params"]


def test_a_stage_whose_budget_is_met_already_is_left_out(network):
    """Widths in multiples of 8: (16, 16) has 1440 MACs, which meets 80 and 70 %; what meets 60 % is (16, 8): 1232."""
    options = staged([0.8, 0.7])
    given = {"by": "uniform", "options": options}
    stages = compress(network, Digits(), Budget(macs=0.6, channel_multiple=8), **given).figures["stages"]
    found = [(stage["stage"], stage["budget"]["macs"], stage["widths"]) for stage in stages]
    assert found == [(1, 0.8, [16, 16]), (3, 0.6, [16, 8])]


def test_a_last_budget_that_is_met_already_is_delivered(network, tmp_path):
    given = {"by": "uniform", "options": staged([0.75]), "folder": tmp_path / "run"}
    result = compress(network, Digits(), Budget(macs=0.7, channel_multiple=8), **given).figures
    assert [stage["widths"] for stage in result["stages"]] == [[16, 16], [16, 16]]
    assert result["search"]["found_by"] == "an earlier stage" and result["pruned"]["macs"] == 1440
    assert len(result["pruned"]["top1_search_epochs"]) == 2


def test_what_was_interrupted_between_stages_goes_on(run, network, tmp_path, monkeypatch):
    """The first stage is not repeated, and the result is that of a run without interruption."""
    folder, whole = run
    options = staged(epochs=[1, 3], delivery={"formats": ["weights", "program", "onnx"]})
    given = {"by": "random", "options": options, "folder": tmp_path / "run"}
    original, begun = search, []

    def interrupted(trained, by, at):
        begun.append(at.path.name)
        if at.path.name == "stage-2":
            raise KeyboardInterrupt
        return original(trained, by, at)

    with monkeypatch.context() as patch:
        patch.setattr("gnnrl_lightning.job.stages.search", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compress(network, Digits(), Budget(macs=0.3), **given)
    assert begun == ["stage-1", "stage-2"] and not (tmp_path / "run" / "stage-2" / "result.json").exists()
    evaluated, evaluate = [], Evaluator._evaluate
    monkeypatch.setattr(Evaluator, "_evaluate", lambda *asked: evaluated.append(asked[2]) or evaluate(*asked))
    again = compress(network, Digits(), Budget(macs=0.3), **given)
    lines = [(folder / name / "journal.jsonl").read_text().splitlines() for name in ("stage-2", ".")]
    assert len(evaluated) == sum(json.loads(line)["examples"] > 0 for each in lines for line in each)
    assert again.widths == whole.widths
    for name in ("stage-1/pruned", "stage-2/pruned", "pruned"):
        both = [(each / name / "weights.safetensors").read_bytes() for each in (folder, tmp_path / "run")]
        assert both[0] == both[1], name


def test_a_damaged_file_of_a_stage_is_refused(run, network, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    path = folder / "stage-1" / "checkpoints" / "pruned.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    options = staged(epochs=[1, 3], delivery={"formats": ["weights", "program", "onnx"]})
    with pytest.raises(UserError, match=r"stage-1/checkpoints/pruned.safetensors was changed or damaged"):
        compress(network, Digits(), Budget(macs=0.3), by="random", options=options, folder=folder)


def foreign(pruned):
    """The artifact of the next stage, which is whole."""
    shutil.rmtree(pruned)
    shutil.copytree(pruned.parents[1] / "stage-2" / "pruned", pruned)


ARTIFACTS = {
    "cut off": (lambda pruned: os.truncate(pruned / "recipe.json", 100), r"pruned/recipe.json is damaged"),
    "a byte": (lambda pruned: overwrite(pruned / "weights.safetensors"), r"pruned/weights.safetensors is damaged"),
    "no weights": (lambda pruned: (pruned / "weights.safetensors").unlink(), r"weights.safetensors is missing"),
    "nothing": (shutil.rmtree, r"pruned has no recipe.json"),
    "another": (foreign, r"it is of another stage"),
}


def overwrite(path):
    path.write_bytes(path.read_bytes()[:-1] + b"!")


@pytest.mark.parametrize("case", ARTIFACTS)
def test_a_damaged_network_of_a_stage_is_refused_with_a_remedy_that_costs_nothing(
    run, network, tmp_path, monkeypatch, case
):
    """Between the stages: the second one is finished, the last one not."""
    damage, message = ARTIFACTS[case]
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    stage, whole = folder / "stage-1", (run[0] / "stage-1" / "pruned" / "weights.safetensors").read_bytes()
    damage(stage / "pruned")
    options = staged(epochs=[1, 3], delivery={"formats": ["weights", "program", "onnx"]})
    given = {"by": "random", "options": options, "folder": folder}
    with pytest.raises(UserError, match=rf"stage-1/pruned cannot be used \(.*{message}\): delete it and .*") as error:
        compress(network, Digits(), Budget(macs=0.3), **given)
    assert f"delete it and {stage / 'result.json'} to go on; nothing is searched or trained again" in str(error.value)
    shutil.rmtree(stage / "pruned", ignore_errors=True)
    (stage / "result.json").unlink()
    monkeypatch.setattr(Evaluator, "_evaluate", lambda *_: pytest.fail("a candidate was evaluated again"))
    monkeypatch.setattr(Task, "train", lambda *_, **__: pytest.fail("a network was trained again"))
    again = compress(network, Digits(), Budget(macs=0.3), **given)
    assert again.widths == run[1].widths and (stage / "pruned" / "weights.safetensors").read_bytes() == whole


def limited_in_latency(task, folder, budget, shares, timer, epochs):
    options = Options(
        search=replace(Options().search, evaluations=12),
        latency=LatencyOptions(batch_size=4, threads=1, cache=None),
        pretraining=TrainingOptions(epochs=epochs),
        finetuning=TrainingOptions(epochs=epochs),
        stages=StageOptions(shares),
    )
    folder.path.mkdir()
    return check(task, budget, options, Runtime(timer=timer), folder)


class SlowerTimer(FakeTimer):
    """A machine that takes three times as long once it has measured whole networks more than twice."""

    calls = 0

    def networks(self, networks):
        self.calls += 1
        return [each * (3 if self.calls > 2 else 1) for each in super().networks(networks)]


@pytest.mark.parametrize("timer", [FakeTimer, SlowerTimer])
def test_latency_is_a_share_of_the_dense_networks_whatever_the_clock(monkeypatch, tmp_path, timer):
    task, folder = two_hidden_task(monkeypatch), RunFolder(tmp_path / "run")
    checked = limited_in_latency(task, folder, Budget(latency=0.4), [0.8, 0.6], timer(), epochs=1)
    last = through_stages(checked, "random", folder)
    result = deliver(search(train(last, folder), "random", folder), folder).figures
    dense = network_ms(task.original())
    for share, stage in zip((0.8, 0.6, 0.4), result["stages"], strict=True):
        first, second = stage["widths"]
        layers = nn.Linear(64, first), nn.Linear(first, second), nn.Linear(second, 10)
        assert share - 0.12 < network_ms(nn.Sequential(*layers)) / dense <= share + 1e-6
        assert stage["latency_ratio"] == pytest.approx(network_ms(nn.Sequential(*layers)) / dense, rel=1e-6)
    checks = result["search"]["latency_checks"]
    assert all(check["met"] and check["measured"] <= 0.4 * check["dense"] * (1 + 1e-6) for check in checks)
    assert result["stages"][-1]["widths"] in [last.job.dense_widths(check["widths"]).tolist() for check in checks]
    kept = [json.loads((folder.path / name / "checkpoints" / "latency.json").read_text()) for name in ("stage-1", ".")]
    assert kept[0]["networks"]["milliseconds"][0] == pytest.approx(dense)


def test_other_limits_may_be_met_already_where_latency_is_limited(monkeypatch, tmp_path):
    """Half of the latency leaves less than 90 % of the MACs: more than what the first stage has left."""
    task, folder = two_hidden_task(monkeypatch), RunFolder(tmp_path / "run")
    checked = limited_in_latency(task, folder, Budget(latency=0.5, macs=0.9), [0.7, 0.695], FakeTimer(), epochs=0)
    last = through_stages(checked, "uniform", folder)
    stages = last.job.origin.stages
    assert [stage["budget"]["macs"] for stage in stages] == [0.9] * len(stages)
    assert last.job.limits.limits["macs"] == 0.9 * DENSE > last.job.graph.cost.macs(last.job.graph.widths)
    result = deliver(search(train(last, folder), "uniform", folder), folder).figures
    assert result["pruned"]["latency_ratio"] <= 0.5
    times = [*(layer["latency_ms"] for layer in result["layers"]), result["other_latency_ms"]]  # of the dense network's
    assert sum(each["dense"] for each in times) == pytest.approx(result["dense"]["latency_ms"], rel=0.1)
    assert sum(each["pruned"] for each in times) < 0.6 * sum(each["dense"] for each in times)


def test_what_has_no_stages_says_so(network):
    checked = check(Task(network, Digits()), Budget(macs=0.3), staged([0.6]))
    with pytest.raises(UserError, match=r"compare has no stages: set stages.shares to \[\]"):
        Comparison(checked, CompareOptions(methods=["uniform"], seeds=[0]), {})
    with pytest.raises(UserError, match=r"options.stages is given, and nothing is trained: leave it out"):
        options = Options(stages=StageOptions([0.6]))
        compress_by_score(network, lambda _: 0.0, torch.zeros(4, 1, 8, 8), Budget(macs=0.3), options=options)


@pytest.mark.parametrize(
    ("budget", "shares", "message"),
    [
        (0.5, [0.4], r"stages.shares has 0.4, and the budget is macs 0.5 of the dense network"),
        (0.001, [0.5], r"budget.macs is 0.001 \(2.08\), which cannot be reached"),
    ],
)
def test_what_cannot_be_met_is_refused_before_the_first_stage(network, tmp_path, budget, shares, message):
    with pytest.raises(UserError, match=message) as error:
        given = {"by": "uniform", "options": staged(shares), "folder": tmp_path / "run"}
        compress(network, Digits(), Budget(macs=budget), **given)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
