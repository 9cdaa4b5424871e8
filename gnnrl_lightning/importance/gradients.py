"""Importance criteria based on changes of the loss.

The loss is the objective's, with the targets that come with the calibration. Inputs without targets are given targets
drawn from the network's own predictions, always the same ones: the gradients of a confident network at its most likely
class say little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gnnrl_lightning.calibration.observe import Call, ContractionObserver
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.importance.context import Calibration, ImportanceContext, needed
from gnnrl_lightning.networks.modes import eval_mode
from gnnrl_lightning.objective import Objective
from gnnrl_lightning.trees import Tree, call, count, device_of, take, to_device

GRADIENT_BATCH = 32
"""Examples of one gradient."""


def taylor(network: nn.Module, parameters: Mapping[str, Tensor], calibration: Calibration | None) -> dict[str, Tensor]:
    """Squared first-order change of the loss when a weight is removed, `(w dL/dw)^2`, summed over batches.

    Source: Molchanov et al. (CVPR 2019), equation 8.

    Raises:
        UserError: There is no calibration, or the outputs do not fit the objective.
    """
    weights = {name: tensor.detach().clone().requires_grad_() for name, tensor in parameters.items()}
    total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    with eval_mode(network), torch.enable_grad():
        for inputs, targets in _batches(network, calibration):
            loss = needed(calibration).objective.loss(_run(network, weights, inputs), targets)
            gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                total[name] += (weight * gradient).detach().square()
    return total


def fisher(context: ImportanceContext) -> list[Tensor]:
    """Diagonal of the empirical Fisher matrix of the channels' masks, `sum_n (dL_n / dm)^2`.

    The mask m multiplies a channel wherever a convolution or linear layer reads it; the gradients of one example are
    summed over all of them before they are squared.

    Source: Group Fisher (Liu et al., ICML 2021), equation 8; without its division by memory.

    Raises:
        UserError: There is no calibration, the outputs do not fit the objective, or no layer reads a group.
    """
    channels = sum(context.sizes)
    numbers = {
        name: torch.cat([axis.channels for axis in layer.blocks])
        for name, layer in context.layers.items()
        if layer.blocks
    }
    _check_read(context, numbers)
    total = torch.zeros(channels, dtype=torch.float64)
    objective = needed(context.calibration).objective
    with eval_mode(context.network), torch.enable_grad():
        for inputs, targets in _batches(context.network, context.calibration):
            gradients = _mask_gradients(context.network, numbers, channels, inputs, targets, objective)
            total += gradients.square().sum(0)
    return context.split(total)


def _mask_gradients(
    network: nn.Module,
    numbers: Mapping[str, Tensor],
    channels: int,
    inputs: Tree,
    targets: Tree,
    objective: Objective,
) -> Tensor:
    """Gradients of each example's loss by masks that multiply channels wherever a layer reads them.

    Args:
        network: The network, in evaluation mode; it is not changed.
        numbers: Weight name -> number of the channel at each position of the layer's input `(n,)`; -1 for none.
        channels: Number of channels.
        inputs: Inputs of the network.
        targets: Their targets.
        objective: Gives the loss.

    Returns:
        `(examples, channels)` float64, on the CPU, summed over the layers that read a channel.

    Raises:
        UserError: The loss has none: the network computes its outputs without them, or the loss ends them.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    detached = {id(tensor): tensor.detach() for tensor in parameters.values()}  # tied parameters remain one tensor
    weights = {name: detached[id(tensor)] for name, tensor in parameters.items()}
    masks: list[tuple[str, Tensor]] = []

    def insert_mask(name: str, call: Call) -> Tensor:
        x = call["input"]
        last = call["weight"].dim() == 2
        mask = x.new_ones((len(x), x.shape[-1] if last else x.shape[1]), requires_grad=True)
        masks.append((name, mask))
        shape = (len(x), *(1,) * (x.dim() - 2), -1) if last else (len(x), -1, *(1,) * (x.dim() - 2))
        return x.clone() * mask.reshape(shape)  # cloned: later operators may modify x in place

    examples = count(inputs)
    summed = torch.zeros(examples, channels, dtype=torch.float64)
    observer = ContractionObserver({name: weights[name] for name in numbers}, insert_mask)
    with observer:
        outputs = _run(network, weights, inputs)
    value = examples * objective.loss(outputs, targets)
    if not value.requires_grad:
        raise UserError("the loss of the network's outputs has no gradients: expected outputs with gradients")
    gradients = torch.autograd.grad(value, [mask for _, mask in masks], materialize_grads=True)
    for (name, _), gradient in zip(masks, gradients, strict=True):
        each = gradient.reshape(examples, -1, gradient.shape[1]).sum(1).double().cpu()
        free = numbers[name] >= 0
        summed.index_add_(1, numbers[name][free], each[:, free])
    return summed


def _check_read(context: ImportanceContext, numbers: Mapping[str, Tensor]) -> None:
    read = torch.zeros(sum(context.sizes) + 1, dtype=torch.bool)
    for along in numbers.values():
        read[along] = True
    for group, part in zip(context.graph.groups, context.split(read[:-1]), strict=True):
        if not bool(part.all()):
            raise UserError(f"importance fisher: no convolution or linear layer reads {group.name}; choose another")


def _batches(network: nn.Module, calibration: Calibration | None) -> Iterator[tuple[Tree, Tree]]:
    """Inputs and targets, `GRADIENT_BATCH` at a time."""
    given = needed(calibration)
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count(given.inputs), GRADIENT_BATCH):
        batch = take(given.inputs, slice(start, start + GRADIENT_BATCH))
        if given.targets is None:
            with torch.no_grad():
                drawn = given.objective.draw(call(network, batch), generator)
            yield batch, drawn
        else:
            yield batch, to_device(take(given.targets, slice(start, start + GRADIENT_BATCH)), device_of(batch))


def _run(network: nn.Module, weights: Mapping[str, Tensor], inputs: Tree) -> Tree:
    """Outputs of the network with other weights."""
    if isinstance(inputs, dict):
        return functional_call(network, dict(weights), (), inputs)
    return functional_call(network, dict(weights), inputs if isinstance(inputs, tuple) else (inputs,))
