r"""Speed of candidates (compared with the published method), PPO, states, proxy and several processes; memory.

    python experiments/benchmarks/speed.py --data cifar10 --weights cifar10_resnet56.pt \
        --journal experiments/results/recorded_search.jsonl --json experiments/results/speed.json \
        --figure experiments/results/speed.png
    python experiments/benchmarks/speed.py --data cifar10 --weights cifar10_resnet56.pt --quick

Each part runs in its own process and is written to the JSON file as it finishes. Parts that are already in the file are
not measured again, and a file with other settings is refused. The machine should be idle otherwise. With
`--device cuda`, candidates are scored and the policy is trained on the GPU; states are built on the CPU, and the parts
about CPU cores, `one_core`, `devices` and `training`, are skipped unless `--parts` lists them. Meaning of the keys:

    ratio_racing, ratio_plain, ratio_plain_fp32
        candidates per second (choice of channels, surgery, repair, forward passes) relative to the published method in
        the same process: masks on the weights, float32, channels first, the dense network's full cost, batches of 256.
        In a race in bfloat16, on the whole holdout in bfloat16, and on the whole holdout in float32; also with one
        thread
    kendall_tau, racing_miss
        rank correlation of the scores in the race with those on the whole holdout, for the timed candidates, half of
        which are from the last quarter of the search; share of resampled races whose winner is more than 0.3 points
        below the best candidate
    evaluations_per_s, evaluations_per_s_plain
        in a race, and on the whole holdout, in bfloat16
    peak_fraction, peak_fraction_dense, peak_fraction_fp32, peak_fraction_fp32_dense
        multiply-accumulates per second in forward passes of candidates and of the dense network, relative to a square
        matrix product, in bfloat16 and in float32
    training_ratio, training_ratio_aligned
        images per second of fine-tuning a network that is pruned to half of its MACs, with `precision: auto`, relative
        to a plain PyTorch loop in float32, channels first, with torchvision's transforms in two processes, on the same
        network; and of one with widths in multiples of 16 and as many MACs; the smallest ratios of the networks
    ppo_update_s, state_ms, proxy_episodes_per_s
        100 transitions for 10 epochs; one state graph; whole episodes in the proxy, including policy and states
    ddp_speedup
        evaluations per second of two processes on two cores, relative to one process on one core
    peak_rss_gib, peak_rss_gib_imagenet, delivery_peak_rss_gib
        peak memory of a process that evaluates candidates, of the same for ResNet-50 on images of 224 x 224, and of one
        that then also prunes and repairs the delivered ResNet-50. Keys with peak_gpu_gib: memory of the CUDA device
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from speed_parts import candidates, devices, forward, growth, learning, memory, training
from speed_parts.jobs import bf16, cifar, job
from speed_parts.machine import processor

from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.networks.spec import NetworkSpec


@dataclass(frozen=True)
class Size:
    """Amounts of work.

    Attributes:
        images: Images in the holdout.
        candidates: Number of timed candidates.
        one_core: Number of candidates timed with one thread.
        references: Number of evaluations with the published method.
        evaluations: Maximum number of candidates from the recorded search; all are scored in a race and on the whole
            holdout.
        repeats: Repetitions of each learning benchmark.
        episodes: Episodes in the proxy per batch.
        large_images: Number of images of ImageNet's size.
        side: Height and width of these images, in pixels.
        large_candidates: Number of candidates evaluated on them.
        delivery_images: Calibration images of the delivered network.
        growth_images: Images per network in the plot.
        learning: Networks whose updates are timed.
        calibration_images: Calibration images of candidates.
        finetuned: Networks whose fine-tuning is timed.
        multiples: Multiples of channels of these.
        steps: Timed steps of fine-tuning.
        product_rows: Rows of the matrices whose product defines the peak rate; None: enough to keep the device busy.
    """

    images: int = 5000
    candidates: int = 36
    one_core: int = 12
    references: int = 6
    evaluations: int = 80
    repeats: int = 5
    episodes: int = 512
    large_images: int = 2000
    side: int = 224
    large_candidates: int = 2
    delivery_images: int | None = None
    growth_images: int = 1000
    learning: tuple[str, ...] = ("resnet56", "resnet50")
    calibration_images: int = 64
    finetuned: tuple[str, ...] = ("resnet20", "resnet56")
    multiples: tuple[int, ...] = (1, 8, 16)
    steps: int = 60
    product_rows: int | None = None


SIZES = {
    "full": Size(),
    "quick": Size(
        images=1000,
        candidates=3,
        one_core=1,
        references=1,
        evaluations=6,
        repeats=2,
        large_images=50,
        side=128,
        large_candidates=1,
        delivery_images=32,
        growth_images=100,
        steps=15,
    ),
    "tiny": Size(40, 4, 2, 1, 12, 1, 16, 8, 64, 1, 16, 8, ("resnet20",), 16, ("resnet20",), (1, 8), 1, 128),
}


def alone(threads: int, run: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in its own process and return the result."""
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return pool.submit(run, *arguments).result()


def evaluate_candidates(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The comparison with the published method."""
    return _candidates(options, size, size.candidates)


def evaluate_on_one_core(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The comparison with one thread."""
    return _candidates(options, size, size.one_core)


def _candidates(options: argparse.Namespace, size: Size, count: int) -> dict[str, Any]:
    return candidates.measure(_trained(options, size), options.journal, count, size.references)


def pass_forward(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Forward passes."""
    return forward.measure(_trained(options, size), options.journal, min(size.candidates, 8), size.product_rows)


def _trained(options: argparse.Namespace, size: Size) -> Trained:
    """The network and images of the candidates."""
    data = cifar(options.data, size.images)
    made = bf16(size.calibration_images, evaluations=size.evaluations)
    return job(NetworkSpec(options.network), data, made, options.weights, options.device)


def finetune(options: argparse.Namespace, size: Size) -> list[dict[str, Any]]:
    """Fine-tuning."""
    amounts = size.images, size.multiples, size.steps, size.product_rows
    return [training.measure(name, options.data, *amounts) for name in size.finetuned]


def run_two(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Several processes: a search on the same network without training."""
    arguments = ["--network.class_path", options.network, "--data", "ImageFolder", "--data.root", options.data]
    arguments += ["--data.init_args.holdout_size", str(size.images), "--budget.macs", "0.5"]
    arguments += ["--scoring.precision", "bf16", "--search.sensitivity", "null", "--finetuning.epochs", "0"]
    evaluations = 6 + 4 * (2 + size.candidates // 4)
    arguments += ["--model.episodes_per_iteration", "4", "--search.evaluations", str(evaluations)]
    arguments += ["--candidate.calibration_examples", str(size.calibration_images)]
    if size.delivery_images is not None:
        arguments += ["--delivery.calibration_examples", str(size.delivery_images)]
    arguments += ["--checkpoint", options.weights] if options.weights else ["--pretraining.epochs", "0"]
    with tempfile.TemporaryDirectory() as folder:
        return devices.measure(arguments, Path(folder))


def grow(options: argparse.Namespace, size: Size) -> list[dict[str, Any]]:
    """Data of the plot."""
    axes = {"depth": growth.DEPTHS, "width": growth.WIDTHS, "groups": growth.GROUPS}
    if options.size == "tiny":
        axes = {name: values[:2] for name, values in axes.items()}
    return [
        growth.measure(
            axis,
            value,
            size.growth_images,
            min(size.candidates, 5),
            options.device,
            calibration_images=size.calibration_images,
        )
        for axis, values in axes.items()
        for value in values
    ]


def learn(options: argparse.Namespace, size: Size) -> list[dict[str, Any]]:
    """PPO."""
    return [learning.measure(name, size.episodes, size.repeats, options.device) for name in size.learning]


def large(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Memory for large images."""
    calibration = {"calibration_images": size.calibration_images}
    return memory.evaluation(size.large_images, size.side, size.large_candidates, options.device, **calibration)


def deliver(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """Memory of the delivery for large images."""
    calibration = {"calibration_images": size.calibration_images}
    return memory.delivery(size.large_images, size.side, size.delivery_images, options.device, **calibration)


PARTS: dict[str, Callable[[argparse.Namespace, Size], Any]] = {
    "candidates": evaluate_candidates,
    "one_core": evaluate_on_one_core,
    "forward": pass_forward,
    "learning": learn,
    "devices": run_two,
    "training": finetune,
    "imagenet": large,
    "delivery": deliver,
    "growth": grow,
}
ABOUT_CORES = ("one_core", "devices", "training")
MEMORY = {"candidates": "{}", "imagenet": "{}_imagenet", "delivery": "delivery_{}"}
"""Part -> key of its peak memory in the results."""


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Settings that all results in a file share."""
    found: dict[str, Any] = {"network": options.network, "dataset": Path(options.data).name}
    found |= {"weights": Path(options.weights or "").name, "journal": Path(options.journal or "").name}
    found |= {"size": options.size, "threads": options.threads, "device": options.device, **processor()}
    if options.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """The most important figures of all parts."""
    found: dict[str, Any] = {}
    keys = ("images", "ratio_racing", "ratio_plain", "ratio_plain_fp32", "kendall_tau", "racing_miss")
    if "candidates" in parts:
        found |= {key: parts["candidates"][key] for key in keys}
        found["evaluations_per_s"] = round(1 / parts["candidates"]["racing_s"], 2)
        found["evaluations_per_s_plain"] = round(1 / parts["candidates"]["plain_s"], 2)
    if "one_core" in parts:
        ratios = (key for key in keys if key.startswith("ratio"))
        found |= {f"{key}_one_core": parts["one_core"][key] for key in ratios}
    for precision, suffix in {"bf16": "", "32": "_fp32"}.items() if "forward" in parts else ():
        rows = parts["forward"][precision]
        found[f"peak_fraction{suffix}"] = rows["candidates"]["share"]
        found[f"peak_fraction{suffix}_dense"] = rows["dense"]["share"]
    if "learning" in parts:
        worst = {"ppo_update_s": max, "state_ms": max, "proxy_episodes_per_s": min}
        found |= {key: pick(row[key] for row in parts["learning"]) for key, pick in worst.items()}
    for key, place in {"training_ratio": 0, "training_ratio_aligned": -1}.items() if "training" in parts else ():
        rows = [[value for name, value in row.items() if name.startswith("multiples")] for row in parts["training"]]
        found[key] = min(row[place]["ratio"] for row in rows)
    if "devices" in parts:
        found["ddp_speedup"] = parts["devices"]["ddp_speedup"]
    for name, form in MEMORY.items():
        found |= {form.format(key): value for key, value in parts.get(name, {}).items() if key.startswith("peak_")}
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="image folder of 32 x 32 images, train/ and test/")
    parser.add_argument("--weights", metavar="FILE", help="weights of the dense network (default: random)")
    parser.add_argument("--network", default="resnet56", help="one of gnnrl_lightning.networks (default resnet56)")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="journal of a search (default: record one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file of the results")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="image file of the plot of growing costs")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), help="parts (default: all for the device)")
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="amount of work (default full)")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick", help="at most five minutes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device to measure (default cpu)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads (default: all)")
    options = parser.parse_args(arguments)
    figures = common = settings(options)
    parts: dict[str, Any] = {}
    if options.json is not None and options.json.exists():
        known = json.loads(options.json.read_text(encoding="utf-8"))
        others = [
            f"{key} {known.get(key)!r}, not {value!r}" for key, value in common.items() if known.get(key) != value
        ]
        if others:
            parser.error(f"{options.json} was measured with {'; '.join(others)}: name another file")
        parts = known["parts"]
    with tempfile.TemporaryDirectory() as folder:
        options.journal = options.journal or Path(folder) / "journal.jsonl"  # recorded by the first part that needs it
        for name in options.parts or [name for name in PARTS if options.device == "cpu" or name not in ABOUT_CORES]:
            if name not in parts:
                threads = 1 if name == "one_core" else options.threads
                parts[name] = alone(threads, PARTS[name], options, SIZES[options.size])
            figures = common | summary(parts) | {"parts": parts}
            if options.json is not None:
                options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.figure is not None and "growth" in parts:
        growth.draw(parts["growth"], options.figure)
    print("| | |\n|---|---|")
    for key, value in figures.items():
        if key != "parts":
            print(f"| {key} | {value} |")
    return figures


if __name__ == "__main__":
    main()
