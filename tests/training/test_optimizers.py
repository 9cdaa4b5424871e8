import pytest
import torch
from torch import nn

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.training.optimizers import make_optimizer
from gnnrl_lightning.training.options import TrainingOptions


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def with_arguments(path, **arguments):
    return {"class_path": path, "init_args": arguments}


@pytest.mark.parametrize(
    ("given", "kind", "defaults"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (with_arguments("sgd", momentum=0.5), torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
        ("torch.optim.SGD", torch.optim.SGD, {"momentum": 0, "nesterov": False}),
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        (with_arguments("torch.optim.RAdam", betas=(0.8, 0.9)), torch.optim.RAdam, {"betas": (0.8, 0.9)}),
        ({"class_path": "sgd", "init_args": None}, torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_optimizers_by_name_and_path(given, kind, defaults):
    made = make_optimizer(given, network().parameters(), 0.1, 0.01)
    assert type(made) is kind
    assert made.defaults.items() >= ({"lr": 0.1, "weight_decay": 0.01} | defaults).items()


def test_norms_and_biases_can_go_without_decay():
    some = network()
    some[3].weight.requires_grad_(False)
    decayed, spared = make_optimizer("adamw", some.parameters(), 0.1, 0.01, decay_all=False).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0)
    assert [id(each) for each in decayed["params"]] == [id(some[0].weight)]
    assert [id(each) for each in spared["params"]] == [
        id(some[0].bias),
        *map(id, some[1].parameters()),
        id(some[3].bias),
    ]
    (every,) = make_optimizer("adamw", some.parameters(), 0.1, 0.01).param_groups
    assert every["weight_decay"] == 0.01 and len(every["params"]) == 5
    (alone,) = make_optimizer("adamw", some[1].parameters(), 0.1, 0.01, decay_all=False).param_groups
    assert alone["weight_decay"] == 0


class Passing(torch.optim.AdamW):
    """It passes on whatever arguments it gets."""

    def __init__(self, params, **options):
        super().__init__(params, **options)


def test_an_optimizer_that_takes_any_argument_takes_those_of_ours():
    made = make_optimizer(with_arguments(f"{__name__}.Passing", eps=0.5), network().parameters(), 0.1, 0.01)
    assert type(made) is Passing
    assert made.defaults.items() >= {"lr": 0.1, "weight_decay": 0.01, "eps": 0.5}.items()


def no_optimizer(params, lr, weight_decay):
    return [params, lr, weight_decay]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("adam", r"optimizer is 'adam' \(did you mean adamw\?\)"),
        ("torch.optim.Adamw", "optimizer 'torch.optim.Adamw' cannot be imported"),
        ("torch.nn.Linear", "'torch.nn.Linear' takes no lr"),
        ("torch.pi", "optimizer 'torch.pi': expected a torch.optim.Optimizer, .* not a float"),
        ("torch.optim.LBFGS", "takes no weight_decay: choose another"),
        (f"{__name__}.no_optimizer", "makes a list: expected a torch.optim.Optimizer"),
        (with_arguments("torch.optim.SGD", nesterov=True), "refuses its arguments {'nesterov': True}: Nesterov"),
        (with_arguments("sgd", lr=1), "set learning_rate beside optimizer"),
        ({"path": "torch.optim.SGD"}, "expected class_path and init_args"),
    ],
)
def test_others_are_refused_before_anything_is_trained(given, message):
    with pytest.raises(UserError, match=message):
        TrainingOptions(optimizer=given)


def test_unknown_schedules_are_refused():
    with pytest.raises(UserError, match="did you mean cosine"):
        TrainingOptions(schedule="cosin")
