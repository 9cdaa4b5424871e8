import pytest
import torch

from gnnrl_lightning.data import BatchLoader, ImageSet
from gnnrl_lightning.errors import UserError


def numbered(n):
    """Images whose label is their index."""
    labels = torch.arange(n)
    return ImageSet(labels.to(torch.uint8).view(n, 1, 1, 1), labels)


def seen(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return [(batch.targets.tolist(), batch.seed) for batch in loader]


def test_images_are_dealt_evenly_and_each_comes_once():
    loader = BatchLoader(numbered(100), 32, shuffle_seed=7)
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    assert [len(batch.targets) for batch in batches] == [25, 25, 25, 25]
    assert sorted(torch.cat([batch.targets for batch in batches]).tolist()) == list(range(100))
    assert all(torch.equal(batch.inputs.flatten().long(), batch.targets) for batch in batches)
    assert [len(batch.targets) for batch in BatchLoader(numbered(10), 4)] == [4, 3, 3]


def test_without_a_seed_the_order_stays_and_nothing_is_augmented():
    assert seen(BatchLoader(numbered(5), 3), epoch=4) == [([0, 1, 2], None), ([3, 4], None)]


def test_an_epoch_depends_on_seed_and_epoch_alone():
    first = BatchLoader(numbered(50), 16, shuffle_seed=1)
    epochs = [seen(first, epoch) for epoch in range(3)]
    assert seen(BatchLoader(numbered(50), 16, shuffle_seed=1), 2) == epochs[2]
    assert seen(BatchLoader(numbered(50), 16, shuffle_seed=2), 2) != epochs[2]
    assert len({seed for epoch in epochs for _, seed in epoch}) == 12


def test_a_restored_loader_resumes_within_the_epoch_and_then_from_the_start():
    loader = BatchLoader(numbered(50), 8, shuffle_seed=1)
    whole = seen(loader, 3)
    loader.set_epoch(3)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    restored = BatchLoader(numbered(50), 8, shuffle_seed=1)
    restored.load_state_dict(loader.state_dict())
    iter(restored)  # Lightning makes an iterator that it does not use
    assert seen(restored, 3) == whole[3:]
    assert seen(restored, 3) == whole
    twice = BatchLoader(numbered(50), 8, shuffle_seed=1)
    twice.load_state_dict(loader.state_dict())
    twice.set_epoch(3)
    next(iter(twice))
    restored.load_state_dict(twice.state_dict())  # of a run that was resumed itself
    assert seen(restored, 3) == whole[4:]
    assert seen(restored, 3) == whole
    after_an_epoch = BatchLoader(numbered(50), 8, shuffle_seed=1)
    after_an_epoch.load_state_dict(restored.state_dict())
    assert seen(after_an_epoch, 3) == whole


@pytest.mark.parametrize(("images", "batch_size", "devices"), [(64, 8, 2), (65, 8, 2), (67, 8, 4), (10, 4, 3)])
def test_devices_share_the_images_and_agree_on_the_number_of_batches(images, batch_size, devices):
    loaders = [BatchLoader(numbered(images), batch_size, 0, rank, devices) for rank in range(devices)]
    batches = [list(loader) for loader in loaders]
    assert {len(rank) for rank in batches} == {-(-images // (batch_size * devices))}
    labels = [batch.targets for rank in batches for batch in rank]
    assert sorted(torch.cat(labels).tolist()) == list(range(images))
    assert 1 <= min(map(len, labels)) and max(map(len, labels)) <= batch_size
    assert batches[0][0].seed != batches[1][0].seed


def test_a_device_without_images_is_refused():
    with pytest.raises(UserError, match="3 examples, 2 devices and a batch_size of 1, a device has no examples"):
        BatchLoader(numbered(3), 1, world_size=2)
    with pytest.raises(UserError, match="0 examples"):
        BatchLoader(numbered(0), 1)
