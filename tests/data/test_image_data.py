import pytest
import torch
from torchvision.transforms import functional as TF

from gnnrl_lightning.data import Batch, ImageData, ImageSet, LoadedImages, RawBatch
from gnnrl_lightning.errors import UserError


class Numbered(ImageData):
    """120 training images of three classes whose every pixel is their index, and 12 test images."""

    name = "numbered"

    def load(self):
        def images(n):
            labels = torch.arange(n)
            return ImageSet(labels.to(torch.uint8).view(n, 1, 1, 1).repeat(1, 3, 4, 4), labels % 3)

        return LoadedImages(images(120), images(12), ("a", "b", "c"))


def ready(**arguments):
    data = Numbered(**arguments)
    data.setup()
    return data


def indices(data):
    return data.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(("holdout_size", "held"), [(0.25, 30), (30, 30), (12.0, 12), (0.1, 12)])
def test_search_split_is_disjoint_and_stratified(holdout_size, held):
    data = ready(holdout_size=holdout_size)
    assert torch.bincount(data.holdout.labels).tolist() == [held // 3] * 3
    assert sorted(indices(data.train) + indices(data.holdout)) == list(range(120))
    assert not set(indices(data.train)) & set(indices(data.holdout))
    assert indices(data.holdout) == indices(ready(holdout_size=holdout_size, seed=9).holdout)
    assert indices(data.holdout) != indices(ready(holdout_size=holdout_size, split_seed=9).holdout)
    assert len(data.test) == 12


def test_loaders_give_training_images_shuffled_and_the_others_in_order():
    data = ready(batch_size=32, eval_batch_size=8, holdout_size=30)
    train = torch.cat([batch.targets for batch in data.train_dataloader()])
    assert len(data.train_dataloader()) == 3 and len(train) == 90
    assert not torch.equal(train, data.train.labels)
    searched = torch.cat([batch.inputs for batch in data.val_dataloader()])
    assert torch.equal(searched, data.holdout.images)
    tested = torch.cat([batch.inputs for batch in data.test_dataloader()])
    assert torch.equal(tested, data.test.images)


def test_normalisation_is_torchvisions():
    data = ready()
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    expected = torch.stack(
        [TF.normalize(TF.convert_image_dtype(image), list(data.mean), list(data.std)) for image in images]
    )
    torch.testing.assert_close(data.normalize(images), expected)
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    # (0 - 0.485) / 0.229 and (1 - 0.406) / 0.225
    assert data.normalize(black_and_white)[0, 0].item() == pytest.approx(-2.117904, abs=1e-6)
    assert data.normalize(black_and_white)[1, 2].item() == pytest.approx(2.64, abs=1e-6)


def test_training_batches_are_augmented_from_their_seed_and_others_only_normalised():
    data = ready(pad=1)
    batch = next(iter(data.train_dataloader()))
    first, again = (data.on_after_batch_transfer(batch, 0) for _ in range(2))
    assert isinstance(first, Batch) and first.inputs.dtype == torch.float32
    assert torch.equal(first.inputs, again.inputs)
    assert batch.seed is not None
    augmented, labels = data.augment(batch.inputs, batch.targets, torch.Generator().manual_seed(batch.seed))
    assert labels is batch.targets
    assert torch.equal(first.inputs, data.normalize(augmented))
    assert not torch.equal(augmented, batch.inputs)
    plain = data.on_after_batch_transfer(RawBatch(batch.inputs, batch.targets, None), 0)
    assert torch.equal(plain.inputs, data.normalize(batch.inputs))
    assert data.on_after_batch_transfer("another loader's", 0) == "another loader's"


@pytest.mark.parametrize("others", [{"pad": 0, "flip": False}, {"pad": 2, "flip": True}])
def test_cutout_is_the_mean_and_comes_after_the_crop(others):
    """The crop is that of the same seed without cutout."""
    images = torch.full((64, 3, 4, 4), 255, dtype=torch.uint8)
    plain, cut = (Numbered(cutout=side, **others) for side in (0, 2))
    before, _ = plain.augment(images, None, torch.Generator().manual_seed(3))
    after, _ = cut.augment(images, None, torch.Generator().manual_seed(3))
    replaced = (after == torch.tensor([124, 116, 104])[:, None, None]).all(1)  # 255 * 0.485, 0.456, 0.406
    assert torch.equal(after, torch.where(replaced[:, None], after, before))
    pixels = replaced.sum((1, 2))
    assert {1, 2, 4} == {*pixels.tolist()}  # at a corner, at a border, inside
    assert cut.normalize(after)[replaced[:, None].expand_as(after)].abs().max() < 0.01


def test_nothing_to_augment():
    images = torch.randint(0, 256, (3, 3, 4, 4), dtype=torch.uint8)
    assert Numbered(pad=0, flip=False).augment(images, None, torch.Generator())[0] is images


def test_calibration_images_come_from_the_training_images_and_nest():
    data = ready(holdout_size=60)
    few, many = data.calibration(10), data.calibration(60)
    assert torch.equal(few, many[:10])
    assert {tuple(image.shape) for image in many} == {(3, 4, 4)}
    values = many[:, 0, 0, 0].mul(data.std[0]).add(data.mean[0]).mul(255).round().int().tolist()
    assert sorted(values) == sorted(indices(data.train))
    with pytest.raises(UserError, match="number of calibration images is 61: expected a whole number from 1 to 60"):
        data.calibration(61)


def test_transform_record_is_plain_json():
    assert ready().transform_record() == {
        "dataset": "numbered",
        "channels": 3,
        "size": [4, 4],
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "classes": ["a", "b", "c"],
    }


def test_setup_loads_once_and_is_asked_for():
    data = Numbered()
    with pytest.raises(RuntimeError, match=r"Numbered.train: call setup\(\) first"):
        _ = data.num_classes
    data.setup("fit")
    train = data.train
    data.setup("test")
    assert data.train is train
    assert (data.num_classes, data.image_shape) == (3, (3, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
        ({"eval_batch_size": -1}, "eval_batch_size is -1: expected at least 1"),
        ({"pad": -1}, "pad is -1: expected at least 0"),
        ({"cutout": -1}, "cutout is -1: expected at least 0"),
        ({"cutout": 5}, "cutout is 5 with images of 4x4 pixels: expected a smaller square, or 0"),
        ({"seed": -1}, "seed is -1: expected a whole number from 0"),
        ({"holdout_size": 0}, "holdout_size is 0: expected a fraction between 0 and 1 or a number"),
        ({"holdout_size": 1.5}, "holdout_size is 1.5: expected"),
        ({"holdout_size": float("nan")}, "holdout_size is nan: expected"),
        ({"holdout_size": 120}, "cannot hold out 120 of 120 images"),
        ({"holdout_size": 0.001}, "cannot hold out 0 of 120 images"),
        ({"std": (1.0, 0.0, 1.0)}, "std is 0.0: expected a positive number"),
        ({"mean": (0.5,)}, "expected one value per channel for each"),
        ({"mean": (0.5,), "std": (0.5,)}, "images of numbered have 3 channels, but mean and std have 1 values"),
        (
            {"memory_limit_gib": 1e-6},
            "132 images of 3x4x4 take 5.9e-06 GiB decoded, more than memory_limit_gib=1e-06",
        ),
    ],
)
def test_bad_arguments_get_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        ready(**arguments)
    assert "\n" not in str(caught.value)
