import itertools

import pytest
import torch

from gnnrl_lightning.cost.correction import Correction
from gnnrl_lightning.cost.grid import Grid
from gnnrl_lightning.cost.latency import LatencyModel, Use
from gnnrl_lightning.errors import UserError


class Chain:
    """Three layers in a row, three channels in and ten out: the channels of the feature maps are 3, a, b, 10."""

    widths = torch.tensor([16, 40])
    operators = range(5)

    @property
    def cost(self):
        return self

    def params(self, widths):
        """Those of the second layer, which is large: 1000 taps."""
        return 1000 * widths[..., 0] * widths[..., 1]

    def operator_params(self, widths):
        params = self.params(widths)
        return torch.stack([0 * params, 0 * params, params, 0 * params, 0 * params], -1)

    def channels(self, widths):
        ends = torch.tensor([3, 10]).expand(len(widths), 2)
        return torch.cat([ends[:, :1], widths, ends[:, 1:]], 1)


def plane(function, inputs, outputs):
    return Grid(inputs, outputs, tuple(tuple(float(function(i, o)) for o in outputs) for i in inputs))


def product(inputs, outputs):
    """What a convolution costs: bilinear in its channels."""
    return 0.5 + 0.01 * inputs * outputs


GRIDS = {
    "first": plane(product, (3,), (1, 8, 16)),
    "conv": plane(product, (1, 8, 16, 32, 40), (1, 8, 10, 40)),
    "relu": plane(lambda _, o: 0.1 * o, (0,), (1, 16, 40)),
}
USES = [
    Use(0, "first", 0, 1),
    Use(1, "relu", None, 1),
    Use(2, "conv", 1, 2),
    Use(3, "relu", None, 2),
    Use(4, "conv", 2, 3),
]


def oracle(a, b):
    return product(3, a) + 0.1 * a + product(a, b) + 0.1 * b + product(b, 10)


def every_width():
    return torch.tensor(list(itertools.product(range(1, 17), range(1, 41, 3))))


def test_bilinear_times_are_interpolated_exactly():
    model, widths = LatencyModel(Chain(), USES, GRIDS), every_width()
    expected = torch.tensor([oracle(*row) for row in widths.tolist()], dtype=torch.float64)
    assert torch.allclose(model(widths), expected)
    assert model(widths[5]).shape == () and float(model(widths[5])) == pytest.approx(oracle(*widths[5].tolist()))
    assert torch.allclose(model(widths.reshape(4, -1, 2)), expected.reshape(4, -1))


def test_what_is_removed_takes_no_time():
    model = LatencyModel(Chain(), USES, GRIDS)
    without = torch.tensor([[0, 12], [7, 0]])
    expected = [0.1 * 12 + product(12, 10), product(3, 7) + 0.1 * 7]
    assert model(without).tolist() == pytest.approx(expected)
    assert model.operators(without).sum(1).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("call", [0.4, -0.1, -0.9])
def test_calls_count_where_operators_are_present_and_none_takes_less_than_nothing(call):
    """Two operators are left of `[0, 12]`, and the time never rises when a group goes."""
    model = LatencyModel(Chain(), USES, GRIDS, Correction(call, 2.0))
    expected = sum(max(2 * time + call, 0) for time in (0.1 * 12, product(12, 10)))
    assert float(model(torch.tensor([0, 12]))) == pytest.approx(expected)
    widths = torch.tensor(list(itertools.product(range(17), range(41))))
    times = model(widths).reshape(17, 41)
    assert bool((times.diff(dim=0) >= -1e-12).all()) and bool((times.diff(dim=1) >= -1e-12).all())
    assert float(times.min()) >= 0 and model.sums(torch.tensor([[0, 12], [3, 3]]))[:, 2].tolist() == [2, 5]


def test_operators_add_up_to_the_network():
    model = LatencyModel(Chain(), USES, GRIDS, Correction(2.0, 1.5, 0.5, 2.0))
    widths = every_width()
    parts = model.operators(widths)
    assert parts.shape == (len(widths), 5)
    assert torch.allclose(parts.sum(-1) + 5 * 2.0, model(widths))
    one = model.operators(torch.tensor([[8, 16]]))[0]  # the last layer's 10 outputs count half of the way to 16
    assert one.tolist() == pytest.approx(
        [1.5 * ms for ms in (product(3, 8), 2 * 0.8, product(8, 16), 2 * 1.6, product(16, 13))]
    )


@pytest.mark.parametrize("rounding", [0.0, 0.5, 1.0])
def test_narrowing_a_group_never_takes_longer(rounding):
    """Although single measurements do: noise of 30 %."""
    generator = torch.Generator().manual_seed(0)

    def noisy(inputs, outputs):
        return product(inputs, outputs) * (1 + 0.6 * (float(torch.rand(1, generator=generator)) - 0.5))

    grids = {key: plane(noisy, grid.inputs, grid.outputs) for key, grid in GRIDS.items()}
    model = LatencyModel(Chain(), USES, grids, Correction(0.1, 0.9, rounding, 4.0))
    times = model(torch.tensor(list(itertools.product(range(1, 17), range(1, 41))))).reshape(16, 40)
    assert bool((times.diff(dim=0) >= -1e-12).all()) and bool((times.diff(dim=1) >= -1e-12).all())


@pytest.mark.parametrize("lanes", [8, 16])
def test_rounding_counts_channels_up_to_the_next_multiple(lanes):
    """In layers; a ReLU takes as long as it has channels."""
    correction = Correction(rounding=1.0, lanes=lanes)
    layers, relu = (LatencyModel(Chain(), uses, GRIDS, correction) for uses in (USES[2:3], USES[3:4]))
    for width in (1, 8, 9, 16, 17, 40):
        whole = min(-(-width // lanes) * lanes, 40)  # where the grid ends
        assert float(layers(torch.tensor([4, width]))) == pytest.approx(product(lanes, whole))
        assert float(relu(torch.tensor([4, width]))) == pytest.approx(0.1 * width)


@pytest.mark.parametrize(
    "truth",
    [
        Correction(3.0, 1.2, 0.0),
        Correction(-0.1, 2.0, 0.5),
        Correction(0.5, 0.8, 1.0),
        Correction(0.5, 0.8, 0.5, 8.0),
        Correction(1.0, 0.8, 0.0, 0.5),
        Correction(0.5, 0.8, 0.5, 1.0, 7.0, 0.0),
        Correction(0.5, 0.8, 0.0, 4.0, 20.0, 0.25),
        Correction(0.5, 0.8, 1.0, 1.0, 7.0, 0.0, 16),
    ],
)
def test_the_correction_is_found_again(truth):
    model, widths = LatencyModel(Chain(), USES, GRIDS), every_width()[::17]
    measured = model.corrected(truth)(widths)
    found = model.fitted(widths, measured.tolist())
    assert (found.correction.call, found.correction.scale) == pytest.approx((truth.call, truth.scale))
    assert (found.correction.rounding, found.correction.ratio) == (truth.rounding, truth.ratio)
    assert (found.correction.load, found.correction.cached) == (pytest.approx(truth.load), truth.cached)
    assert found.correction.lanes == truth.lanes
    assert max(map(abs, found.errors(widths, measured.tolist()))) < 1e-9


def test_weights_that_stay_in_caches_are_not_read():
    """A quarter of a million parameters does; 640,000 are those of the dense network."""
    with_load = LatencyModel(Chain(), USES, GRIDS, Correction(load=10.0, cached=0.25))
    without, small = LatencyModel(Chain(), USES, GRIDS), torch.tensor([[10, 25], [3, 7]])
    assert torch.equal(with_load(small), without(small))
    dense = torch.tensor([[16, 40]])
    assert float(with_load(dense) - without(dense)) == pytest.approx(3.9)
    parts = (with_load.operators(dense) - without.operators(dense))[0]
    assert parts.tolist() == pytest.approx([0, 0, 3.9, 0, 0])


def test_noise_is_no_reading_of_weights():
    """One more factor fits better, and predicts worse."""
    model, widths = LatencyModel(Chain(), USES, GRIDS), every_width()[::23]
    noise = 1 + 0.02 * torch.randn(len(widths), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = model.fitted(widths, (noise * model(widths)).tolist()).correction
    assert found.load == 0 and found.scale == pytest.approx(1, abs=0.1)


def test_no_operator_takes_less_than_nothing():
    """These times would be fitted best by a call that is shorter than any layer alone."""
    model, widths = LatencyModel(Chain(), USES, GRIDS), every_width()[::17]
    measured = (model(widths) - 5 * 0.8).clamp(min=0.1)
    found = model.fitted(widths, measured.tolist()).correction
    assert -0.51 * found.scale <= found.call + 1e-9  # the shortest layer takes 0.51 ms


def test_what_is_fitted_again_keeps_its_form():
    model, widths = LatencyModel(Chain(), USES, GRIDS), every_width()[::17]
    before = Correction(0.5, 0.8, 0.5, 4.0, 20.0, 0.25)
    slower = (2 * model.corrected(before)(widths)).tolist()
    assert model.fitted(widths, slower, like=before).correction == Correction(
        pytest.approx(1.0), pytest.approx(1.6), 0.5, 4.0, pytest.approx(40.0), 0.25
    )


def test_networks_of_the_same_time_determine_the_scale_alone():
    model = LatencyModel(Chain(), USES, GRIDS)
    widths = torch.tensor([[16, 40]])
    assert model.fitted(widths, [2 * oracle(16, 40)]).correction == Correction(0.0, pytest.approx(2.0), 0.0)


def test_heavy_networks_are_met_nearly_exactly():
    """Of three networks on no line, those of weight 100 are."""
    model, widths = LatencyModel(Chain(), USES, GRIDS), torch.tensor([[16, 40], [8, 20], [4, 8]])
    times = [30.0, 15.0, 20.0]
    found = model.fitted(widths, times, [100.0, 100.0, 0.1])(widths)
    assert found[:2].tolist() == pytest.approx(times[:2], rel=0.01) and abs(float(found[2]) / 20 - 1) > 0.2


def test_a_model_without_a_grid_is_refused():
    with pytest.raises(UserError, match=r"no row for 'conv' \(1 missing\)"):
        LatencyModel(Chain(), USES, {key: grid for key, grid in GRIDS.items() if key != "conv"})
