r"""Sizes, latency and accuracy of a pruned network in each of its formats.

    taskset -c 1 python experiments/benchmarks/formats.py --network resnet20 --checkpoint FILE --images FOLDER \
      --budget 0.5 --json experiments/results/formats.json

The network is pruned to the widths of dynamic programming on the sensitivity, or to given ones (`--widths`), refitted
on `--calibration` training images, not fine-tuned, and delivered as a run does: written, loaded and compared. int8 is
calibrated on the same images. Top-1 is that of the final half of the test images (odd indices), by the file as it is
loaded. Latency is the processor time of one thread: lower quartile of interleaved rounds, see
`gnnrl_lightning.speed.rounds`. `int8 in OpenVINO` is the ONNX file of the format int8, read by OpenVINO.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from one_problem import arguments, write
from torch import Tensor, nn

from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.recipe import files_of
from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.exporting.onnx_runtime import Session
from gnnrl_lightning.exporting.openvino_runtime import Compiled
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.lossy import Loaded
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.search.knapsack import dynamic_programming
from gnnrl_lightning.speed.machine import machine
from gnnrl_lightning.speed.rounds import clock_of, measured_ms, reference_operator, with_threads
from gnnrl_lightning.trees import Tree

FORMATS = ("weights", "program", "onnx", "openvino", "int8")
BATCHES = (1, 64)
CPU = torch.device("cpu")

Network = Callable[..., Tree]


def trained_network(args: argparse.Namespace) -> Trained:
    """The network of these arguments."""
    torch.set_num_threads(args.threads)
    data = ImageFolder(args.images, name="cifar10", holdout_size=5000)
    data.setup()
    task = Task(NetworkSpec(args.network, args.arguments), data, args.checkpoint)
    options = Options(CandidateOptions(), delivery=DeliveryOptions(calibration_examples=args.calibration))
    return train(check(task, Budget(macs=args.budget), options))


def save(trained: Trained, widths: Tensor, folder: Path) -> nn.Module:
    """Prune to widths, save in every format, and return the pruned network."""
    job, pruner = trained.job, trained.final_pruner
    plan = pruner.plan(widths)
    network = pruner.prune(plan).eval()
    artifact.save(
        folder,
        network,
        dense=job.task.original(),
        steps=[artifact.step(job.graph, plan)],
        example=job.task.example(),
        description=artifact.Description(job.task.record, {}, job.task.data.transform_record(), {}),
        formats=FORMATS,
        calibration=lambda: job.task.example(job.final_examples),
    )
    return network


def loaded_from(folder: Path, dense: nn.Module, example: Tensor) -> dict[str, Network]:
    """What each file of an artifact holds, in one thread."""
    recipe = artifact.read_recipe(folder)
    laid_out, notes = recipe["input"], recipe["formats"]
    files = {name: folder / note["file"] for name, note in notes.items()}
    return {
        "weights": artifact.load(folder, dense, example, format="weights"),
        "program": artifact.load(folder, format="program"),
        "onnx": Session(files["onnx"], laid_out, notes["onnx"]["outputs"], threads=1),
        "openvino": Compiled(files["openvino"], laid_out, notes["openvino"]["outputs"], threads=1),
        "int8": Session(files["int8"], laid_out, notes["int8"]["outputs"], threads=1),
        "int8 in OpenVINO": Compiled(files["int8"], laid_out, notes["int8"]["outputs"], threads=1),
    }


def latency(networks: Mapping[str, Network], images: Tensor, rounds: int) -> dict[str, float]:
    """Milliseconds of a forward pass of each network for a batch of images."""
    makers = [lambda network=network: lambda: network(images) for network in networks.values()]
    times = measured_ms(makers, clock_of(CPU, 1), reference_operator(CPU), rounds)
    return dict(zip(networks, times, strict=True))


def figures(trained: Trained, widths: Tensor, rounds: int, test_images: int) -> dict[str, Any]:
    """Figures of the dense network, and of the pruned one in each format."""
    task = trained.job.task
    final = torch.arange(1, len(task.data.test), 2)
    order = torch.randperm(len(final), generator=torch.Generator().manual_seed(0))
    test = task.data.test.subset(final[order[:test_images]])
    with TemporaryDirectory() as temporary, with_threads(1):
        folder = Path(temporary)
        save(trained, widths, folder)
        networks = {"dense": trained.network, **loaded_from(folder, task.original(), task.example())}
        rows: dict[str, dict[str, Any]] = {name: {} for name in networks}
        for name, note in artifact.read_recipe(folder)["formats"].items():
            rows[name]["bytes"] = sum((folder / file).stat().st_size for file in files_of(note))
        for name, network in networks.items():
            rows[name]["top1"] = task.figures(Loaded(network), test)["top1"]
        for batch in BATCHES:
            for name, value in latency(networks, task.example(batch), rounds).items():
                rows[name][f"latency_ms_{batch}"] = value
    limits = trained.job.limits
    return {
        **limits.ratios(limits.costs(widths)),
        "widths": widths.tolist(),
        "test_images": len(test),
        "formats": rows,
        "machine": machine(CPU),
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino")},
    }


def main() -> None:
    """Measure one network at one budget."""
    parser = arguments(__doc__, candidates=1)
    parser.add_argument("--calibration", type=int, default=1024, help="images of the refit and of int8 (default 1024)")
    parser.add_argument("--widths", type=json.loads, help="widths of the groups (JSON); none: dynamic programming")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of the measurement of latency (default 40)")
    parser.add_argument("--test", type=int, default=5000, help="test images (default 5000)")
    args = parser.parse_args()
    trained = trained_network(args)
    graph, limits = trained.job.graph, trained.job.limits
    if args.widths is None:
        widths = dynamic_programming(graph, limits, trained.sensitivity)
    else:
        widths = torch.tensor(args.widths)
    write(args, {"calibration_images": args.calibration, **figures(trained, widths, args.rounds, args.test)})


if __name__ == "__main__":
    main()
