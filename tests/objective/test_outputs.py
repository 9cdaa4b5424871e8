"""Networks with several outputs, one of which counts."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Classification, Segmentation
from gnnrl_lightning.objective.outputs import main_output


class Auxiliary(NamedTuple):
    logits: torch.Tensor
    aux: torch.Tensor


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()


WAYS = {
    "dictionary": lambda logits: {"features": torch.zeros(len(logits), 3), "logits": logits},
    "out": lambda logits: {"out": logits, "aux": logits + 1},
    "named tuple": lambda logits: Auxiliary(logits, logits + 1),
    "object": Answer,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("objective", [Classification(), Segmentation()], ids=["classification", "segmentation"])
def test_the_output_that_counts_is_found_by_its_name(objective, way):
    """All that an objective computes is what it computes of that output alone."""
    shape = (6, 7) if isinstance(objective, Classification) else (6, 7, 4, 5)
    logits, reference = torch.randn(2, *shape).unbind()
    targets = torch.randint(7, (shape[0], *shape[2:]))
    several, theirs = WAYS[way](logits), WAYS[way](reference)
    objective.check(several, targets)
    assert torch.equal(objective.loss(several, targets), objective.loss(logits, targets))
    ours, alone = objective.measure(several, targets), objective.measure(logits, targets)
    assert torch.equal(ours.scores, alone.scores) and all(torch.equal(ours.sums[k], alone.sums[k]) for k in alone.sums)
    assert torch.equal(objective.distance(several, theirs), objective.distance(logits, reference))
    assert torch.equal(objective.distillation(several, theirs, 4.0), objective.distillation(logits, reference, 4.0))
    assert objective.agrees(several, several) and not objective.agrees(several, theirs)
    drawn = [objective.draw(each, torch.Generator().manual_seed(0)) for each in (several, logits)]
    assert torch.equal(*drawn)


NONE = (), {"scores": torch.zeros(2, 3)}, {"logits": "a"}, torch.zeros(2), "logits", None


@pytest.mark.parametrize("outputs", NONE)
def test_outputs_without_such_a_name_are_refused(outputs):
    with pytest.raises(UserError, match=r"^the network returns .*: expected numbers, as its only output or one named"):
        main_output(outputs, "numbers", 2, 2)
