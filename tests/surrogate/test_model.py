"""One process of the surrogate against Gaussian conditioning by hand."""

import math

import pytest
import torch

from gnnrl_lightning.cost.budget import Budget
from gnnrl_lightning.surrogate.model import Process
from gnnrl_lightning.surrogate.prior import Prior, flat_prior, prior_forms
from gnnrl_lightning.surrogate.terms import USUAL, USUAL_COUNT, Terms
from tests.support.fakes import random_sensitivity, small_graph

GRAPH = small_graph()
LOSSES = random_sensitivity(GRAPH).of_groups
TERMS = Terms(GRAPH.widths, LOSSES)
LIKENESS = torch.tensor(
    [[1.0, 0.5, 0.0, 0.1], [0.5, 1.0, 0.2, 0.0], [0.0, 0.2, 1.0, 0.3], [0.1, 0.0, 0.3, 1.0]], dtype=torch.float64
)
ALIKE = Terms(GRAPH.widths, LOSSES, LIKENESS)
PRIORS = {name: prior for name, prior in zip(("own", "pairs", "alike"), prior_forms(ALIKE), strict=True)}


def candidates(count, seed=0):
    keep = 0.1 + 0.9 * torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Budget(macs=0.5).on(GRAPH).project(GRAPH.widths * keep).unique(dim=0)


def truth(widths):
    """Not what any of the terms is alone."""
    x = TERMS.logs(widths)
    return 0.3 * TERMS(widths)[:, 1] - x[:, 0] + 0.5 * x[:, 1].square() + 0.1 * (3 * x[:, 2]).sin()


def standard_of(known):
    """What the surrogate standardises by, by hand, and the standardised terms of any candidates."""
    first = TERMS(known)[:, 1:]
    usual = torch.tensor([USUAL[0], *[USUAL[1]] * 4, *[USUAL[2]] * 4, *[USUAL[3]] * 4], dtype=torch.float64)
    squares = (first - first.mean(0)).square().sum(0)
    size = ((squares + USUAL_COUNT * usual.square()) / (USUAL_COUNT + len(known))).sqrt()

    def made(widths):
        shifted = TERMS(widths)[:, 1:] - first.mean(0)
        return torch.cat([torch.ones(len(widths), 1), shifted[:, :1], (shifted / size)[:, 1:]], 1), shifted / size

    return made


def covariance(prior, terms, first, second):
    (phi, x), (other, y) = terms(first), terms(second)
    squared = (x[:, None] - y[None]).square().mean(2)
    smooth = prior.amplitude**2 * (-squared / (2 * prior.length**2)).exp()
    products = (x[:, 1:5] @ y[:, 1:5].T).square()
    shared = sum(phi[:, k : k + 4] @ LIKENESS @ other[:, k : k + 4].T for k in (2, 6, 10))
    linear = (phi * prior.scale.square()) @ other.T
    return linear + prior.alike**2 * shared + prior.pairs**2 * products + smooth


def by_hand(prior, known, values, new):
    """Mean and standard deviation of the posterior at new candidates, and the evidence."""
    terms = standard_of(known)
    before = covariance(prior, terms, known, known) + prior.noise**2 * torch.eye(len(known))
    gain = covariance(prior, terms, new, known) @ torch.linalg.inv(before)
    level = values.mean()
    residual = values - level - terms(known)[0] @ prior.mean
    mean = level + terms(new)[0] @ prior.mean + gain @ residual
    variance = (covariance(prior, terms, new, new) - gain @ covariance(prior, terms, known, new)).diagonal()
    evidence = -0.5 * residual @ torch.linalg.solve(before, residual) - 0.5 * torch.logdet(before)
    return mean, variance.sqrt(), float(evidence)


@pytest.mark.parametrize("form", PRIORS)
def test_the_posterior_is_that_of_a_gaussian(form):
    known, new = candidates(12), candidates(30, seed=1)
    process = Process(ALIKE, PRIORS[form], known, truth(known), adapt=False)
    mean, deviation, evidence = by_hand(PRIORS[form], known, truth(known), new)
    torch.testing.assert_close(process.mean(new), mean, atol=1e-5, rtol=1e-5)
    assert process.evidence == pytest.approx(evidence, rel=1e-6)
    draws = process.draw(4000, torch.Generator().manual_seed(0))(new)
    assert draws.shape == (4000, len(new))
    assert ((draws.mean(0) - mean) / deviation).abs().max() < 0.1
    torch.testing.assert_close(draws.std(0), deviation, rtol=0.1, atol=0.005)


def test_without_evaluations_it_is_the_prior():
    none = Process(TERMS, flat_prior(TERMS), torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0))
    new = candidates(5)
    torch.testing.assert_close(none.mean(new), TERMS(new) @ flat_prior(TERMS).mean)
    assert (none.draw(4000, torch.Generator().manual_seed(0))(new).std(0) > 1).all()


def test_each_function_can_have_candidates_of_its_own():
    known, new = candidates(12), candidates(30, seed=1)
    draws = Process(TERMS, flat_prior(TERMS), known, truth(known)).draw(5, torch.Generator().manual_seed(0))
    own = new[:20].view(5, 4, 4)
    everywhere = draws(new)
    expected = torch.stack([everywhere[number, 4 * number : 4 * number + 4] for number in range(5)])
    torch.testing.assert_close(draws(own), expected)


def test_the_same_generator_draws_the_same_functions():
    known = candidates(12)
    process = Process(TERMS, flat_prior(TERMS), known, truth(known))
    first, second, other = (process.draw(3, torch.Generator().manual_seed(seed))(known) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("form", PRIORS)
def test_functions_keep_a_share_of_their_deviations_from_the_mean(form):
    known, new = candidates(12), candidates(30, seed=1)
    process = Process(ALIKE, PRIORS[form], known, truth(known))
    whole, share, none = (
        process.draw(5, torch.Generator().manual_seed(0), exploration)(new) for exploration in (1.0, 0.3, 0.0)
    )
    mean = process.mean(new)
    torch.testing.assert_close(share, mean + 0.3 * (whole - mean))
    torch.testing.assert_close(none, mean.expand(5, -1))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_it_ranks_better_with_more_evaluations(noise):
    everything = candidates(400)
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    known, new = everything[order[:60]], everything[order[60:]]
    values = truth(known) + noise * torch.randn(60, generator=torch.Generator().manual_seed(2))
    errors = []
    for count in (0, 20, 60):
        process = Process(TERMS, flat_prior(TERMS), known[:count], values[:count])
        errors.append(1 - float(torch.corrcoef(torch.stack([process.mean(new), truth(new)]))[0, 1]))
    assert errors[2] < errors[1] < errors[0] and errors[2] < (0.1 if noise else 0.01)


def test_scale_and_noise_adapt_to_the_evaluations():
    """Values ten times as far apart are not taken for noise."""
    known = candidates(40)
    generator = torch.Generator().manual_seed(0)
    plain = Process(TERMS, flat_prior(TERMS), known, truth(known))
    loud = Process(TERMS, flat_prior(TERMS), known, truth(known) + torch.randn(len(known), generator=generator))
    wide = Process(TERMS, flat_prior(TERMS), known, 10 * truth(known))
    assert loud.prior.noise > plain.prior.noise
    assert wide.prior.amplitude > plain.prior.amplitude


@pytest.mark.parametrize("level", [0.0, 7.0, -500.0])
@pytest.mark.parametrize("unit", [1e-8, 1e-4, 0.01, 1.0, 40.0, 1e5])
def test_units_adapt_to_the_evaluations(unit, level):
    """A share of errors, points of per cent or images in a second are learnt from as well as a log divergence."""
    known, new = candidates(40), candidates(200, seed=1)
    process = Process(TERMS, flat_prior(TERMS), known, unit * (truth(known) + level))
    both = torch.stack([process.mean(new) / unit - level, truth(new)])
    assert float(torch.corrcoef(both)[0, 1]) > 0.98
    assert unit / 4 < process.prior.mean[1] / flat_prior(TERMS).mean[1] < unit * 4
    deviation = process.draw(500, torch.Generator().manual_seed(0))(new).std(0).mean() / unit
    assert 0.01 < deviation < 0.3


@pytest.mark.parametrize("seed", range(4))
def test_few_evaluations_of_the_prior_hardly_change_it(seed, monkeypatch):
    """Ten values of a function drawn from the prior; without the priors on the factors, they are adapted to."""
    known, flat = candidates(10, seed=seed), flat_prior(TERMS)
    nothing = Process(TERMS, flat, known[:0], torch.zeros(0, dtype=torch.float64))
    values = nothing.draw(1, torch.Generator().manual_seed(seed))(known)[0]

    def change():
        prior = Process(TERMS, flat, known, values).prior
        pairs = (prior.amplitude, flat.amplitude), (prior.noise, flat.noise), (prior.length, flat.length)
        return sum(abs(math.log(found / before)) for found, before in pairs)

    reluctant = change()
    monkeypatch.setattr("gnnrl_lightning.surrogate.prior.SPREADS", (2.0,) * 6)
    assert reluctant < 1 and reluctant < 0.7 * change()


def test_a_prior_scales_all_but_the_intercept_and_the_loss():
    factors = torch.tensor([2.0, 7.0, 5.0, 3.0, 0.5, 4.0], dtype=torch.float64)
    scaled = Prior(torch.zeros(3), torch.tensor([10.0, 1.0, 0.5]), 0.2, 0.6, 0.1, 0.1, 0.01).scaled(factors)
    assert scaled.scale.tolist() == [10.0, 1.0, 1.0]
    numbers = scaled.alike, scaled.pairs, scaled.amplitude, scaled.length, scaled.noise
    assert [float(each) for each in numbers] == pytest.approx([0.7, 0.05, 0.6, 0.3, 0.4])


def test_losses_of_single_groups_say_less_where_groups_may_go():
    kept, removable = flat_prior(TERMS), flat_prior(TERMS, removable=True)
    assert removable.mean[1] < kept.mean[1] and removable.scale[1] < kept.scale[1]
    assert torch.equal(removable.scale[2:], kept.scale[2:])
