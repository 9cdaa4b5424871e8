import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.training.optimizers import make_optimizer
from gnnrl_lightning.training.options import TrainingOptions


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def test_sgd_alone_has_nesterov_momentum_and_with_arguments_only_these():
    alone = make_optimizer("torch.optim.SGD", network().parameters(), 0.1, 0.01)
    assert [alone.defaults[name] for name in ("lr", "momentum", "nesterov")] == [0.1, 0.9, True]
    plain = make_optimizer({"class_path": "torch.optim.SGD", "init_args": {}}, network().parameters(), 0.1, 0.01)
    assert plain.defaults["momentum"] == 0
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"betas": (0.8, 0.9)}}
    found = make_optimizer(adam, network().parameters(), 0.1, 0.01)
    assert isinstance(found, torch.optim.AdamW) and found.defaults["betas"] == (0.8, 0.9)


def test_norms_and_biases_can_go_without_decay():
    some = network()
    some[3].weight.requires_grad_(False)
    decayed, spared = make_optimizer("torch.optim.AdamW", some.parameters(), 0.1, 0.01, decay_all=False).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0)
    assert [id(each) for each in decayed["params"]] == [id(some[0].weight)]
    assert [id(each) for each in spared["params"]] == [
        id(some[0].bias),
        *map(id, some[1].parameters()),
        id(some[3].bias),
    ]
    (every,) = make_optimizer("torch.optim.AdamW", some.parameters(), 0.1, 0.01).param_groups
    assert every["weight_decay"] == 0.01 and len(every["params"]) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("torch.optim.Adamw", "optimizer 'torch.optim.Adamw' cannot be imported"),
        ("torch.nn.Linear", "is no torch.optim.Optimizer"),
        ("torch.optim.LBFGS", "takes no weight_decay"),
        ({"class_path": "torch.optim.SGD", "init_args": {"nesterov": True}}, "refuses its arguments"),
        ({"class_path": "torch.optim.SGD", "init_args": {"lr": 1}}, "set learning_rate beside optimizer"),
        ({"path": "torch.optim.SGD"}, "expected class_path and init_args"),
    ],
)
def test_others_are_refused_before_anything_is_trained(given, message):
    with pytest.raises(UserError, match=message):
        TrainingOptions(optimizer=given)


def test_unknown_schedules_are_refused():
    with pytest.raises(UserError, match="did you mean cosine"):
        TrainingOptions(schedule="cosin")
