"""A tiny run of the speed benchmark: all parts, all figures."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gnnrl_lightning.search.methods import Method

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
KEYS = {
    "network", "dataset", "images", "cpu_features", "ratio_racing", "ratio_plain", "ratio_plain_fp32", "kendall_tau",
    "ratio_racing_one_core", "ratio_plain_one_core", "ratio_plain_fp32_one_core",
    "evaluations_per_s", "evaluations_per_s_plain", "racing_miss",
    "peak_fraction", "peak_fraction_dense", "peak_fraction_fp32", "peak_fraction_fp32_dense",
    "training_ratio", "training_ratio_aligned",
    "ppo_update_s", "state_ms", "proxy_episodes_per_s", "ddp_speedup", "peak_rss_gib",
    "peak_rss_gib_imagenet", "delivery_peak_rss_gib",
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Ten classes of noise, ten images to train on and two to test on each."""
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 2)):
        for label in range(10):
            (folder / split / str(label)).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / str(label) / f"{number}.png")
    return folder


def run(*arguments):
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--size", "tiny", "--threads", "1", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.mark.slow
def test_a_tiny_run_has_every_figure(images, tmp_path):
    path, figure = tmp_path / "speed.json", tmp_path / "speed.png"
    printed = run("--data", images, "--network", "resnet20", "--json", path, "--figure", figure).stdout
    found = json.loads(path.read_text())
    assert found.keys() >= KEYS and found["images"] == 40 and found["dataset"] == images.name
    positive = KEYS - {"network", "dataset", "cpu_features", "kendall_tau", "racing_miss"}
    assert all(found[key] > 0 for key in positive)
    assert found["kendall_tau"] is None or -1 <= found["kendall_tau"] <= 1  # on noise, all scores may be equal
    assert 0 <= found["racing_miss"] <= 1
    assert figure.stat().st_size > 10_000
    assert all(f"| {key} |" in printed for key in KEYS)
    # Existing results are not measured again.
    before = path.read_text()
    run("--data", images, "--network", "resnet20", "--json", path)
    assert path.read_text() == before


@pytest.fixture
def speed(monkeypatch):
    """The benchmark without measurements: every part returns its name and no figures."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("speed")
    monkeypatch.setattr(module, "alone", lambda threads, part, *_: part.__name__)
    monkeypatch.setattr(module, "summary", lambda parts: {})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    return module


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("--network resnet20", "network 'resnet56', not 'resnet20'"),
        ("--data images/other", "dataset 'noise', not 'other'"),
        ("--weights some/other.pt", "weights 'dense.pt', not 'other.pt'"),
        ("--journal some/other.jsonl", "journal '', not 'other.jsonl'"),
        ("--quick", "size 'tiny', not 'quick'"),
        ("--threads 2", "threads 1, not 2"),
        ("--device cuda", "device 'cpu', not 'cuda'"),
        ("--parts growth --threads 2", "threads 1, not 2"),
    ],
)
def test_parts_measured_under_other_settings_are_refused(speed, tmp_path, capsys, changed, told):
    path = tmp_path / "speed.json"
    arguments = (
        f"--data images/noise --weights some/dense.pt --size tiny --threads 1 --parts learning --json {path}".split()
    )
    speed.main(arguments)
    before = path.read_text()
    with pytest.raises(SystemExit):
        speed.main([*arguments, *changed.split()])
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(path) in line and told in line
    assert path.read_text() == before
    # Under the same settings another part joins the file.
    assert speed.main([*arguments, "--parts", "growth"])["parts"] == {"learning": "learn", "growth": "grow"}


def test_parts_of_another_machine_are_refused(speed, tmp_path, capsys, monkeypatch):
    arguments = f"--data noise --parts learning --json {tmp_path / 'speed.json'}".split()
    speed.main(arguments)
    monkeypatch.setattr(speed, "processor", lambda: {"processor": "6502"})
    with pytest.raises(SystemExit):
        speed.main(arguments)
    assert "not '6502'" in capsys.readouterr().err.splitlines()[-1]


def test_parts_about_cpu_cores_are_left_out_on_cuda(speed):
    arguments, everything = ["--data", "noise", "--device", "cuda"], speed.PARTS.keys()
    assert speed.main(["--data", "noise"])["parts"].keys() == everything
    assert speed.main(arguments)["parts"].keys() == everything - {"one_core", "devices", "training"}
    assert speed.main([*arguments, "--parts", "devices"])["parts"].keys() == {"devices"}


def test_products_round_as_convolutions_do_while_the_peak_is_measured(speed):
    backends: Any = torch.backends
    products, machine = backends.cuda.matmul, importlib.import_module("speed_parts.machine")
    before = products.fp32_precision
    with machine.rounded_as_convolutions():
        assert products.fp32_precision == backends.cudnn.conv.fp32_precision == "tf32"
    assert products.fp32_precision == before != "tf32"


def test_a_search_is_recorded_once_and_a_longer_one_is_thinned_out(speed, tmp_path, monkeypatch):
    candidates, path = importlib.import_module("speed_parts.candidates"), tmp_path / "journal.jsonl"
    asked = [[number, number] for number in (*range(7), 3)]  # the last one again

    def search(problem, seed):
        path.write_text("".join(json.dumps({"widths": widths}) + "\n" for widths in asked))

    spent = SimpleNamespace(evaluations=8)
    job = SimpleNamespace(limits=None, options=SimpleNamespace(search=spent))
    trained = SimpleNamespace(job=job, problem=lambda *_: None, journalled=lambda *_: None)
    monkeypatch.setattr(candidates, "METHODS", {"cross_entropy": Method(search)})
    assert candidates.recorded(trained, path).tolist() == asked[:7]
    monkeypatch.delattr(candidates, "METHODS")
    spent.evaluations = 3
    assert candidates.recorded(trained, path).tolist() == [[0, 0], [3, 3], [6, 6]]
