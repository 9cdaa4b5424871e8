"""Views that PyTorch refuses where channels lie last in memory."""

import copy

import pytest
import torch
from torch import nn

from gnnrl_lightning.networks.channels_last import runs_channels_last, store_channels_last

READ = {
    "channels and pixels as one": (lambda x: x.view(len(x), -1)[:, :12], False),
    "examples and heads as one": (lambda x: x.view(3 * len(x), 4, 4, 4).sum((2, 3)).view(len(x), 12), False),
    "flattened, which copies": (lambda x: x.flatten(1)[:, :12], True),
    "pixels as one": (lambda x: x.view(len(x), 12, -1).sum(2), True),
    "heads of channels": (lambda x: x.view(len(x), 3, 4, 4, 4).sum((3, 4)).reshape(len(x), 12), True),
}


class Reading(nn.Module):
    """Two convolutions, with the usual order in memory between them, and what reads the second one."""

    def __init__(self, read):
        super().__init__()
        self.a, self.b, self.head, self.read = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 12, 1), nn.Linear(12, 10), read

    def forward(self, x):
        return self.head(self.read(self.b(self.a(x).contiguous())))


@pytest.mark.parametrize("examples", [1, 4])
@pytest.mark.parametrize(("read", "runs"), READ.values(), ids=READ)
def test_a_view_of_what_lies_apart_needs_the_usual_format(read, runs, examples):
    network = Reading(read)
    before = copy.deepcopy(network.state_dict())
    assert runs_channels_last(network, torch.randn(examples, 3, 4, 4)) is runs
    assert network.training and network.b.weight.is_contiguous()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_weights_of_images_alone_are_stored_channels_last():
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Unflatten(2, (1, -1)), nn.Conv3d(4, 5, (1, 2, 2)))
    x = torch.randn(2, 3, 4, 4)
    expected = network(x)
    store_channels_last(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last) and network[2].weight.is_contiguous()
    torch.testing.assert_close(network(x), expected)
    assert runs_channels_last(network, x)


def test_other_inputs_may_have_any_format():
    assert runs_channels_last(nn.Linear(5, 3), torch.randn(1, 5))
    assert runs_channels_last(nn.Bilinear(5, 4, 3), (torch.randn(2, 5), torch.randn(2, 4)))
