"""The walk over the exported graph: what code does with parts of tensors that nothing reads."""

import torch

import gnnrl_lightning
from tests.support.exactness import check, random_weights
from tests.support.networks_code import Code


class Sizes(Code):
    """Takes parts of a feature map and of a weight for their sizes alone."""

    def between(self, x):
        assert x[0, 0].dim() == 2
        pixels = x[:, 0].numel() + x.split(3, 1)[0].shape[-1] + x[:, 2:5].shape[2]
        return x * (pixels / (pixels + self.b.weight[0, 0].numel()))


def test_parts_whose_sizes_alone_are_read_freeze_nothing():
    network, example = random_weights(Sizes()), (torch.rand(1, 3, 6, 6, dtype=torch.float64),)
    graph, plain = gnnrl_lightning.trace(network, example), gnnrl_lightning.trace(random_weights(Code()), example)
    assert [(group.name, group.width, group.sets) for group in graph.groups] == [("a", 8, 1), ("b", 6, 1)]
    assert graph.fingerprint == plain.fingerprint
    check(graph, network, example, torch.tensor([3, 2]), torch.Generator().manual_seed(0))
