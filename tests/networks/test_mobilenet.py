import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning.networks import mobilenet_v1, mobilenet_v2


def flops(network, side=32):
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops()


def test_v1_cost_by_hand():
    widths = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    sides = (32, 16, 16, 8, 8, 4, 4, 4, 4, 4, 4, 2, 2)  # behind each depthwise convolution
    macs = 27 * 32 * 32**2 + 1024 * 10
    parameters = 27 * 32 + 2 * 32 + 1024 * 10 + 10
    for before, after, side in zip(widths, widths[1:], sides, strict=False):
        macs += (9 * before + before * after) * side**2
        parameters += 9 * before + 2 * before + before * after + 2 * after
    with torch.device("meta"):
        network = mobilenet_v1().eval()
    assert flops(network) == 2 * macs
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_v2_has_torchvisions_parameters_and_its_macs_at_the_strides_of_cifar():
    with torch.device("meta"):
        network = mobilenet_v2().eval()
        oracle = torchvision.models.mobilenet_v2(num_classes=10).eval()
    shapes = [tuple(p.shape) for p in network.parameters()]
    assert shapes == [tuple(p.shape) for p in oracle.parameters()]
    for convolution in (oracle.features[0][0], oracle.features[2].conv[1][0]):
        assert convolution.stride == (2, 2)
        convolution.stride = (1, 1)
    assert flops(network) == flops(oracle)


def test_v2_computes_what_torchvision_does_at_the_same_strides():
    oracle = torchvision.models.mobilenet_v2(num_classes=10).eval()
    oracle.features[0][0].stride = oracle.features[2].conv[1][0].stride = (1, 1)
    network = mobilenet_v2().eval()
    weights = zip(network.state_dict(), oracle.state_dict().values(), strict=True)
    network.load_state_dict(dict(weights))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network(x), oracle(x))


@pytest.mark.parametrize("make", [mobilenet_v1, mobilenet_v2])
def test_small_grey_images(make):
    assert make(7, in_channels=1)(torch.randn(2, 1, 8, 8)).shape == (2, 7)


def test_a_narrow_v2_keeps_the_width_of_the_last_convolution():
    with torch.device("meta"):
        full, narrow, wide = (mobilenet_v2(width=width) for width in (1.0, 0.5, 2.0))
    for name, parameter in narrow.named_parameters():
        if parameter.dim() == 4 and parameter.shape[0] != 1280:
            assert len(parameter) == 0.5 * len(full.get_parameter(name))
    assert [network.linear.in_features for network in (full, narrow, wide)] == [1280, 1280, 2560]
    assert narrow.features[0].out_channels == 16
