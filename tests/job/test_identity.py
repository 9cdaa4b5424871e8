import torch
from torch import nn

from gnnrl_lightning.data import ExampleSet
from gnnrl_lightning.job.identity import named_tensors, sha256_of


def test_parameters_that_are_numbered_are_not_hidden_by_examples():
    """As those of a ParameterList are."""
    examples = named_tensors(ExampleSet(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)))
    network = nn.ParameterList([torch.zeros(3, 2), torch.zeros(3)])
    before = sha256_of({**network.state_dict(), **examples})
    with torch.no_grad():
        network[0].add_(1)
    assert sha256_of({**network.state_dict(), **examples}) != before
