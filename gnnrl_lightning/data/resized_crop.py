"""The random resized crop, the usual augmentation for ImageNet."""

import math
from dataclasses import dataclass

import torch
from PIL import Image

from gnnrl_lightning.checks import ascending

ATTEMPTS = 10  # maximum number of draws until a crop lies within the image, as in torchvision


@dataclass(frozen=True)
class ResizedCrop:
    """Crops a random rectangle from an image and resizes it (bilinear, antialiased).

    The rectangle's area is uniform, its aspect ratio log-uniform, and its position uniform within the image. If ten
    rectangles in a row are larger than the image, the largest centred rectangle with an allowed aspect ratio is used.

    Args:
        scale: Smallest and largest area, as shares of the image's area.
        ratio: Smallest and largest aspect ratio (width / height) before resizing.

    Source: Szegedy et al., Going Deeper with Convolutions, https://arxiv.org/abs/1409.4842, section 6; sampled as in
        torchvision.transforms.RandomResizedCrop.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A range is not ascending or not positive, or the area exceeds 1.
        """
        ascending("crop_scale", self.scale, "two shares of the area, 0 < low <= high <= 1", 1)
        ascending("crop_ratio", self.ratio, "two ratios width / height, 0 < low <= high")

    def draw(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
        """Draw a rectangle: top, left, height and width, in pixels.

        Args:
            height: Height of the image, in pixels.
            width: Width of the image, in pixels.
            generator: CPU generator.
        """
        low, high = (math.log(bound) for bound in self.ratio)
        for _ in range(ATTEMPTS):
            area = height * width * float(torch.empty(1).uniform_(*self.scale, generator=generator))
            ratio = float(torch.exp(torch.empty(1).uniform_(low, high, generator=generator)))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                top = int(torch.randint(0, height - h + 1, (1,), generator=generator))
                left = int(torch.randint(0, width - w + 1, (1,), generator=generator))
                return top, left, h, w
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, image: Image.Image, shape: tuple[int, int], generator: torch.Generator) -> Image.Image:
        """Crop a random rectangle and resize it to `shape` (height, width; in pixels)."""
        top, left, height, width = self.draw(image.height, image.width, generator)
        cut = image.crop((left, top, left + width, top + height))
        return cut.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
