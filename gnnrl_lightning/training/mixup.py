"""Mixup: training on weighted means of two examples."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.seeds import derived_seed, generator_for
from gnnrl_lightning.trees import Tree, count, map_tensors, take, tensors


@dataclass(frozen=True)
class Mixed:
    r"""A batch of weighted means :math:`\lambda x_i + (1 - \lambda) x_{\pi(i)}` with one weight, at least one half.

    Args:
        inputs: The means of the network inputs.
        targets: Targets of the examples i, which have the larger weight.
        others: Targets of the examples pi(i).
        weight: Lambda, from 0.5 to 1.
    """

    inputs: Tree
    targets: Tree
    others: Tree
    weight: float

    def loss(self, objective: Objective, outputs: Tree) -> Tensor:
        """Weighted mean of the losses for both targets, shape `()`.

        For the cross-entropy it is the loss for the mean of the one-hot targets; for the squared error it differs from
        the loss for the mean target by a constant.
        """
        loss = objective.loss(outputs, self.targets)
        if self.weight == 1:
            return loss
        return self.weight * loss + (1 - self.weight) * objective.loss(outputs, self.others)


def mix(inputs: Tree, targets: Tree, alpha: float, *key: int) -> Mixed:
    r"""Mix each example of a batch with another one, :math:`\lambda \sim Beta(\alpha, \alpha)`.

    A weight below one half is replaced by its complement, which exchanges the roles of the two examples.

    Args:
        inputs: Floating-point network inputs.
        targets: Their targets.
        alpha: Parameter of the Beta distribution, above 0: 0.2 leaves most batches nearly unmixed, 1 is uniform.
        *key: Key of the random numbers, see `gnnrl_lightning.seeds`.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, https://arxiv.org/abs/1710.09412.
    """
    drawn = random.Random(derived_seed(*key)).betavariate(alpha, alpha)
    weight = max(drawn, 1 - drawn)
    partners = torch.randperm(count(targets), generator=generator_for(*key))
    mixed = map_tensors(lambda tensor: weight * tensor + (1 - weight) * tensor[partners.to(tensor.device)], inputs)
    return Mixed(mixed, targets, take(targets, partners), weight)


def check_mixable(inputs: Tree) -> None:
    """Refuse inputs of which there are no weighted means.

    Raises:
        UserError: A tensor is not floating-point.
    """
    for tensor in tensors(inputs):
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"mixup with inputs of type {kind}: expected floating-point inputs; set mixup to 0")
