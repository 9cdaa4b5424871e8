"""Which candidates are trained, and which of them is best, on functions that are known."""

import math

import pytest
import torch

from gnnrl_lightning.search.finals import ELIGIBLE, Finals, expected_improvement, standardised

DENSE = torch.full((6,), 64)


def candidates(count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 65, (count, 6), generator=generator)


def logs(widths):
    return (widths.double() / 64).log()


def losses_before(widths):
    """The first half of the groups counts, and blocks of one channel cost nothing."""
    return -logs(widths)[:, :3].sum(1)


def losses_after(widths):
    """Narrow groups train badly, wherever they are."""
    return 0.05 * (losses_before(widths) - 3 * logs(widths).amin(1))


def trained(finals, after, count):
    found = {}
    while len(found) < count:
        (number,) = finals.next(found)
        found[number] = float(after[number])
    return found


def test_the_first_finalist_is_the_best_before_training_and_none_is_trained_twice():
    widths = candidates()
    before = losses_before(widths)
    finals = Finals(DENSE, widths, before)
    found = trained(finals, losses_after(widths), 8)
    assert next(iter(found)) == int(before.argmin()) and len(found) == 8
    assert set(found) <= set(finals.eligible) == set(before.argsort()[: math.ceil(ELIGIBLE * 40)].tolist())


def converged(seed):
    """Candidates of a search: random ones, and as many that are hardly different from the best of these."""
    generator = torch.Generator().manual_seed(seed)
    widths = candidates(20, seed)
    best = widths[losses_before(widths).argmin()]
    near = (best * torch.exp(0.25 * torch.randn(60, 6, generator=generator))).round().clamp(1, 64).long()
    near = near[losses_before(near).argsort()[:20]]
    return torch.cat([widths, near]).unique(dim=0)


def test_trainings_find_what_the_losses_before_them_hide():
    """Six trainings lose a third of what none loses, and less than training the six best before it: they are alike."""
    regrets = dict.fromkeys(("none", "six", "best six"), 0.0)
    for seed in range(30):
        widths = converged(seed)
        finals, after = Finals(DENSE, widths, losses_before(widths)), losses_after(widths)
        chosen = {
            "none": finals.eligible[0],
            "six": finals.best(trained(finals, after, 6)),
            "best six": min(finals.eligible[:6], key=lambda number: float(after[number])),
        }
        for name, number in chosen.items():
            regrets[name] += float(after[number] - after[finals.eligible].min())
    assert regrets["six"] < regrets["none"] / 3 and regrets["six"] < 0.8 * regrets["best six"], regrets


def test_several_at_once_differ_and_failures_are_passed_over():
    widths = candidates()
    finals = Finals(DENSE, widths, losses_before(widths))
    first = finals.next({}, count=3)
    assert len(set(first)) == 3 and first[0] == finals.eligible[0]
    assert finals.next({}, failed=finals.eligible[:1]) == [finals.eligible[1]]
    assert finals.next({}, failed=finals.eligible, count=3) == []


def test_the_posterior_follows_the_trainings():
    widths = candidates(12)
    finals = Finals(DENSE, widths, losses_before(widths))
    values = {0: 0.31, 5: 0.12, 7: 0.2}
    mean, deviation = finals.posterior(values)
    assert mean.shape == deviation.shape == (12,)
    others = [number for number in range(12) if number not in values]
    assert deviation[[*values]].max() < deviation[others].min()
    # a constant added to all values is added to the means
    higher, same = finals.posterior({number: value + 3 for number, value in values.items()})
    torch.testing.assert_close(higher, mean + 3)
    torch.testing.assert_close(same, deviation)
    order = torch.tensor([mean[number] for number in (5, 7, 0)])
    assert bool((order.diff() > 0).all())


def test_a_network_of_one_candidate_has_one_finalist():
    finals = Finals(DENSE, candidates(1), torch.zeros(1))
    assert finals.next({}, count=4) == [0] and finals.best({0: 0.7}) == 0


def test_expected_improvement_by_hand():
    """Half of the standard normal distribution has the mean 1 / sqrt(2 pi); without a doubt the gain itself remains."""
    gains = expected_improvement(torch.tensor([0.0, 2.0, -2.0]).double(), torch.tensor([1.0, 0.0, 0.0]).double())
    assert gains.tolist() == pytest.approx([1 / math.sqrt(2 * math.pi), 2.0, 0.0])


def test_columns_are_standardised_and_constant_ones_vanish():
    values = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert standardised(values).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
