"""Trace, cost, prune and train networks of torchvision, timm and this package, and others by name.

    python experiments/benchmarks/topology.py --json experiments/results/topology.json
    python experiments/benchmarks/topology.py --json experiments/results/topology.json --summary
    python experiments/benchmarks/topology.py --networks resnet50 smp/Unet/resnet18 --again

Each network runs in its own process, so that its memory can be measured. Rows are written to the JSON file as they
finish, and rows that are already in the file are not measured again without `--again`. The columns of a row:

    trace_seconds, self_test_seconds
        processor seconds of the process (`time.process_time`, one thread), which exclude other jobs on the machine; for
        the trace without its self-test, and for the self-test
    trace_gib
        peak memory of the process during the trace, minus its memory with the network loaded
    smallest_macs
        share of the dense MACs that is left with one channel in each index set
    difference, macs_exact, params_exact, trains
        at three random widths: largest difference between pruned and masked outputs (float64, relative to the largest
        output), costs compared with `FlopCounterMode` and the tensors, and whether one training step works
    reaches
        whether 30 % of the MACs can be met
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from topology_networks import DETECTORS, OTHERS, OWN, TIMM, build
from torch import Tensor, nn

import gnnrl_lightning
from gnnrl_lightning import ComputationGraph
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.surgery.exactness import TOLERANCE, randomised
from gnnrl_lightning.surgery.selftest import count_macs
from gnnrl_lightning.trees import tensors

SMALL_SIZES = (32, 64, 96, 128, 160, 224, 299)
PLAIN = ("cifar_", "resnet", "mobilenet", "vgg", "densenet")
"""Name prefixes of networks in which only input and logits may be frozen."""
CANDIDATES = 3
SHARE = 0.3
"""Share of the MACs that a network should be able to meet."""
MAX_SECONDS, MAX_GIB = 10.0, 2.0


def measure(name: str) -> dict[str, Any]:
    """One row of the table."""
    network, shape = build(name)
    network.eval()
    example = torch.randn(1, *shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    traced = timed(lambda: gnnrl_lightning.trace(network, example, self_test=False), time.process_time)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    warm = timed(lambda: gnnrl_lightning.trace(network, example, self_test=False), time.process_time)
    start = time.process_time()
    graph = gnnrl_lightning.trace(network, example)
    tested = max(time.process_time() - start - warm, 0.0)
    dense = int(graph.cost.macs(graph.widths))
    row = {
        "network": name,
        "params": sum(parameter.numel() for parameter in network.parameters()),
        "macs": dense,
        "trace_seconds": round(traced, 2),
        "self_test_seconds": round(tested, 2),
        "trace_gib": round(memory, 2),
        "groups": len(graph.groups),
        "smallest_macs": round(int(graph.cost.macs(graph.smallest)) / dense, 4),
        "frozen": sorted({f"{item.name}: {item.operator} {item.reason}" for item in graph.frozen}),
    }
    return row | cut(graph, network, example) | {"reaches": reaches(graph)}


def cut(graph: ComputationGraph, network: nn.Module, example: Tensor) -> dict[str, Any]:
    """Exactness of outputs and costs, and one training step, at random widths."""
    generator = torch.Generator().manual_seed(0)
    small = smallest_input(network, example)
    doubled = randomised(network, generator).eval()
    worst, macs_exact, params_exact, trains = 0.0, True, True, True
    for _ in range(CANDIDATES):
        share = torch.rand(len(graph.groups), generator=generator)
        widths = (1 + (share * graph.widths).long()).clamp(graph.smallest, graph.widths)
        plan = graph.plan(network, widths)
        pruned = plan.apply(network)
        macs_exact &= count_macs(pruned, (example,)) == int(graph.cost.macs(widths))
        params = sum(parameter.numel() for parameter in pruned.parameters())
        params_exact &= params == int(graph.cost.params(widths))
        trains &= training_step(pruned, small)
        del pruned
        worst = max(worst, difference(plan, doubled, small.double()))
    return {"difference": worst, "macs_exact": macs_exact, "params_exact": params_exact, "trains": trains}


def smallest_input(network: nn.Module, example: Tensor) -> Tensor:
    """Two images of the smallest size that the network accepts, also in training mode."""
    for side in SMALL_SIZES:
        if side >= example.shape[-1]:
            break
        inputs = torch.randn(2, *example.shape[1:-2], side, side)
        try:
            with torch.no_grad():
                network.eval()(inputs)
                network.train()(torch.cat([inputs, inputs]))
            return inputs
        except (RuntimeError, AssertionError, ValueError):
            continue
        finally:
            network.eval()
    return torch.cat([example, example.flip(0)])


def difference(plan: Any, doubled: nn.Module, inputs: Tensor) -> float:
    """Largest difference between pruned and masked outputs, relative to the largest output."""
    with torch.no_grad():
        pairs = zip(tensors(plan.apply(doubled)(inputs)), tensors(plan.mask(doubled)(inputs)), strict=True)
        return max(float((small - reference).abs().max() / reference.abs().max()) for small, reference in pairs)


def training_step(network: nn.Module, inputs: Tensor) -> bool:
    """Whether all parameters are finite after a training step (forward, backward, optimiser)."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)
    outputs = tensors(network(torch.cat([inputs, inputs])))
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
    optimizer.step()
    return all(bool(parameter.isfinite().all()) for parameter in network.parameters())


def reaches(graph: ComputationGraph) -> bool:
    """Whether the network can be pruned to `SHARE` of its MACs."""
    try:
        limits = Budget(macs=SHARE).on(graph)
    except gnnrl_lightning.UserError:
        return False
    return bool(limits.met(limits.project(graph.widths)))


def timed(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Processor seconds of a call."""
    start = clock()
    function()
    return clock() - start


def in_own_process(name: str, threads: int) -> dict[str, Any]:
    """Run `measure` in a new process; errors are stored in the row."""
    command = [sys.executable, __file__, "--one", name, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"network": name, "error": done.stderr.strip().splitlines()[-1] if done.stderr else "killed"}
    return json.loads(done.stdout.splitlines()[-1])


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    if "error" in row:
        return f"{row['network']:32} {row['error']}"
    return (
        f"{row['network']:32} {row['trace_seconds']:6.1f} s {row['self_test_seconds']:6.1f} s "
        f"{row['trace_gib']:5.2f} GiB "
        f"{row['groups']:4} groups  smallest {row['smallest_macs']:.4f}  difference {row['difference']:.0e}  "
        f"MACs {'exact' if row['macs_exact'] else 'WRONG'}  params {'exact' if row['params_exact'] else 'WRONG'}  "
        f"{'trains' if row['trains'] else 'DOES NOT TRAIN'}  {'reaches' if row['reaches'] else 'DOES NOT REACH'}  "
        f"{len(row['frozen'])} frozen"
    )


def summary(rows: list[dict[str, Any]]) -> str:
    """Claims about all rows, with exceptions."""
    done = [row for row in rows if "error" not in row]
    claims: dict[str, Callable[[dict[str, Any]], bool]] = {
        f"pruned is masked dense to {TOLERANCE:.0e}": lambda row: row["difference"] <= TOLERANCE,
        "MACs and parameters exact": lambda row: row["macs_exact"] and row["params_exact"],
        "pruned networks train": lambda row: row["trains"],
        f"{SHARE:.0%} of the MACs reached": lambda row: row["reaches"],
        f"traced in {MAX_SECONDS:.0f} s": lambda row: row["trace_seconds"] < MAX_SECONDS,
        f"traced in {MAX_GIB:.0f} GiB": lambda row: row["trace_gib"] < MAX_GIB,
    }
    lines = [f"{len(done)} of {len(rows)} networks traced" + failing([row for row in rows if "error" in row])]
    for claim, holds in claims.items():
        exceptions = [row for row in done if not holds(row)]
        lines.append(f"{claim}: {len(done) - len(exceptions)} of {len(done)}" + failing(exceptions))
    plain = [row for row in done if row["network"].startswith(PLAIN)]
    more = [row for row in plain if len(row["frozen"]) > 2]
    lines.append(
        f"only input and logits frozen: {len(plain) - len(more)} of {len(plain)} {'*, '.join(PLAIN)}*{failing(more)}"
    )
    for column in ("trace_seconds", "self_test_seconds", "trace_gib"):
        worst = max(done, key=lambda row: row[column])
        lines.append(f"most {column}: {worst[column]} ({worst['network']})")
    return "\n".join(lines)


def failing(rows: list[dict[str, Any]]) -> str:
    """Names of the networks that are exceptions."""
    return "; not " + ", ".join(row["network"] for row in rows) if rows else ""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", help="names; default: all")
    parser.add_argument("--json", type=Path, help="output file; existing rows are kept")
    parser.add_argument("--again", action="store_true", help="measure existing rows again")
    parser.add_argument("--summary", action="store_true", help="only summarise the file")
    parser.add_argument("--threads", type=int, default=1, help="threads per process")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    rows = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    known = set() if args.again else {row["network"] for row in rows if "error" not in row}
    classifiers = torchvision.models.list_models(module=torchvision.models)
    names = args.networks or [*OWN, *classifiers, *OTHERS, *(f"detection/{name}" for name in DETECTORS)]
    names += [] if args.networks else [f"timm/{name}" for name in TIMM]
    for name in [] if args.summary else names:
        if name not in known:
            rows = [row for row in rows if row["network"] != name] + [in_own_process(name, args.threads)]
            print(line(rows[-1]), flush=True)
            write(args.json, rows)
    write(args.json, rows)
    print(summary(rows))


def write(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write the rows measured so far."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
