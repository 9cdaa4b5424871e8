"""One policy for several networks and budgets, trained in one run and applied to a network not seen in training.

    python experiments/benchmarks/many_networks.py --data cifar10 --resnet20 cifar10_resnet20.pt \
        --resnet56 cifar10_resnet56.pt --json experiments/results/many_networks.json

DIR is an image folder (train/, test/) of 32 x 32 images. The policy is trained on ResNet-20, VGG-16 and MobileNet-v2 at
70, 50, 40 and 30 % of the MACs: twelve environments in one pool, each a proxy whose rewards are estimated from the
network's sensitivity. No candidate is evaluated on images during training, and the policy starts from one ratio for all
groups. The trained policy is then applied, without exploration, to all these networks and to ResNet-56. Rewards of the
proxy (the negative logarithm of the summed losses) are compared with those of uniform pruning and of dynamic
programming, which is the optimum of the proxy up to rounding. ResNet-56 is also evaluated on images: top-1 on the test
images before fine-tuning.

Networks without a weights file are trained for a few epochs on the images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speed_parts.machine import processor
from torch import Tensor

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageData, ImageFolder
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.rl.env import EnvPool, VectorPruningEnv
from gnnrl_lightning.rl.env.options import EpisodeOptions
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.rl.policies import Agent, Beta
from gnnrl_lightning.rl.rollout import play_without_exploring
from gnnrl_lightning.search.baselines import FROM_SENSITIVITY, uniform
from gnnrl_lightning.surrogate.proxy import Proxy
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.training.train import quiet_trainer

SHARES = (0.7, 0.5, 0.4, 0.3)
"""Budgets, in MACs relative to the dense network."""
TARGET_SHARES = (0.5, 0.3)
"""Budgets at which candidates of the fourth network are evaluated on images."""
SOURCES, TARGET = ("resnet20", "vgg16_bn", "mobilenet_v2"), "resnet56"
OPTIMUM = "dynamic_programming"


def load(name: str, data: ImageData, weights: str | None, images: int, epochs: int) -> Trained:
    """Load or train a dense network.

    Args:
        name: Name of the network.
        data: The images.
        weights: Weights file; None: train the network.
        images: Number of calibration images, also for the sensitivity.
        epochs: Epochs of training.
    """
    task = Task(NetworkSpec(name), data, weights)
    network = task.build()
    if weights is None:
        task.train(network, TrainingOptions(epochs=epochs, learning_rate=0.05), quiet_trainer)
    options = Options(
        CandidateOptions(repair="batch_norm", calibration_examples=images),
        episode=EpisodeOptions(proposal=None, reward=None),
        delivery=DeliveryOptions(calibration_examples=images),
    )
    return train(check(Task(network, data), Budget(macs=0.5), options))


def in_proxy(trained: Trained, share: float) -> VectorPruningEnv:
    """Environment of a network at a share of its MACs, with rewards estimated from its sensitivity."""
    groups, sensitivity = len(trained.job.graph.groups), trained.sensitivity
    score = Proxy(sensitivity.of_groups, lambda: (torch.zeros(0, groups, dtype=torch.int64), torch.zeros(0)))
    return trained.job.environments(trained.job.limits.with_limits(macs=share)).make(score, sensitivity)


def learn(jobs: Mapping[str, Trained], shares: Sequence[float], iterations: int, episodes: int, seed: int) -> GNNRL:
    """Train one policy on all networks and budgets in each iteration."""
    pool = EnvPool({f"{name}/{share}": in_proxy(job, share) for name, job in jobs.items() for share in shares})
    learner = GNNRL(pool, partial(Agent, head="node", distribution=Beta), episodes_per_iteration=episodes, seed=seed)
    quiet_trainer(max_epochs=iterations, accelerator="cpu", log_every_n_steps=1).fit(learner)
    return learner


def candidates(trained: Trained, learner: GNNRL, share: float) -> dict[str, Tensor]:
    """Widths of the policy (deterministic), of uniform pruning, and of dynamic programming on the sensitivity."""
    env, limits = in_proxy(trained, share), trained.job.limits.with_limits(macs=share)
    play_without_exploring(env, learner.policy)
    return {
        "policy": env.widths[0],
        "uniform": uniform(trained.job.graph, limits),
        OPTIMUM: FROM_SENSITIVITY[OPTIMUM](trained.job.graph, limits, trained.sensitivity),
    }


def compared(
    name: str, trained: Trained, learner: GNNRL, shares: Sequence[float], tested: Sequence[float]
) -> list[Any]:
    """A row for each budget: rewards of the proxy and, for some budgets, top-1 on the test images in percent."""
    rows = []
    for share in shares:
        found = candidates(trained, learner, share)
        score = in_proxy(trained, share).score
        assert score is not None
        row: dict[str, Any] = {"network": name, "macs_budget": share}
        row["proxy_reward"] = {method: round(float(score(widths[None])), 4) for method, widths in found.items()}
        low, high = row["proxy_reward"]["uniform"], row["proxy_reward"][OPTIMUM]
        row["share_of_the_gain"] = round((row["proxy_reward"]["policy"] - low) / max(high - low, 1e-9), 3)
        if share in tested:
            pruner, task = trained.final_pruner, trained.job.task
            row["top1_test_before"] = {
                method: round(task.figures(pruner.prune(pruner.plan(widths)), task.data.test)["top1"], 2)
                for method, widths in found.items()
            }
        row["widths"] = {method: widths.tolist() for method, widths in found.items()}
        rows.append(row)
        print({key: value for key, value in row.items() if key != "widths"}, flush=True)
    return rows


def run(
    sources: Mapping[str, Trained],
    target: tuple[str, Trained],
    shares: Sequence[float] = SHARES,
    tested: Sequence[float] = TARGET_SHARES,
    iterations: int = 60,
    episodes: int = 96,
    seed: int = 0,
) -> dict[str, Any]:
    """Train a policy on the sources, and compare it on the sources and the target.

    Args:
        sources: Networks by name.
        target: Name and network that is not used in training.
        shares: Budgets, in MACs relative to the dense network.
        tested: Budgets at which candidates of the target are evaluated on images.
        iterations: Iterations of training.
        episodes: Episodes per iteration, divided among all networks and budgets.
        seed: Seed of the policy and its exploration.
    """
    start = time.perf_counter()
    measured = {name: job.sensitivity for name, job in {**sources, target[0]: target[1]}.items()}
    made = time.perf_counter()
    learner = learn(sources, shares, iterations, episodes, seed)
    trained = time.perf_counter()
    rows = [row for name, job in sources.items() for row in compared(name, job, learner, shares, ())]
    unseen = compared(*target, learner, shares, tested)
    return {
        "seed": seed,
        "iterations": iterations,
        "episodes_per_iteration": episodes,
        "groups": {name: len(each.losses) for name, each in measured.items()},
        "sensitivity_examples": {name: each.examples for name, each in measured.items()},
        "seconds": {"sensitivities": round(made - start, 1), "training_the_policy": round(trained - made, 1)},
        "learnt_from": rows,
        "never_seen": unseen,
    }


def main() -> None:
    """Load or train the networks, train and compare the policy, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="image folder with train/ and test/")
    for name in (*SOURCES, TARGET):
        parser.add_argument(f"--{name}", metavar="FILE", help="its weights (default: train the network)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of training without weights (default 4)")
    parser.add_argument("--images", type=int, default=64, help="calibration images per network (default 64)")
    parser.add_argument("--holdout-size", type=int, default=500, help="held-out training images (default 500)")
    parser.add_argument("--iterations", type=int, default=60, help="iterations of the policy (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="output file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    data = ImageFolder(options.data, holdout_size=options.holdout_size)
    jobs, networks = {}, {}
    for name in (*SOURCES, TARGET):
        weights = getattr(options, name)
        jobs[name] = load(name, data, weights, options.images, options.epochs)
        made = "given weights" if weights else f"trained {options.epochs} epochs on {len(data.train)} images"
        accuracy = round(jobs[name].job.task.figures(jobs[name].network, data.test)["top1"], 2)
        networks[name] = {"weights": made, "top1_test": accuracy}
        print(name, networks[name], flush=True)
    target = jobs.pop(TARGET)
    found = run(jobs, (TARGET, target), iterations=options.iterations, seed=options.seed)
    sizes = {"training": len(data.train), "test": len(data.test)}
    record = {
        **processor(),
        "threads": options.threads,
        "images": sizes,
        "networks": networks,
        "seconds_in_all": round(time.perf_counter() - start, 1),
        **found,
    }
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
