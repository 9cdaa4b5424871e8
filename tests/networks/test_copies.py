"""Copies of networks that hold functions, hooks, weak references, and what a forward pass has left."""

import threading
import weakref
from collections import deque
from functools import partial
from types import MethodType

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks.copies import independent_copy


class Kept(nn.Module):
    """Reads what a hook, or another function, has kept; `hold` says how."""

    def __init__(self, hold):
        super().__init__()
        self.stem, self.head, self.kept = nn.Linear(6, 5), nn.Linear(5, 3), {}
        hold(self)

    def keep(self, output):
        self.kept["stem"] = output

    def forward(self, x):
        self.stem(x)
        return self.head(self.kept["stem"].relu())


def variable(network):
    network.stem.register_forward_hook(lambda module, args, output: network.keep(output))


def default(network):
    network.stem.register_forward_hook(lambda module, args, output, to=network: to.keep(output))


def pre_hook(network):
    network.head.register_forward_pre_hook(lambda module, args: (network.kept["stem"].relu(),))
    variable(network)


def keyword_hook(network):
    def hook(module, args, kwargs, output, *, to=network):
        to.keep(output)

    network.stem.register_forward_hook(hook, with_kwargs=True)


def nested(network):
    def keep(output, times=1):
        network.keep(output) if times == 0 else keep(output, times - 1)

    network.stem.register_forward_hook(lambda module, args, output: keep(output))


def mutual(network):
    def even(output, number):
        network.keep(output) if number == 0 else odd(output, number - 1)

    def odd(output, number):
        even(output, number - 1)

    network.stem.register_forward_hook(lambda module, args, output: odd(output, 3))


def container(network):
    parts = {"networks": [network], network.stem: "stem"}
    network.stem.register_forward_hook(
        lambda module, args, output: parts["networks"][0].kept.update({parts[module]: output})
    )


def queue(network):
    network.functions, networks = deque([network.keep]), deque([network], maxlen=2)
    network.functions.append(lambda output: networks[0].functions[0](output))
    network.stem.register_forward_hook(lambda module, args, output: network.functions[-1](output))


def partially(network):
    network.stem.register_forward_hook(partial(lambda to, module, args, output: to.keep(output), network))


def partially_inside(network):
    network.stem.register_forward_hook(partial(lambda name, *args: network.kept.update({name: args[2]}), "stem"))


def method(network):
    class Recorder:
        def __init__(self, to):
            self.to = to

        def __call__(self, module, args, output):
            self.to.keep(output)

    recorder = Recorder(network)
    network.stem.register_forward_hook(lambda *given: recorder(*given))


def weak(network):
    reference = weakref.ref(network)
    network.stem.register_forward_hook(lambda module, args, output: reference().keep(output))


def weak_attribute(network):
    network.stem.parent = weakref.ref(network)
    network.stem.register_forward_hook(lambda module, args, output: module.parent().keep(output))


def replaced_forward(network):
    original = network.stem.forward

    def forward(x):
        network.keep(original(x))
        return network.kept["stem"]

    network.stem.forward = forward


def replaced_method(network):
    original = network.stem.forward

    def forward(self, x):
        network.keep(original(x))
        return network.kept["stem"]

    network.stem.forward = MethodType(forward, network.stem)


def attributes(network):
    network.functions = {"all": [(lambda output: network.keep(output),)]}
    network.stem.register_forward_hook(lambda module, args, output: network.functions["all"][0][0](output))


def global_name(network):
    global notebook
    notebook = network
    network.stem.register_forward_hook(lambda module, args, output: [notebook.keep(each) for each in [output]])


HOLDS = [
    variable,
    default,
    pre_hook,
    keyword_hook,
    nested,
    mutual,
    container,
    queue,
    partially,
    partially_inside,
    method,
]
HOLDS += [weak, weak_attribute, replaced_forward, replaced_method, attributes, global_name]


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: hold.__name__)
def test_a_copy_acts_on_itself_alone(hold):
    network, x = Kept(hold), torch.rand(2, 6)
    expected = network(x)  # with gradients: what is kept is no leaf
    kept = network.kept["stem"]
    copied = independent_copy(independent_copy(network))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(copied(x), expected)
    assert network.kept["stem"] is kept and torch.equal(copied.kept["stem"], kept)
    copied.head.weight.data.zero_()
    assert not copied(x).equal(expected) and not network(x).any()


def test_what_is_outside_the_network_is_shared():
    seen, network = [], nn.Linear(3, 2)
    network.register_forward_hook(lambda module, args, output: seen.append(module))
    network.functional, network.scale = F, lambda x: 2 * x
    copied = independent_copy(network)
    copied(torch.rand(1, 3))
    assert seen == [copied] and copied.scale is network.scale and copied.functional is F


def test_global_names_of_other_things_are_what_they_are_by_now():
    network = Kept(global_name)
    copied = independent_copy(network)
    (hook,) = copied.stem._forward_hooks.values()
    assert hook.__globals__["notebook"] is copied and "torch" not in hook.__globals__
    assert eval("(notebook, torch, len)", hook.__globals__)[1:] == (torch, len)


def test_a_copy_is_in_the_mode_of_its_network():
    """Copies of graph modules come in training mode."""
    network = torch.fx.symbolic_trace(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval()).eval()
    getattr(network, "1").train()
    copied = independent_copy(network)
    assert [module.training for module in copied.modules()] == [module.training for module in network.modules()]
    assert [module.training for module in copied.modules()] == [False, False, True]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_hooks_compute_are_copied(norm):
    network, x = nn.Sequential(norm(nn.Linear(4, 3)), nn.Linear(3, 2)), torch.rand(2, 4)
    network(x)
    copied = independent_copy(network.eval())
    torch.testing.assert_close(copied(x), network(x))


def test_what_cannot_be_copied_is_named():
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    network[1].guard = {"lock": threading.Lock()}
    with pytest.raises(UserError, match=r"^Sequential cannot be copied, because of 1\.guard: cannot pickle .*lock"):
        independent_copy(network)
    network[1].guard = None
    lock = threading.Lock()
    network[0].register_forward_hook(lambda module, args, output, held=(network, lock): output)
    with pytest.raises(UserError, match=r"^Sequential cannot be copied: cannot pickle .*lock"):
        independent_copy(network)
