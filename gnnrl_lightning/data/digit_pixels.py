"""Handwritten digits at random positions on small canvases: a segmentation problem that needs no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from gnnrl_lightning.checks import whole
from gnnrl_lightning.data.example_data import ExampleData, LoadedExamples
from gnnrl_lightning.data.examples import ExampleSet
from gnnrl_lightning.seeds import generator_for

SIDE, INK = 20, 6
"""Side of a canvas in pixels; grey level (0 to 16) from which a pixel counts as ink."""


class DigitPixels(ExampleData):
    """Canvases `(1, 20, 20)` with four of scikit-learn's digits, and a class for each pixel `(20, 20)`.

    The classes are 0 for background, 1 for ink of an even digit and 2 for ink of an odd digit. Training and test
    canvases use different digits.

    Args:
        canvases: Number of training canvases; there are a quarter as many test canvases.
        batch_size: Training canvases per batch on each device.
        eval_batch_size: Canvases per batch in validation, test and scoring.
        holdout_size: Size of the holdout: a fraction of the training canvases if below 1, else a number.
        split_seed: Seed of the holdout.
        seed: Seed of the order of the training canvases; jobs have their own.
    """

    name = "digit_pixels"
    num_classes = 3

    def __init__(
        self,
        canvases: int = 1200,
        batch_size: int = 32,
        eval_batch_size: int = 256,
        holdout_size: float = 0.2,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, holdout_size, split_seed, seed)
        self.canvases = whole("canvases", canvases, 1)

    def load(self) -> LoadedExamples:
        """Draw the canvases."""
        levels, labels = load_digits(return_X_y=True)
        digits = torch.from_numpy(levels).view(-1, 8, 8), torch.from_numpy(labels)
        (first, last), (first_labels, last_labels) = (each.split([1400, len(each) - 1400]) for each in digits)
        return LoadedExamples(
            _strewn(first, first_labels, self.canvases, generator_for(0, 0)),
            _strewn(last, last_labels, max(1, self.canvases // 4), generator_for(0, 1)),
        )

    def normalize(self, inputs: Tensor) -> Tensor:
        """Scale grey levels 0 to 16 (uint8) to roughly zero mean and unit variance."""
        return (inputs.float() - 3.0) / 5.0


def _strewn(digits: Tensor, labels: Tensor, canvases: int, generator: torch.Generator) -> ExampleSet:
    """Canvases with a digit in each quarter, shifted by up to two pixels."""
    grey = torch.zeros(canvases, 1, SIDE, SIDE, dtype=torch.uint8)
    classes = torch.zeros(canvases, SIDE, SIDE, dtype=torch.int64)
    chosen = torch.randint(len(digits), (canvases, 4), generator=generator)
    moved = torch.randint(3, (canvases, 4, 2), generator=generator)
    for canvas in range(canvases):
        for quarter, (digit, (down, right)) in enumerate(
            zip(chosen[canvas].tolist(), moved[canvas].tolist(), strict=True)
        ):
            top, left = quarter // 2 * SIDE // 2 + down, quarter % 2 * SIDE // 2 + right
            place = (canvas, slice(top, top + 8), slice(left, left + 8))
            grey[canvas, 0, place[1], place[2]] = digits[digit].to(torch.uint8)
            classes[place] = (digits[digit] >= INK) * (1 + labels[digit] % 2)
    return ExampleSet(grey, classes)
