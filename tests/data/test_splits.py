import pytest
import torch

from gnnrl_lightning.data.splits import stratified_split
from gnnrl_lightning.errors import UserError


def test_stratified_split_takes_each_class_in_proportion_and_largest_remainders_first():
    # 10 * (20, 15, 7, 3) / 45 = 4.44, 3.33, 1.56, 0.67: one more for each of the last two
    labels = torch.arange(4).repeat_interleave(torch.tensor([20, 15, 7, 3]))[torch.randperm(45)]
    rest, held = stratified_split(labels, 10, seed=3)
    assert torch.bincount(labels[held]).tolist() == [4, 3, 2, 1]
    assert torch.equal(torch.cat([rest, held]).sort().values, torch.arange(45))
    assert torch.equal(held, held.sort().values)


def test_equal_remainders_go_to_the_smaller_labels():
    _, held = stratified_split(torch.tensor([0, 1, 2, 3]).repeat(2), 2, seed=0)
    assert sorted((held % 4).tolist()) == [0, 1]


def test_the_seed_decides_which_images():
    labels = torch.arange(10).repeat(20)
    first, again, other = (stratified_split(labels, 40, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("held", [0, 5, -1])
def test_an_empty_side_is_refused(held):
    with pytest.raises(
        UserError, match=f"cannot hold out {held} of 5 images: expected a holdout_size that makes it 1 to 4"
    ):
        stratified_split(torch.zeros(5, dtype=torch.int64), held, seed=0)
