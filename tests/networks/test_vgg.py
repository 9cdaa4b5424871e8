import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks import check_runs, vgg16_bn


def test_cost_by_hand():
    sides = (32, 16, 8, 4, 2)
    widths = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    macs, parameters, before = 0, 0, 3
    for side, stage in zip(sides, widths, strict=True):
        for width in stage:
            macs += 9 * before * width * side**2
            parameters += 9 * before * width + 2 * width
            before = width
    macs += 512 * 512 + 512 * 10
    parameters += 512 * 512 + 2 * 512 + 512 * 10 + 10
    with torch.device("meta"):
        network = vgg16_bn().eval()
        images = torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        assert network(images).shape == (1, 10)
    assert counter.get_total_flops() == 2 * macs == 2 * 313_463_808  # 3.13e8 in Li et al.
    assert sum(p.numel() for p in network.parameters()) == parameters == 14_987_210


def test_larger_images_and_grey_ones():
    assert vgg16_bn(5, in_channels=1)(torch.randn(2, 1, 64, 48)).shape == (2, 5)


def test_smaller_images_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"the network refuses inputs of 3x16x16: .*[Oo]utput size is too small"):
        check_runs(vgg16_bn(), torch.zeros(1, 3, 16, 16))


def test_a_narrow_one_has_that_share_of_all_channels():
    with torch.device("meta"):
        full, narrow = (dict(vgg16_bn(width=width).named_parameters()) for width in (1.0, 0.375))
    assert full.keys() == narrow.keys()
    for name, parameter in narrow.items():
        if not name.startswith("classifier.3"):
            assert len(parameter) == 0.375 * len(full[name])
    assert narrow["classifier.3.weight"].shape == (10, 192)
