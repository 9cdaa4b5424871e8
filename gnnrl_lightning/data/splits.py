"""Random and stratified splits."""

import torch
from torch import Tensor

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import generator_for


def stratified_split(labels: Tensor, held: int, seed: int) -> tuple[Tensor, Tensor]:
    r"""Hold out a fixed number of images, from each class in proportion to its size.

    Class c contributes :math:`\lfloor h\,n_c/N \rfloor` images, and the classes with the largest remainders (ties:
    the smaller label) one more each, until `held` is reached. The seed determines the images of each class.

    Args:
        labels: Class indices, int64, shape `(N,)`.
        held: Number of images h to hold out, 1 <= h < N.
        seed: Seed of the random choice.

    Returns:
        Remaining indices and held-out indices, int64, each in ascending order.

    Raises:
        UserError: `held` leaves one of the two parts empty.
    """
    total = len(labels)
    if not 1 <= held < total:
        raise _refused(held, total, "images")
    counts = torch.bincount(labels)
    shares, remainders = held * counts // total, held * counts % total
    missing = held - int(shares.sum())
    shares[torch.argsort(remainders, descending=True, stable=True)[:missing]] += 1
    generator = generator_for(seed)
    chosen = torch.zeros(total, dtype=torch.bool)
    for label, share in enumerate(shares.tolist()):
        members = torch.nonzero(labels == label).flatten()
        chosen[members[torch.randperm(len(members), generator=generator)[:share]]] = True
    return torch.nonzero(~chosen).flatten(), torch.nonzero(chosen).flatten()


def random_split(examples: int, held: int, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out a fixed number of examples.

    Args:
        examples: Number of examples N.
        held: Number to hold out, 1 <= held < N.
        seed: Seed of the random choice.

    Returns:
        Remaining indices and held-out indices, int64, each in ascending order.

    Raises:
        UserError: `held` leaves one of the two parts empty.
    """
    if not 1 <= held < examples:
        raise _refused(held, examples, "examples")
    order = torch.randperm(examples, generator=generator_for(seed))
    return order[held:].sort().values, order[:held].sort().values


def _refused(held: int, total: int, unit: str) -> UserError:
    expected = f"a holdout_size that makes it 1 to {total - 1}" if total > 1 else f"at least 2 {unit}"
    return UserError(f"cannot hold out {held} of {total} {unit}: expected {expected}")
