"""Jobs in which groups go entirely: search, delivery, artifact."""

import json

import pytest
import torch
from torch import nn

from gnnrl_lightning import Budget, GroupOptions, UserError, compress, load
from gnnrl_lightning.artifacts.artifact import read_recipe
from gnnrl_lightning.artifacts.recipe import RECIPE, recipe_hash
from gnnrl_lightning.data import Digits
from gnnrl_lightning.rl.learners import GNNRL
from gnnrl_lightning.training.options import TrainingOptions
from tests.support.options import options_of

EXAMPLE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

TUNED = TrainingOptions(epochs=1, learning_rate=0.02)


class Blocks(nn.Module):
    """Two residual blocks for the digits."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 8, 2, stride=2), nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList(self._block() for _ in range(2))
        self.fc = nn.Linear(8, 10)

    @staticmethod
    def _block():
        convolutions = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        return nn.Sequential(convolutions[0], nn.BatchNorm2d(8), nn.ReLU(), convolutions[1], nn.BatchNorm2d(8))

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        for block in self.blocks:
            x = (x + block(x)).relu()
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Blocks()


def test_a_budget_below_one_channel_each_removes_blocks(network, tmp_path):
    """Left are the stem, 16 positions of 8 channels with 4 inputs each, and the classifier."""
    formats = {"formats": ("weights", "program"), "calibration_examples": 32}
    options = options_of(delivery=formats, evaluations=40, calibration_examples=32, repair="refit", finetuning=TUNED)
    given = {"by": "dynamic_programming", "options": options, "folder": tmp_path / "run"}
    whole = GroupOptions(limits={"stem": {"min": "100%"}})
    with pytest.raises(UserError, match="cannot be reached"):
        compress(network, Digits(), Budget(macs=2000), groups=whole, **(given | {"folder": None}))
    delivered = compress(network, Digits(), Budget(macs=2000, min_width=0), groups=whole, **given)
    assert [delivered.widths[name] for name in delivered.widths] == [8, 0, 0]
    assert sum(isinstance(module, nn.Conv2d) for module in delivered.network.modules()) == 1
    assert delivered.figures["pruned"]["macs"] == 16 * 4 * 8 + 80
    assert "2 of 6 layers are left" in str(delivered)
    with torch.no_grad():
        expected = delivered.network(EXAMPLE)
        assert torch.equal(load(delivered.folder, network, EXAMPLE)(EXAMPLE), expected)
        torch.testing.assert_close(load(delivered.folder, format="program")(EXAMPLE), expected)
    recipe = read_recipe(delivered.folder)
    assert recipe["steps"][0]["kept"]["blocks.0.0"] == []
    recipe["steps"][0]["kept"]["stem"] = []
    recipe["sha256"][RECIPE] = recipe_hash(recipe)
    (delivered.folder / RECIPE).write_text(json.dumps(recipe))
    with pytest.raises(UserError, match=r"the recipe keeps \[\] of stem: expected ascending channels"):
        load(delivered.folder, network, EXAMPLE)


def test_an_agent_searches_among_candidates_without_blocks(network):
    agent = GNNRL(episodes_per_iteration=4, proxy_warmup=2, proxy_between=1, proxy_episodes=8, epochs=1)
    options = options_of(
        evaluations=34,
        calibration_examples=32,
        repair="refit",
        finetuning=TrainingOptions(epochs=0),
        surrogate=None,
        reward="divergence",
        delivery={"calibration_examples": 32},
    )
    delivered = compress(network, Digits(), Budget(macs=0.06, min_width=0), by=agent, options=options)
    assert 0 in delivered.widths.values()
    assert delivered.figures["pruned"]["macs_ratio"] <= 0.06
