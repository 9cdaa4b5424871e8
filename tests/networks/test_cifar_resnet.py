import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gnnrl_lightning import networks
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.networks import CIFARResNet, OptionAShortcut, resnet20


def macs_by_hand(blocks):
    """One 3 x 3 convolution of the image, 2n in each stage: 16 x 32^2, 32 x 16^2, 64 x 8^2; linear."""
    total = 9 * 3 * 16 * 32**2
    for width, side in ((16, 32), (32, 16), (64, 8)):
        inner = 9 * width * width * side**2
        total += 2 * blocks * inner - (inner // 2 if width > 16 else 0)  # its first reads half
    return total + 64 * 10


@pytest.mark.parametrize(
    ("name", "blocks", "millions"),  # parameters as in table 6 of He et al.
    [
        ("resnet20", 3, 0.27),
        ("resnet32", 5, 0.46),
        ("resnet44", 7, 0.66),
        ("resnet56", 9, 0.85),
        ("resnet110", 18, 1.7),
    ],
)
def test_cost_is_the_papers(name, blocks, millions):
    with torch.device("meta"):
        network = getattr(networks, name)().eval()
        images = torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        assert network(images).shape == (1, 10)
    assert counter.get_total_flops() == 2 * macs_by_hand(blocks)
    digits = 1 if millions > 1 else 2
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, digits) == millions


def test_resnet20_has_40_551_040_macs_and_269_722_parameters():
    assert macs_by_hand(3) == 40_551_040
    assert sum(p.numel() for p in resnet20().parameters()) == 269_722


@pytest.mark.parametrize(
    ("before", "after", "stride", "side"), [(16, 32, 2, 32), (32, 64, 2, 7), (4, 9, 1, 5), (6, 6, 2, 4)]
)
def test_option_a_is_slicing_and_padding_to_the_last_bit(before, after, stride, side):
    x = torch.randn(3, before, side, side)
    pad = after - before
    expected = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, pad // 2, pad - pad // 2))
    assert torch.equal(OptionAShortcut(before, after, stride)(x), expected)


def test_option_a_reads_what_its_index_says():
    shortcut = OptionAShortcut(2, 4, 1)
    assert shortcut.index.tolist() == [2, 0, 1, 2]
    shortcut.index = torch.tensor([1, 2, 0])
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(shortcut(x), torch.stack([x[:, 1], torch.zeros(1, 3, 3), x[:, 0]], 1))
    assert str(shortcut) == "OptionAShortcut(out_channels=3, stride=1)"
    assert shortcut.state_dict() == {}


def reference(network, x):
    """The published forward pass, with its own shortcut and pooling, on the weights of `network`."""
    x = F.relu(network.bn1(network.conv1(x)))
    for stage in (network.layer1, network.layer2, network.layer3):
        for block in stage:
            planes, shortcut = block.conv2.out_channels, x
            if block.conv1.stride != (1, 1):
                shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4), "constant", 0)
            x = F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))) + shortcut)
    return network.linear(F.avg_pool2d(x, x.size()[3]).flatten(1))


def test_the_whole_network_computes_what_the_published_one_does():
    network = resnet20().eval().double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(x), reference(network, x), rtol=1e-12, atol=1e-12)


def test_parameter_names_are_the_published_ones():
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{part}" for part in norm)}
    for layer in (1, 2, 3):
        for block in range(9):
            for i in (1, 2):
                names.add(f"layer{layer}.{block}.conv{i}.weight")
                names |= {f"layer{layer}.{block}.bn{i}.{part}" for part in norm}
    assert set(networks.resnet56().state_dict()) == names


def test_option_b_adds_two_convolutions_with_batch_norm():
    network = resnet20(shortcut="B")
    added = {key for key in network.state_dict() if "shortcut" in key}
    assert {key.rpartition(".shortcut")[0] for key in added} == {"layer2.0", "layer3.0"}
    extra = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert sum(p.numel() for p in network.parameters()) == 269_722 + extra


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_other_sizes_channels_and_classes(shortcut):
    network = resnet20(num_classes=7, in_channels=1, shortcut=shortcut)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 7)
    assert network(torch.randn(2, 1, 13, 9)).shape == (2, 7)


def test_an_unknown_shortcut_is_refused():
    with pytest.raises(UserError, match="shortcut is 'C': expected 'A'"):
        CIFARResNet(3, shortcut="C")  # pyright: ignore[reportArgumentType]
