import math

import pytest
import torch

from gnnrl_lightning.training.schedules import SCHEDULES, cosine, linear, one_cycle


def test_cosine_by_hand():
    # ten steps, four of warm-up, then a half cosine over six
    factors = [cosine(step, 10, 4) for step in range(11)]
    assert factors[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert factors[5] == pytest.approx((1 + math.cos(math.pi / 6)) / 2)
    assert factors[7] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.0)
    assert cosine(0, 10, 0) == 1.0
    assert 0 <= cosine(3, 2, 5) < 1  # nothing but warm-up


def test_linear_by_hand():
    assert [linear(step, 6, 2) for step in range(7)] == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize(("steps", "warmup"), [(20, 6), (11, 5)])
def test_one_cycle_is_that_of_pytorch(steps, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, steps, pct_start=warmup / steps, cycle_momentum=False)
    for step in range(steps):
        assert one_cycle(step, steps, warmup) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        if step + 1 < steps:
            theirs.step()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 0.5, 3, 20])
def test_every_schedule_stays_between_0_and_1(name, warmup):
    factors = [SCHEDULES[name](step, 10, warmup) for step in range(11)]
    assert all(0 <= factor <= 1 for factor in factors) and max(factors) > 0.4
