"""Arguments of the wrong kind are refused in one line, before anything is read or trained."""

import pytest
import torch
from torch import nn

from gnnrl_lightning import Budget, GroupOptions, NetworkSpec, Options, UserError, compress, compress_by_score, trace
from gnnrl_lightning.data import Digits
from gnnrl_lightning.importance import importance_scores
from gnnrl_lightning.job import RunFolder, Task, check, search, train
from gnnrl_lightning.job.arguments import as_device
from gnnrl_lightning.search.evolution import Evolution
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.two_hidden import TwoHidden

EXAMPLE = torch.zeros(1, 1, 8, 8)
WRONG = {
    "network": (3, None, "resnet20", nn.Linear),
    "data": (3, None, "digits", Digits),
    "budget": (0.5, None, "50%", {"macs": 0.5}, Budget),
    "by": (3, ["random"]),
    "options": (0, {}, {"search": {"evaluations": 20}}, Options),
    "groups": (0, ["1"], {"keep": ["1"]}),
    "evaluations": (1.5, "many", [20], True, float("nan")),
    "folder": (3, ["runs"], True),
    "seed": (None, 1.5, "a", True),
}
FILE = f"{__file__}/below"
OUT_OF_RANGE = {
    "evaluations": (10**20, r"evaluations is 1\d+: expected a number of at most 2,147,483,647"),
    "seed": (-1, r"seed is -1: expected a whole number from 0 to 4294967295"),
    "folder": ("a\0b", r"folder is 'a\\x00b': expected the path of a folder, without null bytes"),
    "options": (
        Options(finetuning=TrainingOptions(learning_rate=1e30)),
        r"options.finetuning.learning_rate is 1e\+30: expected a number of at most",
    ),
    "device": ("tpu:0", r"device is 'tpu:0', which cannot be used \(.*\): expected cpu, or cuda where there is a GPU"),
    "by": ("rnadom", r"by is 'rnadom' \(did you mean random\?\): expected one of"),
}
CASES = [(name, value, rf"^{name} is a \w+: expected ") for name, values in WRONG.items() for value in values]
CASES += [(name, *case) for name, case in OUT_OF_RANGE.items()]
CASES += [("folder", FILE, rf"folder {FILE} cannot be created: .*\.py is no folder; choose another one$")]

QUICK = Options(finetuning=TrainingOptions(epochs=0))


@pytest.fixture
def never(monkeypatch):
    monkeypatch.setattr("gnnrl_lightning.job.stages.train", lambda *_: pytest.fail("a training began"))


@pytest.mark.parametrize(("name", "value", "message"), CASES, ids=[f"{name} {value}"[:40] for name, value, _ in CASES])
def test_compress_refuses_what_it_cannot_use(name, value, message, never):
    given = {"network": TwoHidden(), "data": Digits(), "budget": Budget(macs=0.5), "by": "uniform"} | {name: value}
    with pytest.raises(UserError, match=message) as error:
        compress(given.pop("network"), given.pop("data"), given.pop("budget"), **given)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["network", "budget", "by", "options", "groups", "evaluations", "seed"])
def test_so_does_compress_by_score(name):
    inputs = {"network": TwoHidden(), "score": lambda network: 0.5, "inputs": torch.zeros(2, 1, 8, 8)}
    for value in WRONG[name]:
        with pytest.raises(UserError, match=rf"^{name} is a \w+: expected "):
            compress_by_score(**{**inputs, "budget": Budget(macs=0.5), name: value})
    with pytest.raises(UserError, match=r"^score is a float: expected a function of a network that returns a number$"):
        compress_by_score(**{**inputs, "budget": Budget(macs=0.5), "score": 0.5})


def test_parts_of_a_job_refuse_a_folder_that_does_not_exist(tmp_path):
    folder = RunFolder(tmp_path / "none")
    checked = check(Task(TwoHidden(), Digits()), Budget(macs=0.5), QUICK)
    trained = train(checked)
    for part in (lambda: train(checked, folder), lambda: search(trained, "uniform", folder)):
        with pytest.raises(UserError, match=r"folder .*none does not exist: make it by RunFolder.create$"):
            part()


def test_what_is_right_passes():
    found = compress(
        TwoHidden(), Digits(), Budget(macs=0.5), by="uniform", options=QUICK, groups=None, evaluations=None
    )
    assert found.figures["pruned"]["macs_ratio"] <= 0.5


def failing(*given):
    raise KeyError("no such\nbattery")


def nothing(*given):
    return None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Budget({failing: 0.5}).on(trace(TwoHidden(), EXAMPLE)),
            r"metric failing fails: .*battery.*; exp",
        ),
        (lambda: scored_by(failing), r"importance failing fails: .*battery.*; expected"),
        (lambda: scored_by(nothing), r"importance nothing fails: .*; expected"),
        (lambda: projected(None), r"widths is a NoneType, of which there is no tensor: expected numbers"),
        (lambda: projected(3), r"widths has the shape \(\): expected \(..., 2\), one for each group"),
        (lambda: projected([1, 2, 3]), r"widths has the shape \(3,\): expected \(..., 2\), one for each group"),
        (lambda: projected([-1, 2]), r"^the width of 1 is -1: expected 0 to 24 channels$"),
        (lambda: projected([[24, 16], [2.5, 17]]), r"^the width of 3 is 17: expected 0 to 16 channels$"),
        (lambda: projected(["a", "b"]), r"widths is a list, of which there is no tensor: expected numbers"),
        (lambda: projected([True, True]), r"widths is \[True, True\]: expected finite numbers"),
        (lambda: projected([10**30, 2]), r"widths is a list, of which there is no tensor|the width of 1 is 1e\+30"),
        (lambda: projected([float("nan"), 2]), r"widths is \[nan, 2.0\]: expected finite numbers"),
        (lambda: Digits(batch_size="x"), r"batch_size is 'x': expected a whole number, at least 1"),
        (lambda: GroupOptions(keep=3), r"groups.keep is 3: expected a list of names"),
        (lambda: GroupOptions(limits=3), r"groups.limits is 3: expected \{group: \{min: ..., max: ...\}\}"),
        (lambda: NetworkSpec(3).build(), r"network is 3 with init_args \{\}: expected an import path"),
        (
            lambda: NetworkSpec("resnet20", 3).build(),
            r"network is 'resnet20' with init_args 3: expected an import",
        ),
    ],
)
def test_what_is_of_the_users_and_fails_is_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert str(error.value).isprintable()


def projected(widths):
    return trace(TwoHidden(), EXAMPLE).project(widths, macs=0.5)


def scored_by(importance):
    network = TwoHidden()
    return importance_scores(trace(network, EXAMPLE), network, importance, EXAMPLE)


@pytest.mark.parametrize("given", ["meta", "cpu:x", 3.5, None, "abacus"])
def test_devices_that_compute_nothing(given):
    with pytest.raises(UserError, match=r"^device is .*: expected cpu, or cuda where there is a GPU$"):
        as_device(given)
    assert as_device("cpu") == as_device(torch.device("cpu")) == torch.device("cpu")


def test_a_network_is_no_search_method_and_an_object_that_is_called_is_one():
    given = TwoHidden(), Digits(), Budget(macs=0.5)
    with pytest.raises(UserError, match=r"^by 'Linear': expected a Method, or a function .*, not a Linear$"):
        compress(*given, by=nn.Linear(2, 2), options=QUICK)
    found = compress(*given, by=Evolution(parents=2, children=2, name="own"), options=QUICK)
    assert found.figures["search"]["evaluations"] > 2
