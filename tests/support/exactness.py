"""Checks of a traced network at any widths: exactness, costs, and an untouched original."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning.tracing.axes import Selection

TOLERANCE = 1e-9
"""Maximum difference relative to the largest output, in float64."""


def random_weights(network, seed=0):
    """Return the network in float64 with random parameters and statistics: no dead channels, no two equal ones."""
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(network).double()
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.is_floating_point():
                if name.endswith("var") or tensor.dim() < 2:
                    tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
                else:
                    scale = (2 / tensor[0].numel()) ** 0.5
                    tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * scale)
    return network.eval()


def random_widths(graph, generator):
    """Draw widths `(G,)`, uniform between 1 and the dense width for each group."""
    return torch.tensor([int(torch.randint(1, n + 1, (), generator=generator)) for n in graph.widths.tolist()])


def random_plan(graph, network, widths, generator):
    """Return a plan that keeps random channels of every index set."""
    plan = graph.plan(network, widths, importance=noise(generator))
    for group, width in zip(graph.groups, widths.tolist(), strict=True):
        shape = (width,) if group.sets == 1 else (group.sets, width)
        assert tuple(plan.kept[group.name].shape) == shape
    return plan


def half(graph):
    """Return a selection of every other channel, and its widths `(G,)`."""
    kept = [torch.arange(0, width, 2)[None] for width in graph.widths.tolist()]
    return Selection(kept, graph.widths.tolist()), torch.tensor([ranks.shape[1] for ranks in kept])


def noise(generator):
    """Return an importance criterion with random scores."""

    def criterion(network, parameters, calibration):
        return {name: torch.rand(tensor.shape, generator=generator) for name, tensor in parameters.items()}

    return criterion


def tensors(output):
    """Return all tensors of a nested output."""
    if output is None:
        return []
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output
    return [tensor for value in values for tensor in tensors(value)]


def forward(network, inputs):
    with torch.no_grad():
        return tensors(network(*inputs))


def difference(output, reference):
    """Return the maximum difference relative to the largest reference value, over all outputs."""
    worst = 0.0
    for mine, theirs in zip(output, reference, strict=True):
        assert mine.shape == theirs.shape
        assert theirs.isfinite().all() and theirs.abs().max() > 0
        worst = max(worst, float((mine - theirs).abs().max() / theirs.abs().max()))
    return worst


def macs_of(network, inputs):
    """Count the MACs of one image with an oracle: `FlopCounterMode` on a meta copy of the network, halved."""
    one = tuple(item[:1].to("meta") for item in inputs)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network).to("meta")(*one)
    return counter.get_total_flops() // 2


def params_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


def check(graph, network, inputs, widths, generator):
    """Check exactness, MACs and parameters at `widths`; return the pruned network (float64, random weights)."""
    plan = random_plan(graph, network, widths, generator)
    pruned = plan.apply(network)
    assert type(pruned) is type(network)
    assert difference(forward(pruned, inputs), forward(plan.mask(network), inputs)) <= TOLERANCE
    assert int(graph.cost.macs(widths)) == macs_of(pruned, inputs)
    assert int(graph.cost.params(widths)) == params_of(pruned)
    return pruned


def train_one_step(network, inputs):
    """Take one SGD step in training mode; every parameter that affects the output changes."""
    network = copy.deepcopy(network).train()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    sum(output.square().mean() for output in tensors(network(*inputs))).backward()
    optimizer.step()
    moved = [name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def snapshot(network):
    """Return all state of a network that tracing must not change."""
    return {
        "tensors": {name: (id(t), t.detach().clone()) for name, t in named_tensors(network)},
        "requires_grad": [p.requires_grad for p in network.parameters()],
        "gradients": [p.grad for p in network.parameters()],
        "modes": [m.training for m in network.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
        "attributes": [sorted(vars(m)) for m in network.modules()],
        "text": str(network),
        "random": torch.get_rng_state(),
    }


def named_tensors(network: nn.Module):
    return (*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False))


def assert_untouched(network, before):
    after = snapshot(network)
    for part in ("requires_grad", "gradients", "modes", "hooks", "attributes", "text"):
        assert after[part] == before[part], part
    assert torch.equal(after["random"], before["random"])
    assert after["tensors"].keys() == before["tensors"].keys()
    for name, (identity, value) in before["tensors"].items():
        assert after["tensors"][name][0] == identity
        assert torch.equal(after["tensors"][name][1], value), name
