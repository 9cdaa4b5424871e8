from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.speed.backend import NETWORK, Backend
from gnnrl_lightning.speed.backends import BACKENDS
from gnnrl_lightning.speed.operators import Form
from gnnrl_lightning.speed.options import LatencyOptions
from gnnrl_lightning.speed.timer import LEAST_ROUNDS, TABLE_ROUNDS, RealTimer

EXAMPLE = torch.zeros(1, 4)


def timed(monkeypatch, keeps):
    """A timer with a back end that notes what it prepares and where it runs."""
    log, opened = [], []

    def prepare(network, inputs, key):
        log.append((key, inputs))
        return lambda given: lambda: network(*given) if isinstance(given, tuple) else network(given)

    backend = Backend(lambda threads: opened.append(threads) or prepare, keeps=keeps, device=torch.device("cpu"))
    monkeypatch.setitem(BACKENDS._rows, "noted", backend)
    options = LatencyOptions(batch_size=3, threads=1, backend="noted", cache=None)
    # The back end computes on the CPU, whatever the device of the job.
    return RealTimer(options, torch.device("meta"), EXAMPLE), log, opened


@pytest.mark.parametrize("keeps", [True, False])
def test_networks_and_operators_are_prepared_once_or_in_each_round(monkeypatch, keeps):
    timer, log, opened = timed(monkeypatch, keeps)
    nets = [nn.Linear(4, width) for width in range(1, 21)]
    assert len(timer.networks(nets)) == 20
    assert len(log) == (20 if keeps else 20 * LEAST_ROUNDS)
    assert all(key == NETWORK and tuple(inputs.shape) == (3, 4) for key, inputs in log) and opened == [1]
    log.clear()
    form = Form("linear", ((Fraction(1),),), (Fraction(1),), (("bias", True),))
    assert len(timer.operators([(form, 4, 2), (form, 2, 5)])) == 2
    assert len(log) == (2 if keeps else 2 * TABLE_ROUNDS) and {key for key, _ in log} == {"linear bias True"}
    assert opened == [1, 1]  # what was prepared for operators is not kept


@pytest.mark.parametrize("keeps", [True, False])
def test_a_check_runs_the_network_if_it_has_to_be_prepared(monkeypatch, keeps):
    timer, log, _ = timed(monkeypatch, keeps)
    timer.check(nn.Linear(4, 2))
    assert len(log) == keeps


def raising(network, inputs):
    raise KeyError("no such\nnetwork")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            raising,
            r"latency.backend raising fails: .*no such.*; expected \(network, inputs\) -> a function without argum",
        ),
        (
            lambda network, inputs: 3,
            r"latency.backend .*lambda> returns a int: expected \(network, inputs\) -> a functi",
        ),
    ],
)
def test_a_back_end_of_the_users_that_fails_is_one_line(own, message):
    options = replace(LatencyOptions(batch_size=3, threads=1, cache=None), backend=own)
    timer = RealTimer(options, torch.device("cpu"), EXAMPLE)
    with pytest.raises(UserError, match=message) as error:
        timer.networks([nn.Linear(4, 2)])
    assert "\n" not in str(error.value)
