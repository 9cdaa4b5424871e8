"""A tiny run of the speed benchmark: all parts, all figures."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"
KEYS = {
    "network", "dataset", "images", "cpu_features", "ratio_racing", "ratio_plain", "ratio_plain_fp32", "kendall_tau",
    "ratio_racing_one_core", "ratio_plain_one_core", "ratio_plain_fp32_one_core",
    "evaluations_per_s", "evaluations_per_s_plain", "racing_miss",
    "peak_fraction", "peak_fraction_dense", "peak_fraction_fp32", "peak_fraction_fp32_dense",
    "ppo_update_s", "state_ms", "proxy_episodes_per_s", "ddp_speedup", "peak_rss_gib",
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


def test_a_tiny_run_has_every_figure(images, tmp_path):
    path, figure = tmp_path / "speed.json", tmp_path / "speed.png"
    printed = run("--data", images, "--network", "resnet20", "--json", path, "--figure", figure).stdout
    found = json.loads(path.read_text())
    assert found.keys() >= KEYS and found["images"] == 40 and found["dataset"] == images.name
    positive = KEYS - {"network", "dataset", "cpu_features", "kendall_tau", "racing_miss"}
    assert all(found[key] > 0 for key in positive)
    assert found["kendall_tau"] is None or -1 <= found["kendall_tau"] <= 1  # of noise all may be worth the same
    assert 0 <= found["racing_miss"] <= 1
    assert figure.stat().st_size > 10_000
    assert all(f"| {key} |" in printed for key in KEYS)
    # What is there is not measured again.
    before = path.read_text()
    run("--data", images, "--network", "resnet20", "--json", path)
    assert path.read_text() == before
