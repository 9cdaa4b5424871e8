"""Networks for the tests of export formats, and artifacts of them."""

import torch
from torch import nn

from gnnrl_lightning import trace
from gnnrl_lightning.artifacts import artifact


class Nested(nn.Module):
    """Keyword inputs; maps in a list, and a sequence beside them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.recurrent = nn.GRU(8, 6, batch_first=True, bidirectional=True)

    def forward(self, image, scale):
        maps = self.conv(image).relu() * scale[:, None, None, None]
        return {"maps": [maps, maps.mean((2, 3))], "sequence": self.recurrent(maps.mean(3).transpose(1, 2))[0]}


class Image(nn.Module):
    """A pooled convolution that is padded by hand, and a depthwise one."""

    def __init__(self):
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 3, groups=12, padding=1)
        self.norm, self.last = nn.BatchNorm2d(12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.norm(self.first(nn.functional.pad(x, (1, 1, 1, 1))))
        return self.last(self.depthwise(nn.functional.hardswish(x)).mean((2, 3)))


def delivered(dense, shape, folder, formats, macs=0.5, example=1, calibration=32):
    """The pruned network, and its artifact in a folder.

    The shape is that of an input; as many examples are given, and random ones calibrate.
    """
    generator = torch.Generator().manual_seed(0)
    inputs, examples = (torch.randn(size, *shape, generator=generator) for size in (example, calibration))
    graph = trace(dense.eval(), inputs)
    plan = graph.plan(dense, graph.project(graph.widths, macs=macs))
    pruned = plan.apply(dense).eval()
    artifact.save(
        folder,
        pruned,
        dense=dense,
        steps=[artifact.step(graph, plan)],
        example=inputs,
        description=artifact.Description({}, {}, {}, {}),
        formats=formats,
        calibration=lambda: examples,
    )
    return pruned, folder
