"""Train many small random networks and evaluate candidates of each: a population.

    python experiments/population/collect.py --images cifar10 --out population.jsonl --networks 0 300

Every network is trained for some seconds on noisy digits or on small photographs. Its candidates, at two budgets, are
repaired by refit and scored by their divergence from the dense network. A record has the network's recipe, its
sensitivity, and the candidates; networks that the file has already are not evaluated again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from images import SIZE, NoisyDigits, SmallPhotographs
from networks import BLOCKS, RandomNetwork, random_recipe
from torch import Tensor

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import BoundBudget, Budget
from gnnrl_lightning.data import ImageData
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, starting_candidates, uniform
from gnnrl_lightning.seeds import derived_seed, generator_for
from gnnrl_lightning.tracer import trace
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer

CANDIDATES = 16
"""Candidates at each budget."""

SPREADS = (0.15, 0.3, 0.6)
"""Standard deviations of the logarithms of keep ratios around a centre."""

LARGEST = 1.6e6
"""MACs of a network at most, so that it is trained and evaluated in seconds."""


def candidates(trained: Trained, limits: BoundBudget, generator: torch.Generator) -> list[tuple[str, Tensor]]:
    """Names and widths of distinct candidates: those that every search starts with, and random ones around some."""
    graph = trained.job.graph
    found = list(starting_candidates(graph, limits).items())
    found += [(name, propose(graph, limits, trained.sensitivity)) for name, propose in FROM_SENSITIVITY.items()]
    known = {tuple(widths.tolist()) for _, widths in found}
    centres = [uniform(graph, limits), dict(found)["dynamic_programming"]]
    for number in range(8 * CANDIDATES):
        if len(known) >= CANDIDATES:
            break
        spread, centre = SPREADS[number % len(SPREADS)], centres[number % len(centres)]
        noise = torch.randn(len(centre), generator=generator, dtype=torch.float64)
        widths = limits.project(centre * (spread * noise).exp())
        if tuple(widths.tolist()) not in known:
            known.add(tuple(widths.tolist()))
            found.append((f"spread_{spread}", widths))
    distinct = {tuple(widths.tolist()): (name, widths) for name, widths in reversed(found)}
    return list(reversed(distinct.values()))


def network_of(number: int, data: ImageData) -> RandomNetwork:
    """The untrained network of a number, the first one of its recipes that is small enough."""
    example = data.calibration(1)
    for attempt in range(1000):
        with torch.random.fork_rng([]):
            torch.manual_seed(derived_seed(0, number))
            network = RandomNetwork(random_recipe(number, attempt, data.image_shape[0], SIZE))
        graph = trace(network, (example,), self_test=False)
        if int(graph.cost.macs(graph.widths)) <= LARGEST:
            return network
    raise RuntimeError(f"network {number}: no recipe has at most {LARGEST:g} MACs")


def record(number: int, data: ImageData, epochs: int, weights: Path | None) -> dict[str, Any]:
    """Train the network of a number and evaluate its candidates.

    Args:
        number: The number.
        data: The images.
        epochs: Epochs of training.
        weights: Folder to which the trained weights are written; None: they are not kept.
    """
    began = time.perf_counter()
    network = network_of(number, data)
    options = TrainingOptions(epochs=epochs, learning_rate=0.1, warmup_epochs=0.5)
    Task(network, data).train(network, options, quiet_trainer)
    training = time.perf_counter() - began
    if weights is not None:
        torch.save(network.state_dict(), weights / f"{number}.pt")
    row = CandidateOptions(repair="refit"), DeliveryOptions(calibration_examples=256)
    trained = train(check(Task(network, data), Budget(macs=0.5), Options(row[0], delivery=row[1])))
    evaluator, generator = trained.evaluator(), generator_for(1, number)
    shares = 0.15 + 0.3 * torch.rand(2, generator=generator) + torch.tensor([0.0, 0.3])
    rows = []
    for share in shares.tolist():
        limits = trained.job.limits.with_limits(macs=share)
        for name, widths in candidates(trained, limits, generator):
            scored = evaluator(widths, name)
            rows.append({"share": round(share, 4), "who": name, "widths": widths.tolist(), "scores": scored.scores})
    return {
        "number": number,
        "recipe": network.recipe.as_record(),
        "data": data.name,
        "dense": trained.job.graph.widths.tolist(),
        "accuracy": trained.job.task.figures(network, data.holdout)["top1"],
        "measured": trained.sensitivity.measured.tolist(),
        "rows": rows,
        "seconds": {"training": training, "all": time.perf_counter() - began},
    }


def known(path: Path) -> set[int]:
    """Numbers of the networks that a file has."""
    return {json.loads(line)["number"] for line in path.read_text().splitlines()} if path.is_file() else set()


def main() -> None:
    """Evaluate the networks of a range of numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="image folder with train/ and test/")
    parser.add_argument("--out", type=Path, required=True, help="file of records, one a line; it is resumed")
    parser.add_argument("--networks", type=int, nargs=2, default=(0, 300), help="range of numbers")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of training on each network")
    parser.add_argument("--weights", type=Path, help="folder for the trained weights")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.weights is not None:
        args.weights.mkdir(parents=True, exist_ok=True)
    sources = [NoisyDigits(), SmallPhotographs(args.images)]
    for source in sources:
        source.setup()
    done = known(args.out)
    for number in range(*args.networks):
        if number in done:
            continue
        found = record(number, sources[(number // len(BLOCKS)) % len(sources)], args.epochs, args.weights)
        with args.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(number, found["data"], round(found["accuracy"], 1), len(found["dense"]), found["seconds"], flush=True)


if __name__ == "__main__":
    main()
