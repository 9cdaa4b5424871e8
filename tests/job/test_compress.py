"""The whole job in one call, with a network that the caller holds."""

import copy
import logging
import sys
import threading
from functools import partial

import pytest
import torch

import gnnrl_lightning
from gnnrl_lightning import Budget, GroupOptions, Task, UserError, compress, load
from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.cli import main
from gnnrl_lightning.data import Digits
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.delivery import deliver
from gnnrl_lightning.job.searching import search
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.objective import Figure, Measured, Objective
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.policies import Agent
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.search.methods import one_shot
from gnnrl_lightning.speed.alignment import Alignment
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.networks_code import Viewing
from tests.support.options import options_of

SHORT = {"calibration_examples": 32, "finetuning": TrainingOptions(epochs=1, learning_rate=0.02)}


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


@pytest.fixture
def reported(monkeypatch):
    """What Lightning reports, as it does by default."""
    found, logger, handler = [], logging.getLogger("lightning.pytorch"), logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    monkeypatch.setattr(logger, "handlers", [handler])
    level = logger.level
    logger.setLevel(logging.INFO)
    yield found
    assert logger.level == logging.INFO
    logger.setLevel(level)


def test_a_network_goes_in_and_a_smaller_one_comes_out(network, tmp_path, monkeypatch, reported, capsys):
    """Nothing is kept or said, and the given network is as it was; the figures are those of the returned network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook does
    before = copy.deepcopy(network.state_dict())
    agent = GNNRL(episodes_per_iteration=4, proxy_warmup=2, proxy_between=1, proxy_episodes=8, epochs=1)
    delivered = compress(network, Digits(), Budget(macs=0.5), evaluations=16, by=agent, options=options_of(**SHORT))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert list(tmp_path.iterdir()) == [] and delivered.folder is None
    first, second = delivered.network[1], delivered.network[3]
    assert list(delivered.widths.values()) == [first.out_features, second.out_features]
    macs = sum(layer.weight.numel() for layer in delivered.network if isinstance(layer, torch.nn.Linear))
    dense = sum(layer.weight.numel() for layer in network if isinstance(layer, torch.nn.Linear))
    assert delivered.figures["pruned"]["macs"] == macs <= dense / 2 == delivered.figures["dense"]["macs"] / 2
    assert Task(network, Digits()).figures(delivered.network, ready(Digits()).test)["top1"] == pytest.approx(
        delivered.figures["pruned"]["top1_test_after"]
    )
    assert "Sequential on digits" in str(delivered) and "\x1b" not in str(delivered)
    assert repr(delivered) == str(delivered)
    assert reported == [] and capsys.readouterr() == ("", "")


class Kept(torch.nn.Module):
    """Reads what a hook keeps of a hidden layer; another one notes its width."""

    def __init__(self):
        super().__init__()
        self.flat, self.hidden = torch.nn.Flatten(), torch.nn.Linear(64, 24)
        self.head, self.kept, self.width = torch.nn.Linear(24, 10), {}, 0
        self.hidden.register_forward_hook(lambda module, args, output: self.kept.update(hidden=output))
        self.head.register_forward_pre_hook(lambda module, args: setattr(self, "width", args[0].shape[1]))

    def forward(self, x):
        self.hidden(self.flat(x))
        return self.head(self.kept["hidden"].relu())


def test_hooks_act_on_the_network_that_has_them():
    network, x = Kept(), torch.rand(3, 1, 8, 8)
    expected = network(x)  # with gradients, as after a training
    kept = network.kept["hidden"]
    delivered = compress(network, Digits(), Budget(macs=0.5), by="uniform", options=options_of(**SHORT)).network
    assert network.kept["hidden"] is kept and network.width == 24 and torch.equal(network(x), expected)
    kept, outputs = network.kept["hidden"], delivered(x)
    assert delivered.width == delivered.hidden.out_features == delivered.kept["hidden"].shape[1] < 24
    assert network.kept["hidden"] is kept and network.width == 24
    with torch.no_grad():
        network.hidden.weight.zero_()
    assert torch.equal(delivered(x), outputs)


class Scaled(torch.nn.Module):
    """Its state has a value that is no tensor."""

    def __init__(self):
        super().__init__()
        self.scale = 2.0

    def forward(self, x):
        return self.scale * x

    def get_extra_state(self):
        return {"scale": self.scale}

    def set_extra_state(self, state):
        self.scale = state["scale"]


def test_extra_state_stays_as_it_was(network, tmp_path):
    """Files without pickle hold tensors alone: the loaded network has the state of the one that is given."""
    network.append(Scaled())
    network[-1].scale = 3.0
    options = options_of(evaluations=8, **SHORT)
    delivered = compress(network, Digits(), Budget(macs=0.5), by="uniform", options=options, folder=tmp_path / "run")
    assert delivered.network[-1].scale == network[-1].scale == 3.0
    example = torch.rand(2, 1, 8, 8)
    assert torch.equal(load(delivered.folder, network, example)(example), delivered.network(example))
    network[-1].scale = 2.0
    with pytest.raises(UserError, match=r"weights.safetensors"):
        load(delivered.folder, network, example)


def test_a_method_with_too_few_evaluations_is_named(network):
    with pytest.raises(UserError, match=r"^by 'greedy' needs passes of .* evaluations are left; raise search.evalua"):
        compress(network, Digits(), Budget(macs=0.5), by="greedy", evaluations=1, options=options_of(**SHORT))


def test_a_network_that_cannot_be_copied_is_refused_at_once(network, monkeypatch):
    monkeypatch.setattr(Task, "trace", None)
    network.guard = threading.Lock()
    with pytest.raises(UserError, match=r"^Sequential cannot be copied, because of guard: cannot pickle .*lock"):
        compress(network, Digits(), Budget(macs=0.5))


def test_each_network_is_tested_once(network, monkeypatch):
    """Without fine-tuning, the pruned networks before and after it are the same ones."""
    tested, figures = [], Task.figures

    def counted(task, network, examples):
        tested.append((network, len(examples)))
        return figures(task, network, examples)

    monkeypatch.setattr(Task, "figures", counted)
    options = options_of(**SHORT | {"finetuning": TrainingOptions(epochs=0)})
    delivered = compress(network, Digits(), Budget(macs=0.5), by="random", evaluations=8, options=options)
    assert len({id(each) for each, _ in tested}) == len(tested) == 3  # dense, uniform, ours
    row = delivered.figures["pruned"]
    assert row["top1_test_before"] == row["top1_test_after"] and row["top1_search_before"] == row["top1_search_after"]


def ready(data):
    data.setup()
    return data


def test_a_kept_run_is_resumed_and_its_artifact_loads(network, tmp_path, monkeypatch):
    given = {"by": "random", "options": options_of(evaluations=8, **SHORT), "folder": tmp_path / "run"}
    first = compress(network, Digits(), Budget(macs=0.5), **given)
    example = torch.zeros(1, 1, 8, 8)
    assert torch.equal(load(first.folder, network, example)(example), first.network(example))
    assert artifact.read_recipe(first.folder)["network"]["init_args"] is None
    main(["report", str(given["folder"])])
    page = (given["folder"] / "report.html").read_text(encoding="utf-8")
    assert "A run of <code>gnnrl_lightning.compress</code>" in page and "compress, seed 0" in page
    monkeypatch.setattr(Task, "train", lambda *_, **__: pytest.fail("trained again"))
    again = compress(network, Digits(), Budget(macs=0.5), **given)
    assert again.widths == first.widths and torch.equal(again.network(example), first.network(example))
    for changed in ({"budget": Budget(macs=0.4)}, {"seed": 1}, {"network": torch.nn.Sequential(*network)}):
        arguments = {"network": network, "data": Digits(), "budget": Budget(macs=0.5)} | given | changed
        if "network" in changed:
            torch.nn.init.zeros_(changed["network"][1].bias)
        with pytest.raises(UserError, match="has a run that has other settings"):
            compress(**arguments)
    with pytest.raises(UserError, match="is neither empty nor the folder of a run"):
        compress(network, Digits(), Budget(macs=0.5), folder=tmp_path, by="random")


def test_a_folder_of_something_else_is_refused_before_anything_is_measured(network, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["gnnrl_lightning.job.compress"], "check", lambda *_, **__: pytest.fail("measured"))
    folder = RunFolder(tmp_path)
    for path, message in ((tmp_path / "notes.txt", "is neither empty nor"), (folder.config, "of another kind")):
        path.write_text("mine: 1\n")
        with pytest.raises(UserError, match=message):
            compress(network, Digits(), Budget(macs=0.5), folder=tmp_path, by="random")


def test_a_finished_run_may_be_written_in_other_formats(network, tmp_path, monkeypatch):
    """They decide no result, as on the command line."""
    run, given = (network, Digits(), Budget(macs=0.5)), {"by": "uniform", "folder": tmp_path / "run"}
    first = compress(*run, options=options_of(delivery={"formats": ["weights"]}, **SHORT), **given)
    assert not (first.folder / "model.pt2").exists()
    monkeypatch.setattr(Task, "train", lambda *_, **__: pytest.fail("trained again"))
    options = options_of(delivery={"formats": ["weights", "program"]}, **SHORT)
    assert compress(*run, options=options, **given).widths == first.widths
    assert (first.folder / "model.pt2").is_file()
    with pytest.raises(UserError, match=r"has other settings: options.delivery.repair is 'refit' there, and 'none' he"):
        compress(*run, options=options_of(delivery={"repair": "none"}, **SHORT), **given)
    RunFolder(given["folder"]).config.write_text("budget: {macs: 0.5}\n")  # of the command line
    with pytest.raises(UserError, match="has a run that is of another kind; give a new folder"):
        compress(*run, options=options, **given)


class Halved(Objective):
    """Cross-entropy, and no text of its own."""

    figures = {"loss": Figure("loss")}  # noqa: RUF012
    ranking = ("loss",)

    def __init__(self, factor=0.5):
        self.factor = factor

    def loss(self, outputs, targets):
        return self.factor * torch.nn.functional.cross_entropy(outputs, targets)

    def measure(self, outputs, targets):
        losses = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
        return Measured(-losses, {"loss": losses.sum()})


def made_anew(factor=0.5):
    """Objects of a user's own, as another process has them: at other places in memory."""

    def nothing(dense, pruned, selection):
        pass

    def narrow(problem, seed):
        problem.ask(problem.project(problem.graph.widths / 3), "narrow")

    options = options_of(**SHORT | {"repair": nothing, "evaluations": 8})
    return {"objective": Halved(factor), "options": options, "by": narrow}


def test_objects_of_ones_own_are_recognised_when_a_run_is_resumed(network, tmp_path, monkeypatch):
    run, given = (network, Digits(), Budget(macs=0.5)), {"folder": tmp_path / "run"}
    first = compress(*run, **made_anew(), **given)
    assert first.figures["search"]["found_by"] == "narrow" and first.figures["search"]["evaluations"] == 1
    monkeypatch.setattr(Task, "train", lambda *_, **__: pytest.fail("trained again"))
    assert compress(*run, **made_anew(), **given).widths == first.widths
    with pytest.raises(
        UserError, match=r"objective is \"Halved\(.*0.5.*\)\" there, and \"Halved\(.*0.3.*\)\" here; give"
    ):
        compress(*run, **made_anew(0.3), **given)


def asked(problem, seed, parts):
    problem.ask(problem.project(problem.graph.widths / parts), "asked")


class Asking:
    def __init__(self, parts):
        self.parts = parts

    def search(self, problem, seed):
        asked(problem, seed, self.parts)


@pytest.mark.parametrize(
    "make",
    [
        lambda parts: partial(asked, parts=parts),
        lambda parts: Asking(parts).search,
        lambda parts: one_shot(f"in {parts}", lambda problem: problem.project(problem.graph.widths / parts)),
    ],
    ids=["partial", "method of an object", "one_shot"],
)
def test_a_run_is_not_resumed_with_a_method_that_asks_for_something_else(network, tmp_path, make):
    run = network, Digits(), Budget(macs=0.5)
    given = {"options": options_of(**SHORT | {"evaluations": 8}), "folder": tmp_path / "run"}
    first = compress(*run, by=make(3), **given)
    assert compress(*run, by=make(3), **given).widths == first.widths
    with pytest.raises(UserError, match=r"by is .* there, and .* here; give"):
        compress(*run, by=make(4), **given)


def test_a_run_is_not_resumed_with_another_agent(network, tmp_path):
    """Not even one of the same class: what it has learnt with other arguments would be taken for its own."""
    run, small = (network, Digits(), Budget(macs=0.5)), {"epochs": 1, "minibatches": 2, "proxy_warmup": 1}
    given = {"options": options_of(**SHORT | {"evaluations": 12}), "folder": tmp_path / "run"}
    agent = GNNRL(**small)
    first = compress(*run, by=agent, **given)
    for same in (agent, GNNRL(**small)):
        assert compress(*run, by=same, **given).widths == first.widths
    for other, difference in (
        (GNNRL(**small, clip_epsilon=0.3), r"by.clip_epsilon is 0.2 there, and 0.3 here"),
        (GNNRL(**small, target_kl=None), r"by.target_kl is 0.4 there, and None here"),
        (
            GNNRL(**small, make_policy=partial(Agent, head="node")),
            r"by.make_policy is 'Agent' there, and .*head='node'",
        ),
    ):
        with pytest.raises(UserError, match=difference):
            compress(*run, by=other, **given)


OPEN = TrainingOptions(epochs=1, precision="auto")


def test_what_was_measured_is_not_measured_again(network, tmp_path, monkeypatch):
    """Another measurement may come to another number, with which nothing could be resumed."""
    monkeypatch.setattr("gnnrl_lightning.job.checked.align", lambda *_: Alignment(4, {1: 2.0, 4: 1.0}, 3.0, 64))
    options = options_of(**SHORT | {"evaluations": 8, "precision": "auto", "finetuning": OPEN})
    given = {"by": "random", "options": options, "folder": tmp_path / "run"}
    first = compress(network, Digits(), Budget(macs=0.5, channel_multiple="auto"), **given)
    assert all(width % 4 == 0 for width in first.widths.values()) and first.figures["budget"]["channel_multiple"] == 4
    for name in ("checked.align", "deciding.tune", "deciding.decided_training"):
        monkeypatch.setattr(f"gnnrl_lightning.job.{name}", lambda *_: pytest.fail("measured again"))
    again = compress(network, Digits(), Budget(macs=0.5, channel_multiple="auto"), **given)
    assert again.widths == first.widths
    with pytest.raises(UserError, match="has a run that has other settings"):
        compress(network, Digits(), Budget(macs=0.5, channel_multiple=2), **given)


class Volume(torch.nn.Module):
    """Three-dimensional convolutions, whose weights have no format with channels last as those of images have."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.Conv3d(8, 12, 3, padding=1)
        self.head = torch.nn.Linear(12, 10)

    def forward(self, x):
        return self.head(self.b(self.a(x.reshape(-1, 1, 2, 4, 8)).relu()).mean((2, 3, 4)))


def viewing():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), Viewing(), torch.nn.Linear(4, 10))


@pytest.mark.parametrize(("make", "layer"), [(viewing, "1.second"), (Volume, "b")])
def test_networks_that_do_not_run_channels_last(make, layer):
    data = Digits()
    delivered = compress(make(), data, Budget(macs=0.5), by="dynamic_programming", options=options_of(**SHORT))
    pruned = delivered.network.get_submodule(layer)
    assert pruned.out_channels == delivered.widths[layer] < make().get_submodule(layer).out_channels
    some = data.some(4)
    assert delivered.network(data.normalize(some.inputs)).shape == (4, 10)


def test_a_compiled_network_is_pruned_as_it_was_before(network):
    """Each of its candidates would be compiled."""
    compiled = torch.compile(network, backend=lambda *_: pytest.fail("compiled"))
    delivered = compress(compiled, Digits(), Budget(macs=0.5), by="uniform", options=options_of(**SHORT))
    assert type(delivered.network) is type(network)


def test_layers_that_the_caller_keeps_stay(network):
    kept = GroupOptions(keep=["1"])
    given = {"by": "uniform", "options": options_of(**SHORT), "groups": kept}
    delivered = compress(network, Digits(), Budget(macs=0.9), **given)
    assert list(delivered.widths) == ["3"]
    assert delivered.network[1].weight.shape == (24, 64) and delivered.network[3].out_features < 16


def test_what_is_pruned_twice_is_restored_in_one_go(network, tmp_path):
    """The second run's budget is relative to what the first one left; its recipe has both steps."""
    data, options = Digits(), options_of(evaluations=8, **SHORT)
    folders = [RunFolder.create(tmp_path, name) for name in ("first", "second")]
    tasks = [Task(network, data), Task(network, data, artifact=folders[0].pruned)]
    found = []
    for task, folder in zip(tasks, folders, strict=True):
        trained = train(check(task, Budget(macs=0.6), options))
        found.append(deliver(search(trained, "uniform", folder), folder))
    costs = [
        each.figures[name]["macs"] for each, name in ((found[0], "pruned"), (found[1], "dense"), (found[1], "pruned"))
    ]
    assert costs[0] == costs[1] and costs[2] <= 0.6 * costs[1]
    recipe = artifact.read_recipe(folders[1].pruned)
    assert len(recipe["steps"]) == 2 and recipe["steps"][:1] == artifact.read_recipe(folders[0].pruned)["steps"]
    images = data.test.images[:5].float()
    restored = artifact.restore(folders[1].pruned, network, images)
    assert torch.equal(restored.network(images), found[1].network(images))
    assert torch.equal(Task(network, data, artifact=folders[1].pruned).build()(images), found[1].network(images))


def test_an_artifact_and_a_checkpoint_exclude_each_other(network):
    with pytest.raises(UserError, match="exclude each other"):
        Task(network, Digits(), "weights.pt", artifact="folder")


def test_the_front_door_is_open():
    for name in gnnrl_lightning.__all__:
        assert getattr(gnnrl_lightning, name) is not None and name in dir(gnnrl_lightning)
    with pytest.raises(AttributeError, match="has no attribute 'prune_everything'"):
        gnnrl_lightning.prune_everything  # noqa: B018
