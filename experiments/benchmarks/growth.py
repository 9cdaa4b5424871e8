"""Measure whether memory grows with the number of images, journal lines and evaluations.

    python experiments/benchmarks/growth.py --json experiments/results/growth.json

Each part runs in a process of its own, whose resident memory is read at twenty moments:

- `streamed`: all images of a `StreamingImageFolder` are decoded, batch by batch;
- `in_memory`: the images of an `ImageFolder` are decoded into memory, which takes their pixels and no more;
- `journal`: lines are appended to a journal, which is then read again;
- `evaluations`: random candidates of ResNet-20 are pruned, repaired and scored on the digits;
- `evaluations_few_kernels`: the same, but oneDNN keeps only the kernels of `FEW` shapes of convolutions: what else
  grows.

Memory is that of Linux (`/proc/self/status`): resident memory, and the part of it that glibc has given to the program
and not got back (`mallinfo2`). The rest of the heap is free blocks between those in use.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gnnrl_lightning.candidates.options import CandidateOptions
from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.data import Digits, ImageFolder, StreamingImageFolder
from gnnrl_lightning.data.examples import Draw
from gnnrl_lightning.evaluation.journal import Journal
from gnnrl_lightning.files import replacing
from gnnrl_lightning.job.checked import check
from gnnrl_lightning.job.options import Options
from gnnrl_lightning.job.task import Task
from gnnrl_lightning.job.trained import train
from gnnrl_lightning.networks.spec import NetworkSpec
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.search.options import SearchOptions
from gnnrl_lightning.speed.memory import keep_kernels
from gnnrl_lightning.training.options import TrainingOptions
from gnnrl_lightning.versions import versions

MOMENTS, SETTLED = 20, 5
"""Moments at which memory is read, and the one from which growth is counted: caches have filled then."""
SIZE, DISTINCT, BATCH = 16, 100, 200
"""Pixels of the images' sides, number of different files, images per batch."""

FEW = 16
"""Kernels of a small cache; a search keeps up to `gnnrl_lightning.speed.memory.KERNELS`."""

Part = Callable[[Path, int], Iterator[int]]


def write_images(root: Path, images: int) -> Path:
    """Write an image folder of two classes, most of whose files are links to a few; returns it."""
    drawn = np.random.default_rng(0)
    for split, count in (("train", images), ("test", DISTINCT)):
        for label in ("first", "second"):
            folder = root / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(count // 2):
                path = folder / f"{number:06}.png"
                if number < DISTINCT // 2:
                    Image.fromarray(drawn.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)
                else:
                    os.link(folder / f"{number % (DISTINCT // 2):06}.png", path)
    return root / "images"


def streamed(root: Path, images: int) -> Iterator[int]:
    """Decode all images once; yields how many are done."""
    data = StreamingImageFolder(str(write_images(root, images)), num_workers=0, size=SIZE, holdout_size=DISTINCT)
    train, _, _ = data.files()
    batches = torch.arange(len(train)).split(BATCH)
    for done, _ in enumerate(train.read(Draw(batch, None) for batch in batches), 1):
        yield done * BATCH


def in_memory(root: Path, images: int) -> Iterator[int]:
    """Decode all images into memory; yields before and after."""
    data = ImageFolder(str(write_images(root, images)))
    train, _, _ = data.files()
    yield 0
    held = train.in_memory()
    yield len(held)


def journal(root: Path, lines: int) -> Iterator[int]:
    """Append lines and read all; yields how many are written."""
    path = root / "journal.jsonl"
    written = Journal(path, start="growth")
    for number in range(lines):
        written.append({"widths": [number] * 20, "scores": {"top1": 0.5}, "seconds": 0.1})
        yield number + 1
    Journal(path, resume=True, start="growth")
    yield lines


def evaluations(root: Path, count: int) -> Iterator[int]:
    """Score random candidates of an untrained network; yields how many are scored."""
    torch.set_num_threads(1)
    keep_kernels()
    options = Options(
        pretraining=TrainingOptions(epochs=0),
        candidate=CandidateOptions(calibration_examples=16, repair="batch_norm"),
        search=SearchOptions(sensitivity=None),
    )
    task = Task(NetworkSpec("resnet20", {"num_classes": 10, "in_channels": 1}), Digits())
    trained = train(check(task, Budget(macs=0.5), options), RunFolder(root))
    limits, generator = trained.job.limits, torch.Generator().manual_seed(0)
    evaluate = trained.journalled(Journal(root / "evaluated.jsonl", start=trained.fingerprint))
    for done in range(1, count + 1):
        drawn = torch.rand(len(trained.job.graph.widths), generator=generator) * trained.job.graph.widths
        evaluate(limits.project(drawn.long().clamp(min=1)), "random")
        yield done


def evaluations_few_kernels(root: Path, count: int) -> Iterator[int]:
    """The same with a small cache of compiled kernels, whose capacity oneDNN reads before its first kernel."""
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = str(FEW)
    yield from evaluations(root, count)


PARTS: dict[str, tuple[Part, int]] = {
    "streamed": (streamed, 100_000),
    "in_memory": (in_memory, 100_000),
    "journal": (journal, 10_000),
    "evaluations": (evaluations, 500),
    "evaluations_few_kernels": (evaluations_few_kernels, 500),
}


def memory(field: str) -> float:
    """A figure of this process's memory, MiB: `VmRSS`, what it has now, or `VmHWM`, the most it has had."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (kib,) = [int(line.split()[1]) for line in lines if line.startswith(f"{field}:")]
    return kib / 1024


class _Allocated(ctypes.Structure):
    """The heap of glibc, bytes: `struct mallinfo2`."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def in_use() -> float:
    """Memory that glibc has given to this process and not got back, MiB: blocks of the heap, and those of their own."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Allocated
    found = library.mallinfo2()
    return (found.uordblks + found.hblkhd) / 2**20


def measured(name: str, count: int, results: Connection) -> None:
    """Run a part in this process and send its figures."""
    part, found, began = PARTS[name][0], list[tuple[int, float, float]](), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for done in part(Path(folder), count):
            if done * MOMENTS >= count * len(found) or done == count:
                found.append((done, round(memory("VmRSS"), 1), round(in_use(), 1)))
    settled = found[min(SETTLED, len(found) - 2)]
    results.send(
        {
            "count": count,
            "seconds": round(time.perf_counter() - began, 1),
            "memory_mib": [moment[:2] for moment in found],
            "in_use_mib": [(moment[0], moment[2]) for moment in found],
            "peak_mib": round(memory("VmHWM"), 1),
            "growth_mib": round(found[-1][1] - settled[1], 1),
            "growth_in_use_mib": round(found[-1][2] - settled[2], 1),
            "growth_from": settled[0],
        }
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the images, lines and evaluations")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--json", type=Path, help="file of the results; a later call replaces what it measures")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if options.json is not None and options.json.is_file():
        found = json.loads(options.json.read_text(encoding="utf-8"))["parts"]
    for name in PARTS if options.only is None else [options.only]:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=measured, args=(name, int(options.share * PARTS[name][1]), theirs))
        process.start()
        theirs.close()
        found[name] = ours.recv()
        process.join()
        print(
            f"{name:<24}{found[name]['count']:>7,}: {found[name]['growth_mib']:+.1f} MiB, "
            f"{found[name]['growth_in_use_mib']:+.1f} of it in use",
            flush=True,
        )
        if options.json is not None:
            with replacing(options.json) as partial:
                partial.write_text(
                    json.dumps({"parts": found, "versions": versions()}, indent=1) + "\n", encoding="utf-8"
                )


if __name__ == "__main__":
    main()
