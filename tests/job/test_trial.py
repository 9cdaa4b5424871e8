"""What is of the user's own is tried on the untrained network: each mistake is one line, before any training."""

import pytest
import torch
from torch import nn

from gnnrl_lightning import Budget, NetworkSpec, Task, UserError, trace
from gnnrl_lightning.candidates.pruner import Pruner
from gnnrl_lightning.data import Digits
from gnnrl_lightning.importance import importance_scores
from gnnrl_lightning.job import check
from gnnrl_lightning.job.trial import unmodified
from gnnrl_lightning.repair.table import Repair
from tests.support.options import options_of

NETWORK = NetworkSpec("Perceptron", {"inputs": 64, "hidden": [12, 10], "outputs": 10})


class Flat(Digits):
    """Digits as 64 numbers."""

    def normalize(self, inputs):
        return super().normalize(inputs).flatten(1)


def own_sum(network, parameters, calibration):
    with torch.no_grad():
        network[0].weight.zero_()
    return parameters


def too_few(network, parameters):
    return parameters


def absent(dense, pruned, selection):
    return pruned.conv9


def to_nothing(dense, pruned, selection):
    with torch.no_grad():
        pruned[4].bias.fill_(float("nan"))


def another(dense, pruned, selection):
    return nn.Linear(64, 10)


def narrower(dense, pruned, selection):
    pruned[4] = nn.Linear(pruned[4].in_features, 9)


def broken(dense, pruned, selection):
    pruned[4] = nn.Linear(1, 10)


def of_the_dense(dense, pruned, selection):
    with torch.no_grad():
        dense.network[2].bias.add_(1)


def one_row(pruner, ratios, advance):
    return torch.zeros(1, len(ratios))


def as_list(pruner, ratios, advance):
    return [[0.0] * len(ratios)] * 2


def missing(pruner, ratios, advance):
    return {}["group"]


PLACE = r"\(test_trial.py, line \d+\)"
CASES = [
    ({"importance": own_sum}, r"^importance own_sum modifies 0.weight of the dense network: expected it unchanged"),
    ({"importance": too_few}, r"^candidate.importance 'too_few': .*; this one takes \(network, parameters\)$"),
    ({"repair": absent}, rf"^repair absent fails: .*has no attribute 'conv9' {PLACE}; expected \(dense, pruned net"),
    ({"delivery": {"repair": absent}}, r"^repair absent fails: "),
    (
        {"repair": to_nothing},
        r"^repair to_nothing leaves 10 NaN or infinite values in 4.bias .*: expected",
    ),
    ({"repair": another}, r"^repair another returns a Linear, which nothing reads: expected .* in place$"),
    ({"repair": narrower}, r"^repair narrower leaves a network with outputs of 9: expected 10$"),
    ({"repair": broken}, r"^repair broken leaves a network that does not run: mat1 and mat2 .*; change it$"),
    ({"repair": of_the_dense}, r"^repair of_the_dense modifies 2.bias of the dense network: expected it unchanged"),
    (
        {"sensitivity": one_row},
        r"^sensitivity one_row returns a tensor of shape \(1, 5\): expected .* \(2, 5\)",
    ),
    ({"sensitivity": as_list}, r"^sensitivity as_list returns a list: expected a tensor of losses of shape \(2, 5\)"),
    ({"sensitivity": missing}, rf"^sensitivity missing fails: no key 'group' {PLACE}; expected \(pruner, ratios"),
]


@pytest.mark.parametrize(("given", "message"), CASES, ids=[message[1:30] for _, message in CASES])
def test_a_mistake_is_one_line_before_the_training(given, message):
    with pytest.raises(UserError, match=message):
        check(Task(NETWORK, Flat()), Budget(macs=0.5), options_of(**given))


def test_what_is_right_passes_and_leaves_the_network_as_it_is():
    seen = []

    def constant(dense, pruned, selection):
        seen.append(len(dense.calibration))
        pruned.train()

    def flat(pruner, ratios, advance):
        return torch.full((2, len(ratios)), float("nan"))  # of an untrained network

    plain = check(Task(NETWORK, Flat()), Budget(macs=0.5), options_of()).network.state_dict()
    found = check(Task(NETWORK, Flat()), Budget(macs=0.5), options_of(repair=constant, sensitivity=flat))
    assert seen == [8] and all(torch.equal(tensor, plain[name]) for name, tensor in found.network.state_dict().items())


def test_a_repair_may_leave_the_training_mode_on():
    """The candidate is in evaluation mode all the same."""
    task = Task(NETWORK, Flat())
    network = task.build()
    graph = task.trace(network)

    def trained(dense, pruned, selection) -> None:
        pruned.train()

    repair = Repair(trained, reads_examples=False)
    pruner = Pruner(graph, network, task.example(4), repair=repair)
    assert not any(module.training for module in pruner.prune(pruner.plan(graph.widths // 2)).modules())


def test_so_may_an_importance():
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).eval()
    graph = trace(network, torch.zeros(2, 4))

    def trained(network, parameters, calibration):
        network.train()
        return {name: weight.abs() for name, weight in parameters.items()}

    importance_scores(graph, network, trained, None)
    assert not any(module.training for module in network.modules())


def test_a_buffer_that_changes_is_named():
    norm = nn.BatchNorm1d(3)
    with pytest.raises(UserError, match=r"^mine modifies running_mean of the dense network"), unmodified(norm, "mine"):
        norm(torch.randn(8, 3))
    with unmodified(norm.eval(), "mine"):
        norm(torch.randn(8, 3))
