import pytest
import torch

from gnnrl_lightning.calibration.precision import activations_in, products_in


def bfloat16_units():
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def test_activations_have_the_precision_and_weights_keep_theirs():
    layer, x = torch.nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    with activations_in(torch.bfloat16, x.device):
        low = layer(x)
    with activations_in(torch.float32, x.device):
        high = layer(x)
    assert (low.dtype, high.dtype, layer.weight.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert layer(x).dtype == torch.float32  # and all is as it was afterwards


@pytest.mark.skipif(not bfloat16_units(), reason="needs oneDNN with bfloat16")
def test_products_round_their_factors_and_sum_up_in_float32():
    """1 + 2^-9 is 1 in bfloat16, or two terms of it; ten thousand ones are a sum that bfloat16 does not have."""
    x, exact = torch.full((10_000, 64), 1 + 2**-9), 10_000 * (1 + 2**-9) ** 2
    before = torch.backends.mkldnn.matmul.fp32_precision
    with products_in(torch.bfloat16):
        rounded = x.T @ x
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert bool((rounded >= 10_000).all()) and bool((rounded <= exact).all())
    if torch.cpu._is_amx_tile_supported():  # AVX-512 alone keeps a second term
        assert bool((rounded == 10_000).all())
    with products_in(torch.float32):
        torch.testing.assert_close(x.T @ x, torch.full((64, 64), exact), rtol=1e-5, atol=0)


def test_the_precision_of_products_is_put_back_after_an_error():
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(RuntimeError), products_in(torch.bfloat16):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
