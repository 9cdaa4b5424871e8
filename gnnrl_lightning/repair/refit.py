"""Layer-by-layer refitting of a pruned network to the inputs that its layers actually read.

The dense network runs once, and its layers' outputs are recorded at sampled positions. Then the pruned network runs
once, and each weight is replaced, just before it is used, by the least-squares fit of the dense outputs y to the
layer's actual inputs x,

    W, b = argmin |W x + b - y|^2 + l |W - W_0|^2,

where W_0 is the weight after surgery and l is as in `reconstruction`. Depthwise and grouped convolutions are fitted
block by block. Layers that mix the positions of each channel (token mixers) stay as they are: fewer channels are fewer
samples there. The last layer of a residual branch is fitted when its output (after its batch norm, if it has one) is
added to the shortcut. Its target is the dense network's *sum* minus the pruned network's shortcut, so it compensates
errors of earlier layers. (If another operator also reads its output, the target is its own dense output.) A layer
without inputs gives the mean of its target.

A batch norm that is the only reader of a layer keeps its scale, so the fit remains optimal. Its statistics become those
of its new inputs, and its weight and bias compensate: the outputs are the same in evaluation mode and nearly the same
in training mode.

Memory: the calibration examples pass in one batch. One example takes the memory of its largest activations, plus
4 * n bytes for each output channel of the network and about 25 * n for each of its layers; n positions are sampled
from each example, 48 of at most 1,024 examples: 0.4 MB + 0.5 MB for ResNet-56. Gram matrices are at most `LONGEST_GRAM`
wide; layers with longer inputs are fitted in the space of the samples. The dense network's outputs do not depend on the
candidate: `record` computes them once for all.

Sources: Zhang et al. (TPAMI 2016) and He et al. (ICCV 2017) for fitting to the pruned network's own inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnnrl_lightning.calibration.least_squares import Fit, fit_to_samples
from gnnrl_lightning.calibration.moments import POSITIONS
from gnnrl_lightning.calibration.observe import (
    Call,
    Patches,
    forward_form,
    forward_weight,
    named_tensors,
    named_weights,
    places,
)
from gnnrl_lightning.calibration.precision import activations_in
from gnnrl_lightning.networks.modes import eval_mode
from gnnrl_lightning.repair.residuals import LayerHooks, Rerun, ResidualObserver
from gnnrl_lightning.surgery.layers import Layer
from gnnrl_lightning.surgery.vanished import WithoutInputs
from gnnrl_lightning.tracing.axes import Selection
from gnnrl_lightning.trees import Tree, call, device_of

SAMPLES = 1024 * POSITIONS
"""Maximum number of sampled positions of a layer: more examples say more than more positions of the same ones."""

SMALLEST_SCALE = 0.05
"""Minimum scale of a batch norm, relative to its mean scale, if a sum is fitted through it."""


@dataclass
class _Target:
    """Target of one layer at sampled positions: the dense network's outputs, or their sum with the shortcut.

    Attributes:
        places: Sizes of the input of the dense network's layer, see `places`.
        patches: The positions.
        values: The outputs there.
        is_sum: Whether they are sums.
    """

    places: tuple[int, ...]
    patches: Patches
    values: Tensor
    is_sum: bool = False


@dataclass(frozen=True)
class Recording:
    """Targets of all layers of a pruned network: the recorded outputs of the dense network.

    Attributes:
        targets: Weight name -> outputs of the dense network at sampled positions.
        epsilons: Weight name -> epsilon of the batch norm after the layer.
        inputs: The calibration inputs of the recording.
    """

    targets: Mapping[str, _Target]
    epsilons: Mapping[str, float]
    inputs: Tree

    @property
    def bytes(self) -> int:
        """Memory of the recording without the inputs, bytes."""
        return sum(target.values.nbytes + target.patches.nbytes for target in self.targets.values())


def refit(
    pruned: nn.Module,
    layers: Mapping[str, Layer],
    selection: Selection,
    recording: Recording,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Refit every layer of the pruned network, in place; see the module's docstring.

    Args:
        pruned: The pruned network, as returned by surgery.
        layers: Layers of the dense network.
        selection: The kept channels.
        recording: Outputs of the dense network, see `record`.
        dtype: Precision of the pruned network's activations and of the products summed in Gram matrices. Weights,
            statistics and the linear systems remain in float32.

    Raises:
        RuntimeError: The pruned network does not add the same outputs to shortcuts as the dense network.
    """
    with torch.no_grad(), activations_in(dtype, device_of(recording.inputs)):
        fitter = _Fitter(pruned, layers, selection, recording, dtype)
        weights = {name: tensor for name, tensor in fitter.tensors.items() if name in recording.targets}
        observer = ResidualObserver(weights, fitter, fitter.constants)
        with eval_mode(pruned), observer:
            call(pruned, recording.inputs)
        if fitter.waiting is not None:
            raise RuntimeError("the pruned network does not add the same outputs to shortcuts as the dense network")


def positions_for(examples: int) -> int:
    """Number of positions to sample from each of so many examples, at most `SAMPLES` in all where possible."""
    return max(1, min(POSITIONS, SAMPLES // examples))


def record(dense: nn.Module, layers: Mapping[str, Layer], inputs: Tree, per_example: int = POSITIONS) -> Recording:
    """Run the dense network and record its layers' outputs.

    Args:
        dense: The dense network; it runs in evaluation mode and is not changed.
        layers: Its layers; layers whose weight several operators share are not refitted.
        inputs: Calibration inputs, see `gnnrl_lightning.trees.call`.
        per_example: Number of positions sampled from each example.
    """
    layers = {name: layer for name, layer in layers.items() if not layer.shared}
    recorder = _Recorder(layers, per_example)
    with torch.no_grad(), eval_mode(dense), ResidualObserver(named_weights(dense, layers), recorder):
        call(dense, inputs)
    return Recording(recorder.all_targets(), recorder.epsilons, inputs)


class _Recorder(LayerHooks):
    """Records what the layers of the dense network compute."""

    def __init__(self, layers: Mapping[str, Layer], per_example: int) -> None:
        self.layers, self.per_example, self.generator = layers, per_example, torch.Generator().manual_seed(0)
        self.targets: dict[str, _Target] = {}
        self.epsilons: dict[str, float] = {}
        self.places: dict[str, tuple[int, ...]] = {}
        self.patches: dict[str, Patches] = {}
        self.sums: dict[str, Tensor] = {}
        self.read: set[str] = set()

    def before(self, name: str, call: Call) -> bool:
        self.places[name] = places(call["input"], call["weight"].dim() == 2)
        self.patches[name] = Patches(forward_form(call), self.per_example, self.generator)
        return False

    def after(self, name: str, output: Tensor) -> None:
        self.targets[name] = _Target(self.places[name], self.patches[name], self.patches[name].outputs(output))

    def at_norm(self, name: str, eps: float) -> None:
        self.epsilons[name] = eps

    def at_sum(self, name: str, output: Tensor, other: Tensor, rerun: Rerun) -> None:
        # Through a batch norm only if it is the only reader according to the trace.
        if (name in self.epsilons) == bool(self.layers[name].norm):
            self.sums[name] = self.patches[name].outputs(output + other)

    def at_other(self, name: str) -> None:
        self.read.add(name)

    def all_targets(self) -> dict[str, _Target]:
        """The outputs, or sums of those that nothing else reads: an output that others read must not change."""
        alone = self.sums.keys() - self.read
        return self.targets | {
            name: _Target(self.places[name], self.patches[name], self.sums[name], True) for name in alone
        }


class _Fitter(LayerHooks):
    """Fits the layers of the pruned network during its forward pass."""

    def __init__(
        self,
        pruned: nn.Module,
        layers: Mapping[str, Layer],
        selection: Selection,
        recording: Recording,
        dtype: torch.dtype,
    ) -> None:
        self.layers, self.selection, self.dtype = layers, selection, dtype
        self.targets, self.epsilons = dict(recording.targets), recording.epsilons
        self.tensors = named_tensors(pruned)
        modules = dict(pruned.named_modules(remove_duplicate=False))
        paths = {name: modules.get(name.rpartition(".")[0]) for name in recording.targets}
        self.constants = {name: module for name, module in paths.items() if isinstance(module, WithoutInputs)}
        self.waiting: Call | None = None

    def before(self, name: str, call: Call) -> bool:
        """Fit the layer now, or return True to defer it until its output is added to the shortcut."""
        target = self.targets[name]
        if places(call["input"], target.patches.linear) != target.places:
            self.targets.pop(name)  # its positions are channels of another layer, of which some are gone
            return False
        if target.is_sum:
            self.waiting = call
            return True
        self._fit(name, call, self.targets.pop(name), None)
        return False

    def at_sum(self, name: str, output: Tensor, other: Tensor, rerun: Rerun) -> Tensor | None:
        """Fit the layer to the dense sum minus the shortcut, and run it."""
        target = self.targets.pop(name, None)
        if target is None or self.waiting is None:
            return None
        self._fit(name, self.waiting, target, target.patches.outputs(other))
        self.waiting = None
        return rerun()

    def _fit(self, name: str, call: Call, target: _Target, shortcut: Tensor | None) -> None:
        with torch.autocast(call["input"].device.type, enabled=False):
            self._fit_in_float32(name, call, target, shortcut)

    def _fit_in_float32(self, name: str, call: Call, target: _Target, shortcut: Tensor | None) -> None:
        layer = self.layers[name]
        bias = self.tensors.get(layer.bias or "")
        norm = self._norm(name)
        values = target.values
        values = values.index_select(1, layer.rows(self.selection, values.shape[1]).to(values.device))
        if shortcut is not None:
            values = values - shortcut.to(values.dtype)
            if norm is not None:
                norm.steepen()
                values = norm.before(values)
        intercept = bias is not None or norm is not None
        if name in self.constants:
            nothing = torch.zeros_like(values[0])
            fit = Fit(nothing, nothing, nothing if norm is None else norm.variance)
        else:
            fit = fit_to_samples(forward_form(call), target.patches, values, intercept, self.dtype)
            call["weight"].copy_(forward_weight(call, fit.weight))
        if norm is not None:
            norm.absorb(fit.output_mean + (0 if bias is None else bias), fit.output_variance, values.mean(0))
        elif bias is not None:
            bias.copy_(values.mean(0) - fit.output_mean)

    def _norm(self, name: str) -> _Norm | None:
        roles = self.layers[name].norm
        if name not in self.epsilons or not {"running_mean", "running_var"} <= roles.keys():
            return None
        return _Norm({role: self.tensors[tensor] for role, tensor in roles.items()}, self.epsilons[name])


class _Norm:
    """The batch norm that is the only reader of a layer: `s (y - mean) + bias`.

    Args:
        tensors: Its running_mean, running_var and, if it has them, weight and bias.
        eps: Its epsilon.
    """

    def __init__(self, tensors: Mapping[str, Tensor], eps: float) -> None:
        self.tensors, self.eps = tensors, eps
        self.mean, self.variance = tensors["running_mean"], tensors["running_var"]
        self.affine = {"weight", "bias"} <= tensors.keys()
        scale = (self.variance + eps).rsqrt()
        if self.affine:
            scale = scale * tensors["weight"]
        self.scale = scale

    def steepen(self) -> None:
        """Raise scales near zero, which would prevent any correction; `absorb` applies the new scales.

        Where all are zero, as in branches that begin with zeros, they are raised to `SMALLEST_SCALE`.
        """
        if self.affine:
            mean = self.scale.abs().mean()
            least = SMALLEST_SCALE * torch.where(mean > 0, mean, 1)
            self.scale = torch.where(self.scale < 0, self.scale.clamp(max=-least), self.scale.clamp(min=least))

    def before(self, values: Tensor) -> Tensor:
        """Return the layer outputs for which the norm's outputs are `values (n, C)`."""
        return (values - self.tensors.get("bias", 0)) / self.scale + self.mean

    def absorb(self, mean: Tensor, variance: Tensor, wanted: Tensor) -> None:
        """Adopt the statistics of new inputs, keep the scale, and map their mean to the output of `wanted`.

        Args:
            mean: Mean of the new inputs `(C,)`.
            variance: Variance of the new inputs `(C,)`.
            wanted: Target mean of the inputs `(C,)`.
        """
        if not self.affine:
            self.mean.add_(mean - wanted)
            return
        self.tensors["bias"].add_(self.scale * (wanted - self.mean))
        self.tensors["weight"].copy_(self.scale * (variance + self.eps).sqrt())
        self.mean.copy_(mean)
        self.variance.copy_(variance)
