"""The surrogate: processes of different forms, weighted by their evidence."""

import pytest
import torch

from gnnrl_lightning.surrogate.mixture import Surrogate
from gnnrl_lightning.surrogate.prior import prior_forms
from gnnrl_lightning.surrogate.terms import Terms
from tests.support.fakes import random_sensitivity

GROUPS = 12
DENSE = torch.full((GROUPS,), 40)
LIKENESS = torch.block_diag(torch.full((8, 8), 0.95), torch.full((4, 4), 0.95)) + 0.05 * torch.eye(GROUPS)


class Wide:
    """A graph of which only the widths count."""

    groups, widths = range(GROUPS), DENSE


TERMS = Terms(DENSE, random_sensitivity(Wide).of_groups, LIKENESS)
FORMS = prior_forms(TERMS)


def candidates(count, seed=0):
    keep = 0.1 + 0.9 * torch.rand(count, GROUPS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (keep * DENSE).round().long()


def of_groups(widths):
    """Groups act on their own, each in its own way."""
    signs = torch.tensor([1.0, -1.0] * 6, dtype=torch.float64)
    return -0.3 * TERMS.logs(widths) @ signs


def of_pairs(widths):
    """What a group loses depends on others."""
    x = TERMS.logs(widths) + 1
    return 0.3 * (x[:, :6] * x[:, 6:]).sum(1)


def of_kinds(widths):
    """Groups that are alike act alike."""
    x = TERMS.logs(widths)
    return -0.3 * x[:, :8].sum(1) + 0.2 * x[:, 8:].sum(1)


def surrogate_of(truth, count=40, forms=FORMS):
    known = candidates(count)
    return Surrogate(TERMS, forms, known, truth(known))


@pytest.mark.parametrize(("truth", "form"), [(of_groups, 0), (of_pairs, 1), (of_kinds, 2)])
def test_the_evaluations_tell_the_form(truth, form):
    assert int(surrogate_of(truth).weights.argmax()) == form


@pytest.mark.parametrize("truth", [of_pairs, of_kinds])
def test_the_right_form_predicts_better(truth):
    new = candidates(200, seed=1)
    errors = [
        float((surrogate.mean(new) - truth(new)).square().mean())
        for surrogate in (surrogate_of(truth, 80, FORMS[:1]), surrogate_of(truth, 80))
    ]
    assert errors[1] < 0.7 * errors[0]


def test_without_evaluations_all_forms_are_equally_probable():
    nothing = Surrogate(TERMS, FORMS, candidates(0), torch.zeros(0))
    assert nothing.weights.tolist() == pytest.approx([1 / 3] * 3)
    new = candidates(5)
    torch.testing.assert_close(nothing.mean(new), TERMS(new) @ FORMS[0].mean)


def test_draws_have_the_moments_of_the_mixture():
    surrogate, new = surrogate_of(of_pairs, 12), candidates(30, seed=1)
    assert 0.05 < float(surrogate.weights.max()) < 0.95
    draws = surrogate.draw(6000, torch.Generator().manual_seed(0))
    values = draws(new)
    assert len(draws) == 6000 and values.shape == (6000, 30)
    parts = [process.draw(6000, torch.Generator().manual_seed(1))(new) for process in surrogate.processes]
    squares = surrogate.weights @ torch.stack([part.square().mean(0) for part in parts])
    deviation = (squares - surrogate.mean(new).square()).sqrt()
    assert ((values.mean(0) - surrogate.mean(new)) / deviation).abs().max() < 0.1
    torch.testing.assert_close(values.std(0), deviation, rtol=0.1, atol=0.005)


def test_without_exploration_each_function_is_the_mean_of_a_process():
    surrogate, new = surrogate_of(of_pairs, 12), candidates(30, seed=1)
    values = surrogate.draw(50, torch.Generator().manual_seed(0), exploration=0)(new)
    means = torch.stack([process.mean(new) for process in surrogate.processes])
    distances = torch.cdist(values, means)
    assert float(distances.amin(1).max()) < 1e-6
    assert len(set(distances.argmin(1).tolist())) > 1


def test_each_function_can_have_candidates_of_its_own():
    surrogate, new = surrogate_of(of_pairs, 12), candidates(35, seed=1)
    draws = surrogate.draw(7, torch.Generator().manual_seed(0))
    everywhere = draws(new)
    expected = torch.stack([everywhere[number, 5 * number : 5 * number + 5] for number in range(7)])
    torch.testing.assert_close(draws(new.view(7, 5, GROUPS)), expected)


def test_forms_need_to_know_what_is_alike():
    assert len(prior_forms(Terms(DENSE, TERMS.losses))) == len(FORMS) - 1
