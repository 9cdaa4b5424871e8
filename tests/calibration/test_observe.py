import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gnnrl_lightning.calibration.observe import (
    ContractionObserver,
    Patches,
    draw_positions,
    forward_form,
    forward_weight,
    sample_channels,
    sample_patches,
)


def call_of(module, x):
    seen = []
    observer = ContractionObserver({"weight": module.weight}, lambda name, call: seen.append(call))
    with torch.no_grad(), observer:
        output = module(x)
    assert len(seen) == 1
    return seen[0], output


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(5, 4), (3, 5)),
        (nn.Linear(5, 4), (3, 7, 5)),
        (nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 9)),
        (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 3, 9, 8)),
        (nn.Conv2d(3, 4, (3, 5), padding="same", dilation=(2, 1)), (2, 3, 6, 7)),
        (nn.Conv2d(3, 4, 3, padding="valid"), (2, 3, 6, 7)),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 6, 7)),
        (nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1), padding=1), (2, 2, 3, 4, 5)),
    ],
)
def test_patches_times_the_weight_are_the_outputs(module, shape):
    module, x = module.double(), torch.randn(shape, dtype=torch.float64)
    call, output = call_of(module, x)
    patches = Patches(call, 5, torch.Generator().manual_seed(0))
    product = patches.inputs(call["input"]) @ module.weight.flatten(1).T + module.bias
    torch.testing.assert_close(product, patches.outputs(output))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.ConvTranspose1d(3, 4, 4, stride=3, padding=2, output_padding=1), (2, 3, 5)),
        (nn.ConvTranspose2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 3, 5, 4)),
        (nn.ConvTranspose2d(3, 4, 1), (2, 3, 5, 4)),
    ],
)
def test_forward_form_of_a_transposed_convolution(module, shape):
    module, x = module.double(), torch.randn(shape, dtype=torch.float64)
    call, output = call_of(module, x)
    form = forward_form(call)
    convolution = {3: F.conv1d, 4: F.conv2d}[x.dim()]
    torch.testing.assert_close(convolution(**form), output)
    patches = Patches(form, 6, torch.Generator().manual_seed(0))
    product = patches.inputs(form["input"]) @ form["weight"].flatten(1).T + module.bias
    torch.testing.assert_close(product, patches.outputs(output))
    assert torch.equal(forward_weight(call, form["weight"]), module.weight)


def test_forward_form_of_a_depthwise_transposed_convolution():
    module = nn.ConvTranspose2d(4, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=4).double()
    call, output = call_of(module, torch.randn(2, 4, 5, 4, dtype=torch.float64))
    form = forward_form(call)
    torch.testing.assert_close(F.conv2d(**form), output)
    assert torch.equal(forward_weight(call, form["weight"]), module.weight)


def test_a_transposed_convolution_is_known_by_its_function_alone():
    x, weight = torch.randn(2, 3, 5), torch.randn(3, 4, 3)
    seen = []
    with ContractionObserver({"weight": weight}, lambda name, call: seen.append(call)):
        output = F.conv_transpose1d(x, weight)
    torch.testing.assert_close(F.conv1d(**forward_form(seen[0])), output)


def test_patches_of_some_images_are_a_part_of_all():
    x = torch.randn(5, 2, 6, 6)
    patches = Patches({"input": x, "weight": torch.randn(3, 2, 3, 3)}, 4, torch.Generator().manual_seed(0))
    parts = [patches.inputs(x, slice(0, 2)), patches.inputs(x, slice(2, 5))]
    assert torch.equal(torch.cat(parts), patches.inputs(x))


def test_grouped_convolutions_have_the_elements_of_a_block_together():
    module = nn.Conv2d(4, 6, 3, groups=2, bias=False)
    x = torch.randn(2, 4, 5, 5)
    call, output = call_of(module, x)
    patches = Patches(call, 9, torch.Generator())
    vectors = patches.inputs(x).reshape(-1, 2, 18)
    product = torch.einsum("nbd,bod->nbo", vectors, module.weight.reshape(2, 3, 18)).flatten(1)
    torch.testing.assert_close(product, patches.outputs(output))


def test_all_positions_where_there_are_few():
    x = torch.arange(8.0).reshape(2, 1, 2, 2)
    vectors = sample_patches({"input": x, "weight": torch.ones(1, 1, 1, 1)}, 48, torch.Generator())
    assert vectors.flatten().tolist() == list(range(8))


def test_positions_are_drawn_without_repetition():
    positions = draw_positions(10, 20, 7, torch.Generator().manual_seed(0))
    assert positions.shape == (10, 7)
    assert all(len(set(row)) == 7 and max(row) < 20 for row in positions.tolist())


def test_channels_of_a_flattened_map():
    x = torch.arange(12.0).reshape(1, 12)
    vectors = sample_channels(x, 3, 10, torch.Generator())
    assert vectors.tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]


def test_the_input_that_visit_returns_is_read():
    module = nn.Linear(2, 2, bias=False)
    with ContractionObserver({"w": module.weight}, lambda name, call: 2 * call["input"]):
        output = module(torch.ones(1, 2))
    torch.testing.assert_close(output, 2 * module(torch.ones(1, 2)))


def test_other_weights_are_not_shown():
    own, other, shown = nn.Linear(2, 2), nn.Linear(2, 2), []
    with ContractionObserver({"w": own.weight}, lambda name, call: shown.append(name)):
        other(own(torch.ones(1, 2)))
    assert shown == ["w"]
