"""Lossy formats: an approximation is compared with what was written, scored, and warned of if it loses too much."""

import warnings

import pytest
import torch
from torch import nn

from gnnrl_lightning import Budget, compress
from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.formats import Format
from gnnrl_lightning.data import Digits
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.job.lossy import drop
from gnnrl_lightning.job.options import DeliveryOptions
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.delivered import Image, delivered
from tests.support.options import options_of


class Steps:
    """The outputs of a network, rounded to multiples of a step."""

    def __init__(self, network, step):
        self.network, self.step = network, step

    def __call__(self, images):
        with torch.no_grad():
            return (self.network(images) / self.step).round() * self.step


def format_of(name, step, written=None, **more):
    """A lossy format of this step, whose file holds another one if that is given."""

    def write(network, example, path):
        torch.save({"network": network.network, "step": written or network.step}, path)
        return {"step": network.step, **more}

    def load(path, recipe, dense, example):
        return Steps(**torch.load(path, weights_only=False))

    return Format(f"{name}.pt", write, load, approximate=lambda network, examples: Steps(network, step))


FINE, COARSE = format_of("fine", 1e-3), format_of("coarse", 1e6)
FIXED, WRONG = format_of("fixed", 2e-3, batch="fixed at 1"), format_of("wrong", 0.5, written=0.25)


def path_of(name):
    return f"{__name__}.{name}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with lossy formats, what it warned of, and the batch sizes at which each step was called."""
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    formats = ["weights", "int8", *map(path_of, ("FINE", "COARSE", "FIXED"))]
    delivery = {"calibration_examples": 32, "formats": formats, "largest_drop": 0.5}
    options = options_of(
        evaluations=20, calibration_examples=32, delivery=delivery, finetuning=TrainingOptions(epochs=2)
    )
    sizes, call = {}, Steps.__call__

    def counted(self, images):
        sizes.setdefault(self.step, set()).add(len(images))
        return call(self, images)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(Steps, "__call__", counted)
        folder = tmp_path_factory.mktemp("runs") / "mine"
        found = compress(network, Digits(), Budget(macs=0.5), by="uniform", options=options, folder=folder)
    return found, [str(each.message) for each in caught if "largest_drop" in str(each.message)], sizes


def test_the_approximation_is_compared_with_what_was_written(tmp_path):
    """Not with the network: it is a step away from that."""
    pruned, folder = delivered(Image(), (3, 10, 10), tmp_path / "fine", [path_of("FINE")])
    images = torch.randn(5, 3, 10, 10)
    assert torch.equal(artifact.load(folder, format=path_of("FINE"))(images), Steps(pruned, 1e-3)(images))
    with pytest.raises(RuntimeError, match=r"loaded from wrong.pt .* differs by"):
        delivered(Image(), (3, 10, 10), tmp_path / "wrong", [path_of("WRONG")])


def test_a_file_that_no_longer_computes_what_was_written_is_refused(tmp_path, monkeypatch):
    """As if it ran on a machine whose rounding is another one."""
    _, folder = delivered(Image(), (3, 10, 10), tmp_path / "fine", [path_of("FINE")])
    call = Steps.__call__
    monkeypatch.setattr(Steps, "__call__", lambda self, images: call(self, images) + 0.05)
    artifact.load(folder, format=path_of("FINE"))
    monkeypatch.setattr(Steps, "__call__", lambda self, images: call(self, images) + 0.2)
    with pytest.raises(UserError, match="does not compute what was saved"):
        artifact.load(folder, format=path_of("FINE"))


def test_scores_and_sizes_are_in_the_result_and_its_table(run):
    found, _, _ = run
    rows = found.figures["formats"]
    assert rows["weights"] == {"files": {"weights.safetensors": (found.folder / "weights.safetensors").stat().st_size}}
    row, pruned = rows[path_of("FINE")], found.figures["pruned"]
    assert row["files"] == {"fine.pt": (found.folder / "fine.pt").stat().st_size}
    assert row["top1_search"] == pytest.approx(pruned["top1_search_after"], abs=0.5)
    assert row["top1_test"] == pytest.approx(pruned["top1_test_after"], abs=0.5)
    assert abs(row["drop"]) < 0.01
    text = str(found)
    assert f"ours, {path_of('FINE')}" in text and f"{path_of('FINE')}: top-1 on the holdout" in text
    assert "files: weights " in text


def test_a_large_drop_is_measured_and_warned_of_and_no_other_is(run):
    """All outputs are zero: the whole of the network's lead over guessing."""
    found, warned, _ = run
    assert found.figures["formats"][path_of("COARSE")]["drop"] == 1
    (message,) = warned
    assert f"format {path_of('COARSE')} is " in message and "a drop of 100.0% of the" in message
    assert "delivery.largest_drop is 0.5; deliver another format" in message and "\n" not in message


def test_int8_is_a_row_of_a_run(run):
    found, _, _ = run
    row, pruned = found.figures["formats"]["int8"], found.figures["pruned"]
    assert 0 < row["top1_test"] and abs(row["top1_test"] - pruned["top1_test_after"]) < 5
    assert "ours, int8" in str(found)


def test_a_fixed_batch_is_scored_example_by_example(run):
    found, _, sizes = run
    assert sizes[2e-3] == {1} and max(sizes[1e-3]) > 1
    assert abs(found.figures["formats"][path_of("FIXED")]["drop"]) < 0.01


@pytest.mark.parametrize(
    ("approximation", "network", "guess", "expected"),
    [
        (88.0, 90.0, 10.0, 2 / 80),
        (91.0, 90.0, 10.0, -1 / 80),
        (-3.0, -2.0, -6.0, 0.25),  # an error, lower is better
        (9.0, 10.0, 10.0, 1.0),  # the network is no better than a guess
        (10.0, 9.0, 10.0, 0.0),
    ],
)
def test_the_drop_is_a_share_of_what_was_learned(approximation, network, guess, expected):
    assert drop(approximation, network, guess) == pytest.approx(expected)


@pytest.mark.parametrize("limit", [-0.1, 1.5, float("nan")])
def test_a_limit_that_is_no_share_is_refused(limit):
    with pytest.raises(UserError, match=r"delivery.largest_drop is .*: expected a (number from 0 to 1|finite number)"):
        DeliveryOptions(largest_drop=limit)
