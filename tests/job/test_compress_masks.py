"""Jobs that mask weights of linear layers: search, fine-tuning, artifact, further training."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gnnrl_lightning import Budget, GroupOptions, UserError, compress, load
from gnnrl_lightning.artifacts.artifact import read_recipe
from gnnrl_lightning.data import Digits
from gnnrl_lightning.job.stage_options import StageOptions
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.options import options_of

EXAMPLE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

TUNED = TrainingOptions(epochs=1, learning_rate=0.02, ema_decay=0.9)

MASKS = GroupOptions(masks=["torch.nn.Linear"])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 24), nn.ReLU(),
        nn.Linear(24, 10),
    )  # fmt: skip


def given(**more):
    return options_of(evaluations=24, calibration_examples=32, repair="refit", finetuning=TUNED, **more)


@pytest.mark.parametrize("by", ["agent", "dynamic_programming", "gaussian_process"])
def test_masks_are_chosen_held_while_training_and_saved(network, by, tmp_path):
    formats = {"formats": ("weights", "program"), "calibration_examples": 32}
    budget = Budget(macs=0.6, nonzero=0.3)
    method = {} if by == "agent" else {"by": by}
    options = given(delivery=formats)
    delivered = compress(network, Digits(), budget, groups=MASKS, options=options, folder=tmp_path, **method)
    figures, widths = delivered.figures["pruned"], delivered.widths
    assert list(widths) == ["0", "4", "4.weight", "6.weight"]
    assert figures["nonzero"] <= 0.3 * figures["nonzero"] / figures["nonzero_ratio"]
    weights = {name: parameter.detach() for name, parameter in delivered.network.named_parameters()}
    assert sum(int((each != 0).sum()) for each in weights.values()) <= figures["nonzero"] < figures["params"]
    masked = {name: 1 - float((weights[name] != 0).double().mean()) for name in ("4.weight", "6.weight")}
    for name, share in masked.items():
        assert share == pytest.approx(1 - widths[name] / 64, abs=1 / weights[name].numel())
    assert read_recipe(delivered.folder)["steps"][0]["masks"] == {name: widths[name] for name in masked}
    with torch.no_grad():
        expected = delivered.network(EXAMPLE)
        assert torch.equal(load(delivered.folder, network, EXAMPLE)(EXAMPLE), expected)
        torch.testing.assert_close(load(delivered.folder, format="program")(EXAMPLE), expected)
    assert delivered.figures["masked"] == ["4.weight", "6.weight"] and "nonzero" in str(delivered)


def test_refusals(network):
    budget = Budget(macs=0.6, nonzero=0.3)
    with pytest.raises(UserError, match=r"groups.masks needs budget.nonzero"):
        compress(network, Digits(), Budget(macs=0.6), groups=MASKS, options=given())
    with pytest.raises(UserError, match=r"groups.masks and stages.shares do not go together"):
        compress(network, Digits(), budget, groups=MASKS, options=replace(given(), stages=StageOptions([0.8])))
    with pytest.raises(UserError, match=r"groups.masks is 'torch.nn.Linear': expected a list of names, \[torch.nn"):
        GroupOptions(masks="torch.nn.Linear")
