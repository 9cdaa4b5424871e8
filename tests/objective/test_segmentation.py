"""Segmentation against torchmetrics, and by hand."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_jaccard_index

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.objective import Segmentation
from gnnrl_lightning.objective.protocol import added_up, measure


def drawn(examples=12, classes=4, size=(6, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(examples, classes, *size, generator=generator)
    return logits, torch.randint(classes, (examples, *size), generator=generator)


def figures(objective, logits, targets, batch=5):
    parts = zip(logits.split(batch), targets.split(batch), strict=True)
    return measure(objective, added_up([objective.measure(*part).sums for part in parts]), len(targets))


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_mean_iou_is_that_of_torchmetrics_over_all_pixels(ignored):
    logits, targets = drawn()
    targets[torch.rand(targets.shape, generator=torch.Generator().manual_seed(1)) < ignored] = 255
    found = figures(Segmentation(ignore_index=255), logits, targets)
    expected = multiclass_jaccard_index(logits, targets, 4, average="macro", ignore_index=255)
    assert found["mean_iou"] == pytest.approx(100 * float(expected))
    counted = targets != 255
    assert found["pixel_accuracy"] == pytest.approx(100 * float((logits.argmax(1) == targets)[counted].float().mean()))
    assert found["cross_entropy"] == pytest.approx(float(cross_entropy(logits, targets, ignore_index=255)))


def test_label_smoothing_is_of_the_loss_alone_and_ignores_what_is_ignored():
    logits, targets = drawn()
    targets[:, 0] = 255
    plain, smooth = (Segmentation(ignore_index=255, label_smoothing=share) for share in (0.0, 0.2))
    log_probs = logits.log_softmax(1)[:, :, 1:]
    uniform = -log_probs.mean(1).mean()
    expected = 0.8 * plain.loss(logits, targets) + 0.2 * uniform
    assert float(smooth.loss(logits, targets)) == pytest.approx(float(expected), rel=1e-5)
    assert figures(smooth, logits, targets) == figures(plain, logits, targets)
    with pytest.raises(UserError, match=r"label_smoothing is 1.5: expected a number from 0 to 1"):
        Segmentation(label_smoothing=1.5)


def test_a_class_that_does_not_occur_does_not_count_and_the_mean_is_no_mean_of_examples():
    """Two images of two pixels; class 2 is neither there nor predicted.

    Targets 0 0 and 0 1, predictions 0 1 and 0 1: IoU of class 0 is 2 of 3, of class 1 it is 1 of 2. The images alone
    have (1/2 + 0) / 2 and 1.
    """
    targets = torch.tensor([[0, 0], [0, 1]])
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1], [0, 1]]), 3).movedim(-1, 1).float()
    assert figures(Segmentation(), logits, targets)["mean_iou"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert Segmentation().measure(logits, targets).scores.tolist() == [0.25, 1.0]


def test_an_estimate_beyond_the_possible_is_cut():
    means = {name: torch.tensor([2.0, 0.0], dtype=torch.float64) for name in ("intersection", "union")}
    means["union"] = torch.tensor([1.0, 0.0], dtype=torch.float64)
    scalar = torch.tensor(1.0, dtype=torch.float64)
    assert Segmentation().values(means | {"pixels": scalar, "cross_entropy": scalar}) == {
        "mean_iou": 100.0,
        "pixel_accuracy": 100.0,
        "cross_entropy": 1.0,
    }


def test_the_distance_is_the_mean_divergence_of_the_pixels():
    """Two pixels, one of which has (1/4, 3/4) where the dense network has (1/2, 1/2)."""
    reference = torch.zeros(1, 2, 2)
    outputs = reference.clone()
    outputs[0, 1, 0] = math.log(3.0)
    divergence = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    plain = Segmentation(divergence_temperature=1)
    assert float(plain.distance(outputs, reference).sum()) == pytest.approx(divergence / 2)
    assert plain.agrees(outputs / 9, reference) and not plain.agrees(outputs, reference)
    softened = Segmentation(divergence_temperature=4)
    assert torch.equal(softened.distance(outputs, reference), 16 * plain.distance(outputs / 4, reference / 4))
    assert float(Segmentation().distillation(reference, reference, 4.0)) == 0


def test_outputs_of_another_size_are_refused():
    logits, targets = drawn()
    Segmentation().check(logits, targets)
    for outputs in (logits[..., :3], logits[:, 0]):
        with pytest.raises(UserError, match=r"expected \(12, 'classes', 6, 5\)"):
            Segmentation().check(outputs, targets)
    with pytest.raises(UserError, match=r"a tuple: expected logits \(examples, classes, ...\) of every pixel"):
        Segmentation().check((logits,), targets)
    said = r"the network has 4 classes, and a target is 7: expected 0 to 3, or ignore_index \(-100\)"
    with pytest.raises(UserError, match=said):
        Segmentation().check(logits, targets + 4)


def test_targets_are_drawn_pixel_by_pixel():
    logits = torch.tensor([0.0, math.log(3.0)])[None, :, None, None].expand(2, 2, 30, 40)
    targets = Segmentation().draw(logits, torch.Generator().manual_seed(0))
    assert targets.shape == (2, 30, 40) and float(targets.float().mean()) == pytest.approx(0.75, abs=0.03)


def test_masks_of_bytes_count_as_those_of_int64():
    logits, targets = drawn()
    objective = Segmentation()
    assert torch.equal(objective.loss(logits, targets.byte()), objective.loss(logits, targets))
    ours, theirs = (objective.measure(logits, each) for each in (targets.byte(), targets))
    assert torch.equal(ours.scores, theirs.scores)
    for read in (objective.loss, objective.measure):
        with pytest.raises(UserError, match=r"4 classes: Target \d is out of bounds.*, or ignore_index \(-100\)"):
            read(logits, targets + 4)
