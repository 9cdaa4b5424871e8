"""Prune with and without whole groups going (`min_width` 0 and 1): layers left, top-1 after refit, latency, exactness.

    python experiments/benchmarks/whole_groups.py --network resnet56 --checkpoint FILE --images FOLDER --budget 0.3

Widths are those of dynamic programming on the sensitivity, which is measured once, with groups without a channel. The
last rows remove a number of groups in any case, those with the least loss alone, and the others are widened in
proportion until the budget is used. Networks are refitted on `--calibration` training images and scored, before any
fine-tuning, on `--test` images of the development half of the test images. The latency is that of a batch of 64 images,
batch norms not folded, and again as networks are prepared for scoring. Exactness is the largest difference of outputs
from the masked dense network in float64, relative to the largest output.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from one_problem import arguments, write
from torch import Tensor, nn

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import ImageFolder
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.options import DeliveryOptions, Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import Trained, train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.search.knapsack import dynamic_programming
from gnnrl_lightning.search.shallow import without_least
from gnnrl_lightning.speed.inference import for_inference
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.trees import call


def trained_network(args: argparse.Namespace) -> Trained:
    """The network of these arguments, with a budget under which groups may go."""
    torch.set_num_threads(args.threads)
    data = ImageFolder(args.images, name="cifar10", holdout_size=1000)
    data.setup()
    task = Task(NetworkSpec(args.network, args.arguments), data, args.checkpoint)
    options = Options(
        CandidateOptions(calibration_examples=args.calibration),
        delivery=DeliveryOptions(calibration_examples=args.calibration),
        latency=LatencyOptions(batch_size=64),
    )
    return train(check(task, Budget(macs=args.budget, min_width=0), options))


def exactness(trained: Trained, widths: Tensor) -> float:
    """Largest relative difference of the pruned network from the masked dense one, in float64."""
    network = copy.deepcopy(trained.network).double()
    plan, inputs = trained.job.graph.plan(network, widths), trained.job.task.example(4).double()
    with torch.no_grad():
        pruned, reference = call(plan.apply(network), inputs), call(plan.mask(network), inputs)
    return float((pruned - reference).abs().max() / reference.abs().max())


def figures(trained: Trained, test_images: int, removed: list[int]) -> dict[str, Any]:
    """Figures of the dense network, and of the networks with and without whole groups going."""
    job, task = trained.job, trained.job.task
    graph, sensitivity = job.graph, trained.sensitivity
    development = torch.arange(0, len(task.data.test), 2)
    order = torch.randperm(len(development), generator=torch.Generator().manual_seed(0))
    test, pruner = task.data.test.subset(development[order[:test_images]]), trained.final_pruner
    networks: dict[str, nn.Module] = {"dense": trained.network}
    found: dict[str, Any] = {"dense": {"layers": layers(trained, graph.widths), "macs": 1.0}}
    limits = job.limits
    kept = dynamic_programming(graph, Budget(limits.budget.limits).on(graph), sensitivity)
    chosen = {"min_width 1": kept, "min_width 0": dynamic_programming(graph, limits, sensitivity)}
    chosen |= {f"without {number} groups": without_least(number, kept, limits, sensitivity) for number in removed}
    for name, widths in chosen.items():
        networks[name] = pruner.prune(pruner.plan(widths))
        found[name] = {
            "layers": layers(trained, widths),
            "macs": limits.costs(widths)["macs"] / limits.dense["macs"],
            "groups_gone": int((widths == 0).sum()),
            "groups_of_one_channel": int((widths == 1).sum()),
            "sensitivity": float(sensitivity(widths)),
            "difference_float64": exactness(trained, widths),
            "widths": widths.tolist(),
        }
    for name, network in networks.items():
        found[name]["top1_before_finetuning"] = task.figures(network, test)["top1"]
    fast = {name: for_inference(copy.deepcopy(each), pruner.layers) for name, each in networks.items()}
    for key, measured in (("latency_ms", networks), ("latency_fused_ms", fast)):
        for name, latency in zip(measured, job.timer.networks([*measured.values()]), strict=True):
            found[name][key] = latency
    removable = graph.removable.groups
    return {"groups": len(removable), "groups_that_may_go": int(removable.sum()), "networks": found}


def layers(trained: Trained, widths: Tensor) -> int:
    """Number of layers with MACs."""
    return int((trained.job.graph.cost.operator_macs(widths[None]) > 0).sum())


def main() -> None:
    """Measure one network at one budget."""
    parser = arguments(__doc__, candidates=1)
    parser.add_argument("--calibration", type=int, default=256, help="images of the refit (default 256)")
    parser.add_argument("--test", type=int, default=2000, help="test images (default 2000)")
    parser.add_argument(
        "--remove", type=int, nargs="*", default=[3, 6, 9, 12, 15], help="numbers of groups to remove in any case"
    )
    args = parser.parse_args()
    settings = {"calibration_images": args.calibration, "test_images": args.test, "threads": args.threads}
    write(args, settings | figures(trained_network(args), args.test, args.remove))


if __name__ == "__main__":
    main()
