r"""How fast everything is: candidates, against the published way; PPO, states, proxy; several processes; memory.

    python experiments/benchmarks/speed.py --data cifar10 --weights cifar10_resnet56.pt \
        --journal experiments/results/recorded_search.jsonl --json experiments/results/speed.json \
        --figure experiments/results/speed.png
    python experiments/benchmarks/speed.py --data cifar10 --weights cifar10_resnet56.pt --quick

Each part runs in a process of its own and is written to the JSON file as it finishes; what is there already is not
measured again, and a file that was measured under other settings is refused. Nothing else should run on the machine.
With `--device cuda` candidates are scored and the policy learns there; its states are made on the CPU, and the parts
about CPU cores, `one_core` and `devices`, are left out unless `--parts` names them. What the keys say:

    ratio_racing, ratio_plain, ratio_plain_fp32
        candidates a second (choice of channels, surgery, repair, forward passes) relative to the published way in the
        same process: masks on the weights, float32, channels first, the dense network's full cost, batches of 256.
        In a race in bfloat16; on the whole search split in bfloat16; likewise in float32. With one thread, too
    kendall_tau, racing_miss
        of the scores in the race with those on the whole split, for the timed candidates, half of which are from the
        search's last quarter; how often, in resampled races, the winner is more than 0.3 points below the best
    evaluations_per_s, evaluations_per_s_plain
        in a race, and on the whole search split, in bfloat16
    peak_fraction, peak_fraction_dense, peak_fraction_fp32, peak_fraction_fp32_dense
        multiply-accumulates a second of candidates' forward passes, and of the dense network's, relative to a square
        matrix product, in bfloat16 and in float32
    ppo_update_s, state_ms, proxy_episodes_per_s
        100 transitions for 10 epochs; one state graph; whole episodes in the proxy, policy and states included
    ddp_speedup
        evaluations a second of two processes on two cores, relative to one on one core
    peak_rss_gib, peak_rss_gib_imagenet, delivery_peak_rss_gib
        most memory of a process that evaluates candidates; of ResNet-50 on images of 224 x 224; of one that has done so
        and prunes and repairs what is delivered, ResNet-50, too. With peak_gpu_gib in their names: of the CUDA device
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
from speed_parts import candidates, devices, forward, growth, learning, memory
from speed_parts.jobs import bf16, cifar, job
from speed_parts.machine import processor

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.job.trained import Trained
from gnnrl_lightning.networks.spec import NetworkSpec


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        images: Of the search split.
        candidates: That are timed.
        one_core: Of these with one thread.
        references: Evaluations in the published way.
        evaluations: Of the recorded search at most, all of which are scored in a race and on the whole split.
        repeats: Of each part of the learning.
        episodes: In the proxy at a time.
        large_images: Of ImageNet's size.
        side: Of these, pixels.
        large_candidates: Evaluated on them.
        delivery_images: Calibration images of what is delivered.
        growth_images: For each network of the figure.
        learning: Networks whose updates are timed.
        calibration_images: Of the candidates.
        product_rows: Of the matrices whose product is the machine's peak; None for as many as keep it busy.
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
    calibration_images: int = CandidateOptions.calibration_examples
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
    ),
    "tiny": Size(40, 4, 2, 1, 12, 1, 16, 8, 64, 1, 16, 8, ("resnet20",), 16, 128),
}


def alone(threads: int, run: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return pool.submit(run, *arguments).result()


def evaluate_candidates(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The part that compares with the published way."""
    return _candidates(options, size, size.candidates)


def evaluate_on_one_core(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The same with one thread."""
    return _candidates(options, size, size.one_core)


def _candidates(options: argparse.Namespace, size: Size, count: int) -> dict[str, Any]:
    return candidates.measure(_trained(options, size), options.journal, count, size.references)


def pass_forward(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The part about forward passes alone."""
    return forward.measure(_trained(options, size), options.journal, min(size.candidates, 8), size.product_rows)


def _trained(options: argparse.Namespace, size: Size) -> Trained:
    """The network and the images that the candidates are of."""
    data = cifar(options.data, size.images)
    made = bf16(size.calibration_images, evaluations=size.evaluations)
    return job(NetworkSpec(options.network), data, made, options.weights, options.device)


def run_two(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The part with several processes: a search on the same network, which trains nothing."""
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
    """The part for the figure."""
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
    """The part about PPO."""
    return [learning.measure(name, size.episodes, size.repeats, options.device) for name in size.learning]


def large(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The part about large images."""
    calibration = {"calibration_images": size.calibration_images}
    return memory.evaluation(size.large_images, size.side, size.large_candidates, options.device, **calibration)


def deliver(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The part about the memory that the delivery takes on them."""
    calibration = {"calibration_images": size.calibration_images}
    return memory.delivery(size.large_images, size.side, size.delivery_images, options.device, **calibration)


PARTS: dict[str, Callable[[argparse.Namespace, Size], Any]] = {
    "candidates": evaluate_candidates,
    "one_core": evaluate_on_one_core,
    "forward": pass_forward,
    "learning": learn,
    "devices": run_two,
    "imagenet": large,
    "delivery": deliver,
    "growth": grow,
}
ABOUT_CORES = ("one_core", "devices")
MEMORY = {"candidates": "{}", "imagenet": "{}_imagenet", "delivery": "delivery_{}"}
"""Part -> name of its peak among the figures."""


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that figures of one file have in common."""
    found: dict[str, Any] = {"network": options.network, "dataset": Path(options.data).name}
    found |= {"weights": Path(options.weights or "").name, "journal": Path(options.journal or "").name}
    found |= {"size": options.size, "threads": options.threads, "device": options.device, **processor()}
    if options.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """The figures that are asked for most, out of the parts."""
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
    if "devices" in parts:
        found["ddp_speedup"] = parts["devices"]["ddp_speedup"]
    for name, form in MEMORY.items():
        found |= {form.format(key): value for key, value in parts.get(name, {}).items() if key.startswith("peak_")}
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="image folder of 32 x 32 images, train/ and test/")
    parser.add_argument("--weights", metavar="FILE", help="weights of the dense network; fresh ones without")
    parser.add_argument("--network", default="resnet56", help="one of gnnrl_lightning.networks (default resnet56)")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="a search's journal; without, one is recorded")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are kept")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="where the growth of the cost is drawn")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), help="which (default: all that the device has)")
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="how much is measured (default full)")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick", help="within five minutes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what is measured (default cpu)")
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
        options.journal = options.journal or Path(folder) / "journal.jsonl"  # the first part that needs one leaves it
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
