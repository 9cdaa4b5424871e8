"""Seeds and generators derived from a key alone; all random numbers of the package come from them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng


def generator_for(*key: int) -> torch.Generator:
    """Return a CPU generator that depends only on `key`, e.g. (seed, epoch, batch).

    Its state need not be saved: a resumed run derives the same generator again. Keys that differ in any position
    give independent streams (`numpy.random.SeedSequence`).

    Args:
        key: Non-negative integers.
    """
    return torch.Generator().manual_seed(derived_seed(*key))


def derived_seed(*key: int) -> int:
    """Return a 63-bit seed that depends only on `key` (non-negative integers)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_generators(seed: int, devices: bool = False) -> None:
    """Seed the global generators of Python, NumPy and PyTorch.

    Args:
        seed: A number of at most 64 bits.
        devices: Whether to seed PyTorch's generators of devices, too, and not that of the CPU alone.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    (torch.manual_seed if devices else torch.default_generator.manual_seed)(seed)


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Restore the global generators of Python, NumPy and PyTorch after the block, those of devices if they are used."""
    with isolate_rng(include_cuda=torch.cuda.is_initialized()):
        yield
