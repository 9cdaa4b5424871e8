r"""Sizes, latency and accuracy of a delivered network in each of its formats.

    python -m gnnrl_lightning prune --config experiments/cifar10_resnet20.yaml --data.init_args.root FOLDER \
      --checkpoint FILE --widths WIDTHS --finetuning.epochs 1 --finetuning.learning_rate 0.01 \
      --delivery.formats "[weights, program, onnx, openvino, int8]" --run.name formats
    taskset -c 1 python experiments/benchmarks/formats.py runs/formats --images FOLDER --json FILE

Top-1 is that of the final half of the test images (odd indices), by the file as it is loaded. Latency is the processor
time of one thread: lower quartile of interleaved rounds, see `gnnrl_lightning.speed.rounds`. `int8 in OpenVINO` is the
ONNX file of the format int8, read by OpenVINO.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.exporting.onnx_runtime import Session
from gnnrl_lightning.exporting.openvino_runtime import Compiled
from gnnrl_lightning.job import artifact
from gnnrl_lightning.job.job import DENSE
from gnnrl_lightning.job.recipe import files_of
from gnnrl_lightning.job.runs import RunFolder
from gnnrl_lightning.networks import load_weights
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.objective import Classification
from gnnrl_lightning.speed.machine import machine
from gnnrl_lightning.speed.rounds import Clock, clock_of, measured_ms, reference_operator, with_threads
from gnnrl_lightning.training.train import scored
from gnnrl_lightning.trees import Tree

BATCHES = (1, 64)
CPU = torch.device("cpu")

Network = Callable[..., Tree]


class Called(nn.Module):
    """What was loaded, as a network."""

    def __init__(self, loaded: Network) -> None:
        super().__init__()
        self.loaded = loaded

    def forward(self, images: torch.Tensor) -> Tree:
        """The outputs for a batch of images."""
        return self.loaded(images)


def networks(folder: Path, dense: nn.Module) -> dict[str, Network]:
    """The dense network, and what each file of an artifact holds, with one thread."""
    notes = artifact.read_recipe(folder)["formats"]
    example = torch.zeros(1, *artifact.read_recipe(folder)["input"]["shape"])
    int8 = folder / notes["int8"]["file"]
    return {
        "dense": dense,
        "weights": artifact.load_as(folder, "weights", dense, example),
        "program": artifact.load_as(folder, "program"),
        "onnx": Session(folder / notes["onnx"]["file"], notes["onnx"]["outputs"], threads=1),
        "openvino": Compiled(folder / notes["openvino"]["file"], notes["openvino"]["outputs"], threads=1),
        "int8": Session(int8, notes["int8"]["outputs"], threads=1),
        "int8 in OpenVINO": Compiled(int8, notes["int8"]["outputs"], threads=1),
    }


def latency(found: Mapping[str, Network], images: torch.Tensor, clock: Clock, rounds: int) -> dict[str, float]:
    """Milliseconds of a forward pass of each network for a batch of images."""
    makers = [lambda network=network: lambda: network(images) for network in found.values()]
    times = measured_ms(makers, clock, reference_operator(CPU), rounds)
    return dict(zip(found, times, strict=True))


def figures(run: Path, images: str, rounds: int) -> dict[str, Any]:
    """Figures of each format of a run."""
    folder = RunFolder(run)
    recipe = artifact.read_recipe(folder.pruned)
    dense = NetworkSpec(**recipe["network"]).build().eval()
    load_weights(dense, folder.weights(DENSE)) if folder.weights(DENSE).is_file() else None
    data = ImageFolder(images, name="cifar10", holdout_size=5000)
    data.setup()
    final, found = data.test.subset(torch.arange(1, len(data.test), 2)), networks(folder.pruned, dense)
    rows: dict[str, dict[str, Any]] = {name: {} for name in found}
    for name, note in recipe["formats"].items():
        rows[name]["bytes"] = sum((folder.pruned / file).stat().st_size for file in files_of(note))
    with with_threads(1), torch.inference_mode():
        for name, network in found.items():
            rows[name]["top1"] = scored(Called(network), final, data, Classification())[1]["top1"]
        for batch in BATCHES:
            for name, value in latency(found, data.calibration(batch), clock_of(CPU, 1), rounds).items():
                rows[name][f"latency_ms_{batch}"] = value
    packages = {name: version(name) for name in ("torch", "onnxruntime", "openvino")}
    costs = {name: recipe["figures"][name] for name in ("macs_ratio", "params_ratio")}
    return {"network": recipe["network"], **costs, "formats": rows, "machine": machine(CPU), "versions": packages}


def main() -> None:
    """Measure the formats of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run with all formats")
    parser.add_argument("--images", required=True, help="image folder with train/ and test/")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of the measurement of latency")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    args = parser.parse_args()
    text = json.dumps(figures(args.run, args.images, args.rounds), indent=1) + "\n"
    print(text, end="")
    if args.json is not None:
        args.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
