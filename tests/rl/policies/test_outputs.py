import pytest
import torch
from torch import nn

from gnnrl_lightning.rl.policies.outputs import as_output, check_policy

PARTS = {"probability": "actor", "value": "critic"}


def policy(actor, critic):
    return nn.ModuleDict({"actor": actor, "critic": critic})


def outputs(made):
    x = torch.ones(3, 2)
    return {name: (made[part](x)[:, 0], (3,)) for name, part in PARTS.items()}


def test_a_part_without_parameters_is_the_users_choice_if_another_one_is_trained():
    for made in (
        policy(nn.Identity(), nn.Linear(2, 1)),
        policy(nn.Linear(2, 1), nn.Linear(2, 1).requires_grad_(False)),
    ):
        check_policy(made, outputs(made), PARTS)
    fixed = policy(nn.Identity(), nn.Identity())
    with pytest.raises(ValueError, match="nothing of it can be trained: expected at least one parameter that requires"):
        check_policy(fixed, outputs(fixed), PARTS)
    check_policy(fixed, outputs(fixed), {})  # a learner that does not say what it trains


def test_outputs_are_tensors_of_a_shape():
    assert as_output(torch.zeros(3), "the critic", (3,)).shape == (3,)
    with pytest.raises(TypeError, match=r"^the critic returns a NoneType: expected a tensor of shape \(3,\): values$"):
        as_output(None, "the critic", (3,), meaning="values")
    with pytest.raises(ValueError, match=r"^the actor returns \(3,\): expected \(3, 2\) or \(3, 3\)$"):
        as_output(torch.zeros(3), "the actor", (3, 2), (3, 3))
