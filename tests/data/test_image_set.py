import pytest
import torch

from gnnrl_lightning.data import ImageSet
from gnnrl_lightning.data.image_set import check_fits
from gnnrl_lightning.errors import UserError


def test_subset_keeps_images_and_labels_together():
    data = ImageSet(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), torch.tensor([0, 1, 2, 3]))
    part = data.subset(torch.tensor([3, 1]))
    assert len(part) == 2
    assert part.images.flatten().tolist() == part.labels.tolist() == [3, 1]


def test_labels_of_other_images_are_refused():
    with pytest.raises(UserError, match=r"\(2, 1, 4, 4\) and labels of shape \(3,\)"):
        ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), "images are float32: expected a tensor of uint8"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), "labels are float32: expected a tensor of int64"),
        ([[0]], torch.zeros(1, dtype=torch.int64), "images are list: expected a tensor of uint8"),
    ],
)
def test_other_types_are_refused(images, labels, message):
    with pytest.raises(UserError, match=message):
        ImageSet(images, labels)


def test_memory_limit_counts_one_byte_an_element():
    check_fits(1024, (1, 1024, 1024), 1.0)  # exactly 1 GiB
    with pytest.raises(UserError, match=r"1281167 images of 3x224x224 take 180 GiB decoded, .*memory_limit_gib=2:"):
        check_fits(1_281_167, (3, 224, 224), 2.0)
