import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as TF

from gnnrl_lightning.data import BatchLoader, Draw, ImageFiles
from gnnrl_lightning.data.decoding import Decoder
from gnnrl_lightning.data.resized_crop import ResizedCrop
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.seeds import derived_seed

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* use of fork.* may lead to deadlocks:DeprecationWarning"),
]

COUNT = 30


@pytest.fixture(autouse=True)
def no_worker_is_left_behind():
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """JPEG files of several sizes, one colour each: the grey level, give or take one, is 8 x the index."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(COUNT):
        size = (20 + index, 35 - index // 2)
        Image.new("RGB", size, (8 * index,) * 3).save(folder / f"{index}.jpg", quality=100)
    return tuple(str(folder / f"{index}.jpg") for index in range(COUNT))


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Files whose crops all differ."""
    folder = tmp_path_factory.mktemp("noise")
    for index in range(COUNT):
        pixels = np.random.default_rng(index).integers(0, 256, (20 + index, 35 - index // 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return tuple(str(folder / f"{index}.png") for index in range(COUNT))


def files(paths, workers=0, crop=None, resize=8):
    return ImageFiles(paths, torch.arange(len(paths)), Decoder((8, 8), resize), crop, workers)


def which(pixels):
    """The indices of images of one colour."""
    assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (3, 8, 8)
    return pixels.float().mean((1, 2, 3)).div(8).round().int().tolist()


def epoch(images, number=0, **devices):
    loader = BatchLoader(images, 8, shuffle_seed=3, **devices)
    loader.set_epoch(number)
    return list(loader)


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) and a.seed == b.seed
        for a, b in zip(first, second, strict=True)
    )


def test_pixels_belong_to_the_labels_in_batches_and_in_memory(paths):
    images = files(paths, crop=ResizedCrop())
    batches = epoch(images)
    assert [len(batch.targets) for batch in batches] == [8, 8, 7, 7]
    assert all(which(batch.inputs) == batch.targets.tolist() for batch in batches)
    assert sorted(torch.cat([batch.targets for batch in batches]).tolist()) == list(range(COUNT))
    part = images.subset(torch.tensor([7, 2, 29]))
    assert (len(part), part.image_shape) == (3, (3, 8, 8))
    assert which(part.in_memory().images) == part.in_memory().labels.tolist() == [7, 2, 29]


def test_batches_without_a_seed_are_what_is_in_memory(noise):
    images = files(noise, workers=1, crop=ResizedCrop())
    read = torch.cat([batch.inputs for batch in BatchLoader(images, 7)])
    assert torch.equal(read, images.in_memory().images)


def test_crops_are_torchvisions_from_the_seed_of_the_batch(noise):
    crop = transforms.RandomResizedCrop(8, (0.2, 0.9), (0.7, 1.4))
    for batch in epoch(files(noise, crop=ResizedCrop((0.2, 0.9), (0.7, 1.4)))):
        torch.manual_seed(derived_seed(batch.seed))
        expected = [TF.pil_to_tensor(crop(Image.open(noise[label]))) for label in batch.targets.tolist()]
        assert torch.equal(batch.inputs, torch.stack(expected))


@pytest.mark.parametrize("workers", [1, 2])
def test_order_and_crops_do_not_depend_on_the_number_of_workers(noise, workers):
    alone = epoch(files(noise, crop=ResizedCrop()), 5)
    assert same(epoch(files(noise, workers, ResizedCrop()), 5), alone)
    later = epoch(files(noise, workers, ResizedCrop()), 6)
    assert not same(later, alone)


def test_the_global_generator_is_left_alone(noise):
    before = torch.get_rng_state()
    epoch(files(noise, crop=ResizedCrop()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restored_loader_resumes_within_the_epoch(noise, workers):
    images = files(noise, workers, ResizedCrop())
    whole, loader = epoch(images, 2), BatchLoader(images, 8, shuffle_seed=3)
    loader.set_epoch(2)
    iterator = iter(loader)
    next(iterator), next(iterator)  # the workers are ahead, but only batches that were read count
    restored = BatchLoader(images, 8, shuffle_seed=3)
    restored.load_state_dict(loader.state_dict())
    restored.set_epoch(2)
    assert same(list(restored), whole[2:])
    assert same(list(restored), whole)
    iterator.close()


def test_two_devices_share_the_images(paths):
    first, second = (epoch(files(paths, crop=ResizedCrop()), rank=rank, world_size=2) for rank in range(2))
    assert len(first) == len(second) == 2  # 30 images, 16 a step
    seen = [index for batch in [*first, *second] for index in which(batch.inputs)]
    assert sorted(seen) == list(range(COUNT))
    assert {batch.seed for batch in first}.isdisjoint(batch.seed for batch in second)


@pytest.mark.parametrize(("workers", "ahead"), [(0, 0), (1, 2), (2, 4)])
def test_no_more_batches_are_begun_than_the_workers_may_have_ready(paths, workers, ahead):
    begun = []

    def draws():
        for index in range(COUNT):
            begun.append(index)
            yield Draw(torch.tensor([index]), None)

    batches = files(paths, workers).read(draws())
    assert begun == []
    for handed_out in range(1, 4):
        pixels, labels = next(batches)
        assert which(pixels) == labels.tolist() == [handed_out - 1]
        assert handed_out <= len(begun) <= handed_out + ahead
    batches.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("contents", [b"not an image", None], ids=["damaged", "missing"])
def test_a_broken_image_is_named_in_one_line(paths, tmp_path, workers, contents):
    broken = tmp_path / "broken.jpg"
    if contents is not None:
        broken.write_bytes(contents)
    batches = iter(BatchLoader(files((*paths[:3], str(broken)), workers), 2))
    assert which(next(batches).inputs) == [0, 1]
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read as an image") as caught:
        next(batches)
    assert "\n" not in str(caught.value)


def test_an_image_that_was_cut_short_is_named(tmp_path, noise):
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(noise[0]).read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cut\.png cannot be read as an image"):
        list(files((str(cut),), crop=ResizedCrop()).read([Draw(torch.tensor([0]), 1)]))


def test_another_size_is_refused_where_nothing_is_resampled(paths):
    with pytest.raises(UserError, match=r"/0\.jpg is 35x20, other images are 8x8: set `size`"):
        list(BatchLoader(files(paths, resize=None), 8))
