import torch
from torch import nn

from gnnrl_lightning.data import ExampleSet
from gnnrl_lightning.job.identity import agent_settings, named_tensors, settings_text, sha256_of
from gnnrl_lightning.rl.learners import GNNRL


class Cyclic(GNNRL):
    def __init__(self, rates):
        super().__init__()
        self.rates = rates


def test_tuples_among_the_arguments_of_ones_own_agent_tell_it_apart():
    first, second = (settings_text(agent_settings(Cyclic(rates))) for rates in ((0.1, 0.2), (0.1, 0.3)))
    assert first != second and first == settings_text(agent_settings(Cyclic((0.1, 0.2))))


def test_parameters_that_are_numbered_are_not_hidden_by_examples():
    """As those of a ParameterList are."""
    examples = named_tensors(ExampleSet(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)))
    network = nn.ParameterList([torch.zeros(3, 2), torch.zeros(3)])
    before = sha256_of({**network.state_dict(), **examples})
    with torch.no_grad():
        network[0].add_(1)
    assert sha256_of({**network.state_dict(), **examples}) != before
