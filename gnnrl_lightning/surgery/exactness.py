"""Comparison of a pruned network with the masked dense one, in float64 with random weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gnnrl_lightning.errors import UserError, first_line
from gnnrl_lightning.surgery.constants import DOES_NOT_FOLLOW
from gnnrl_lightning.surgery.surgery import NOTHING, Cut, Dependents, mask, prune
from gnnrl_lightning.tracing.axes import Selection
from gnnrl_lightning.tracing.program.copies import converted_copy, shared_copy
from gnnrl_lightning.tracing.program.export import Inputs, run, two_examples
from gnnrl_lightning.tracing.program.sources import in_line
from gnnrl_lightning.trees import map_tensors, tensors

TOLERANCE = 1e-9
"""Maximum difference of pruned and masked outputs, relative to the largest output, in float64."""


def exactness_fault(
    network: nn.Module,
    inputs: Inputs,
    cuts: Mapping[str, Cut],
    selection: Selection,
    generator: torch.Generator,
    dependents: Dependents = NOTHING,
) -> str | None:
    """Return how the pruned network differs from the masked dense one, in float64 with random weights, or None."""
    doubled, given, reference = network, inputs, list[Tensor]()
    try:
        for doubled, inputs in _cases(network, given, generator):
            reference = _outputs(mask(doubled, cuts, selection, dependents), inputs)
            if all(bool(tensor.isfinite().all()) for tensor in reference):
                break
        small = _outputs(prune(doubled, cuts, selection, dependents), inputs)
    except Exception as error:  # the user's code may raise anything
        _check_doubled(doubled, inputs)
        return f"{DOES_NOT_FOLLOW} ({first_line(error)[:160]})"
    if len(small) != len(reference):
        return f"the pruned network returns {len(small)} tensors instead of {len(reference)}"
    return next((fault for pair in zip(small, reference, strict=True) if (fault := _difference(*pair))), None)


def _check_doubled(network: nn.Module, inputs: Inputs) -> None:
    """Refuse a network that fails in float64 with nothing pruned: it cannot be tested so."""
    try:
        with _float64():
            run(shared_copy(network), inputs)
    except Exception as error:
        raise UserError(
            f"{type(network).__name__} fails in float64 with random weights and inputs{in_line(error)}: "
            f"{first_line(error)}; let its code follow the type of its input, or give self_test=False"
        ) from error


def _difference(mine: Tensor, theirs: Tensor) -> str | None:
    """Return how an output of the pruned network differs from the masked dense network's, or None."""
    if mine.shape != theirs.shape:
        return f"the pruned network's output has the shape {tuple(mine.shape)} instead of {tuple(theirs.shape)}"
    if not mine.numel():
        return None
    finite = theirs[theirs.isfinite()]
    if not finite.numel():
        return "the masked dense network's output is not finite for any example: give one for which it is"
    scale = finite.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    same = (mine == theirs) | (mine.isnan() & theirs.isnan())
    difference = float(torch.where(same, 0.0, (mine - theirs).abs()).max() / scale)
    if not difference <= TOLERANCE:
        return f"the pruned network's output is {difference:.1e} away from the masked dense network's"
    return None


def _random_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Replace a float tensor by float64 noise: an example of zeros would hide all differences."""
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.device)


def _cases(network: nn.Module, inputs: Inputs, generator: torch.Generator) -> Iterator[tuple[nn.Module, Inputs]]:
    """Networks and inputs of a test, to be tried until the outputs are finite: at last with the network's own buffers.

    Its code may need them, such as the lower limit of a square root.
    """
    for buffers in (True, False):
        doubled = randomised(network, generator, buffers)
        for given in _examples(inputs, generator):
            yield doubled, given


def _examples(inputs: Inputs, generator: torch.Generator) -> Iterator[Inputs]:
    """Inputs of a test, to be tried until the outputs are finite: noise, the given ones, two examples of noise."""

    def noise(tensor: Tensor) -> Tensor:
        return _random_like(tensor, generator)

    yield map_tensors(noise, inputs)
    yield map_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, inputs)
    yield map_tensors(noise, two_examples(inputs))


def randomised(network: nn.Module, generator: torch.Generator, buffers: bool = True) -> nn.Module:
    """Return a float64 copy with random weights, without dead channels and zero scales, so that differences show.

    Other tensors that modules hold have the same values: the code may have computed one from another.

    Args:
        network: The network.
        generator: Generator of the weights.
        buffers: Whether buffers are random, too.
    """
    kept = set[str]() if buffers else {name for name, _ in network.named_buffers()}

    def random(name: str, tensor: Tensor) -> Tensor:
        if (not name or name in kept) and (tensor.is_floating_point() or tensor.is_complex()):
            return tensor.to(torch.promote_types(tensor.dtype, torch.float64))
        if tensor.is_complex():
            return torch.complex(random(name, tensor.real), random(name, tensor.imag))
        if not tensor.is_floating_point():
            return tensor.clone()
        noise = torch.empty(tensor.shape, dtype=torch.float64)
        if tensor.dim() > 1:
            noise.normal_(generator=generator).mul_((2 / max(tensor[0].numel(), 1)) ** 0.5)
        elif name.endswith(("bias", "mean")):
            noise.normal_(std=0.1, generator=generator)
        else:
            noise.uniform_(0.5, 1.5, generator=generator)
        if tensor.dim() > 1 and not tensor.is_meta and bool((tensor >= 0).all() & tensor.any()):
            noise.abs_()  # the code may take the logarithm of what a bank of filters gives
        return noise.to(tensor.device)

    return converted_copy(network, lambda name, tensor: random(name, tensor.detach()))


@contextmanager
def _float64() -> Iterator[None]:
    """Tensors that the code makes without a type have that of the weights, as they have outside this test."""
    former = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(former)


def _outputs(network: nn.Module, inputs: Inputs) -> list[Tensor]:
    torch.manual_seed(0)  # of code that adds noise
    with _float64():
        found = tensors(run(network, inputs))
    return [tensor.to(torch.complex128 if tensor.is_complex() else torch.float64) for tensor in found]
