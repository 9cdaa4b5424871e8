import itertools
import os
import socket
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms import functional as TF

from gnnrl_lightning.data import ImageFolder, StreamingImageFolder
from gnnrl_lightning.data.image_files import sorted_images
from gnnrl_lightning.errors import UserError


def write(path, height=8, width=8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("cat", "Dog", "ant")):
            for i in range(count):
                write(tmp_path / split / name / f"{i}.png", seed=100 * label + i)
    return tmp_path


def test_order_and_pixels_are_torchvisions(folder):
    data = ImageFolder(str(folder), holdout_size=3)
    loaded = data.load()
    for split, images in (("train", loaded.train), ("test", loaded.test)):
        expected = datasets.ImageFolder(str(folder / split))
        assert loaded.classes == tuple(expected.classes) == ("Dog", "ant", "cat")
        assert images.labels.tolist() == expected.targets
        assert torch.equal(images.images, torch.stack([TF.pil_to_tensor(image) for image, _ in expected]))
    data.setup()
    assert (len(data.train), len(data.holdout), len(data.test)) == (33, 3, 12)
    assert data.name == folder.name
    assert ImageFolder(str(folder), name="pets").name == "pets"


def test_val_stands_for_a_missing_test(folder):
    write(folder / "val" / "cat" / "x.png")  # not read as long as there is a test folder
    assert len(ImageFolder(str(folder)).load().test) == 12
    (folder / "val" / "cat" / "x.png").unlink()
    (folder / "val" / "cat").rmdir()
    (folder / "val").rmdir()
    (folder / "test").rename(folder / "val")
    assert len(ImageFolder(str(folder)).load().test) == 12


def test_images_of_the_right_size_are_not_resampled(folder):
    exact = ImageFolder(str(folder), size=8).load()
    assert torch.equal(exact.train.images, ImageFolder(str(folder)).load().train.images)


@pytest.mark.parametrize(("height", "width", "resize"), [(8, 12, None), (16, 24, None), (5, 6, None), (20, 30, 10)])
def test_other_sizes_are_resized_and_centre_cropped_as_torchvision_does(tmp_path, height, width, resize):
    for split, label in itertools.product(("train", "test"), "ab"):
        for i in range(2):
            write(tmp_path / split / label / f"{i}.png", height, width, seed=i)
    images = ImageFolder(str(tmp_path), size=8, resize=resize).load().train.images
    with Image.open(tmp_path / "train" / "a" / "1.png") as file:
        expected = TF.center_crop(TF.resize(file, [resize or 8]), [8, 8])
    assert torch.equal(images[1], TF.pil_to_tensor(expected))


@pytest.mark.parametrize("kind", [ImageFolder, StreamingImageFolder])
@pytest.mark.parametrize(("given", "resize"), [({}, None), ({"size": 6}, 6), ({"size": 6, "resize": 7}, 7)])
def test_the_record_of_the_preprocessing_says_how_images_are_resized(folder, kind, given, resize):
    data = kind(str(folder), holdout_size=3, **given)
    data.setup()
    record = data.transform_record()
    assert (record["size"], record["resize"]) == ([given.get("size", 8)] * 2, resize)


def test_a_crop_without_resampling_keeps_the_middle_columns(tmp_path):
    for split, label in itertools.product(("train", "test"), "ab"):
        write(tmp_path / split / label / "0.png")
    pixels = write(tmp_path / "train" / "a" / "0.png", 8, 12)
    assert torch.equal(ImageFolder(str(tmp_path), size=8).load().train.images[0], pixels[:, :, 2:10])


def test_grey_and_palette_images_become_rgb(tmp_path):
    for split, label in itertools.product(("train", "test"), "ab"):
        (tmp_path / split / label).mkdir(parents=True)
        grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
        grey.save(tmp_path / split / label / "0.png")
        grey.convert("P").save(tmp_path / split / label / "1.png")
    images = ImageFolder(str(tmp_path)).load().train.images
    assert torch.equal(images[0], torch.arange(16, dtype=torch.uint8).view(1, 4, 4).expand(3, 4, 4))
    assert images.shape == (4, 3, 4, 4)


def refused(message, root, **arguments):
    with pytest.raises(UserError, match=message) as caught:
        ImageFolder(str(root), **arguments).setup()
    assert "\n" not in str(caught.value)


def test_bad_folders_get_one_line(folder, tmp_path):
    refused(r"nowhere is not an image folder: expected train/ and test/ \(or val/\)", tmp_path / "nowhere")
    (folder / "train" / "empty").mkdir()
    refused("train has no images in empty: expected folders of", folder)
    (folder / "train" / "empty").rmdir()
    write(folder / "test" / "zebra" / "0.png")
    refused("train and .*test differ in their class folders: zebra", folder)


@pytest.mark.parametrize(
    "kind", [ImageFolder, partial(StreamingImageFolder, num_workers=0)], ids=["loaded", "streamed"]
)
def test_a_folder_with_one_class_is_refused_before_an_image_is_read(tmp_path, kind):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "0.png").write_bytes(b"decoding this would fail")
    message = "train has one class folder only, cat: expected at least two, .*; put the images of each class into a"
    with pytest.raises(UserError, match=message) as caught:
        kind(str(tmp_path), holdout_size=1).setup()
    assert "\n" not in str(caught.value)
    (tmp_path / "test" / "dog").mkdir()
    (tmp_path / "test" / "dog" / "0.png").write_bytes(b"the same")
    with pytest.raises(UserError, match="differ in their class folders: dog"):
        kind(str(tmp_path), holdout_size=1).setup()


def test_images_of_several_sizes_need_a_size(folder):
    write(folder / "train" / "cat" / "large.png", 9, 8)
    refused("large.png is 9x8, other images are 8x8: set `size`", folder)


@pytest.mark.parametrize("name", ["Dog/0.png", "cat/3.png"])  # the first image also tells the size
def test_an_unreadable_image_is_named(folder, name):
    (folder / "train" / name).write_bytes(b"not an image")
    refused(f"{name} cannot be read as an image", folder)


def truncated(path):
    write(path, 64, 64)
    path.write_bytes(path.read_bytes()[:2000])


def corrupt(path):
    write(path)
    contents = bytearray(path.read_bytes())
    contents[45] ^= 255
    path.write_bytes(contents)


BAD = {
    "empty.png": (lambda path: path.write_bytes(b""), "cannot be read as an image"),
    "half.jpg": (truncated, "cannot be read as an image"),
    "corrupt.png": (corrupt, "cannot be read as an image"),
    "text.png": (lambda path: path.write_text("hello"), "cannot be read as an image"),
    "narrow.ppm": (lambda path: path.write_bytes(b"P6 0 0 255\n"), "cannot be read as an image"),
    "bomb.png": (lambda path: Image.new("1", (20_000, 20_000)).save(path), "cannot be read as an image"),
    "link.png": (lambda path: path.symlink_to("nowhere"), "is no regular file"),
    "deep.png": (
        lambda path: Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(path),
        "has values of mode I;16: expected 8 bits a channel",
    ),
    "float.tiff": (
        lambda path: Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(path),
        "has values of mode F: expected 8 bits a channel",
    ),
}


@pytest.mark.parametrize(
    "kind", [ImageFolder, partial(StreamingImageFolder, num_workers=0)], ids=["loaded", "streamed"]
)
@pytest.mark.parametrize("name", BAD)
def test_bad_images_get_one_line(tmp_path, name, kind):
    make, message = BAD[name]
    for split, label in itertools.product(("train", "test"), "ab"):
        write(tmp_path / split / label / "0.png")
        write(tmp_path / split / label / "1.png")
    make(tmp_path / "train" / "a" / name)
    with pytest.raises(UserError, match=f"{name} {message}") as caught:
        data = kind(str(tmp_path), size=8, holdout_size=1, batch_size=2)
        data.setup()
        list(data.train_dataloader())
        list(data.val_dataloader())
    assert "\n" not in str(caught.value)


def test_unusual_images_and_names_are_read(tmp_path):
    draw = np.random.default_rng(0)
    frames = [Image.fromarray(draw.integers(256, size=(8, 8, 3), dtype=np.uint8)) for _ in range(3)]
    for split, label in itertools.product(("train", "test"), ("a", "\udcff")):
        (tmp_path / split / label / "below").mkdir(parents=True)
        frames[0].save(tmp_path / split / label / "a.png")
        frames[0].convert("CMYK").save(tmp_path / split / label / "below" / "c.jpg")
        frames[0].convert("RGBA").save(tmp_path / split / label / f"{'x' * 200}.png")
        frames[0].save(tmp_path / split / label / "moving.png", save_all=True, append_images=frames[1:])
        frames[0].save(tmp_path / split / label / "\udcfe.png")
        frames[0].save(tmp_path / split / label / "a_jpeg.png", format="jpeg")
    loaded = ImageFolder(str(tmp_path)).load()
    assert loaded.classes == ("a", "\udcff") and loaded.train.images.shape == (12, 3, 8, 8)


def test_hidden_files_and_folders_are_left_out(folder):
    before = ImageFolder(str(folder)).load()
    write(folder / "train" / ".ipynb_checkpoints" / "0-checkpoint.png")
    write(folder / "train" / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png")
    (folder / "train" / "cat" / "._0.png").write_bytes(b"of macOS")
    (folder / "train" / ".DS_Store").write_bytes(b"of macOS")
    after = ImageFolder(str(folder)).load()
    assert after.classes == before.classes and torch.equal(after.train.images, before.train.images)


def test_images_that_do_not_fit_are_refused_before_they_are_decoded(folder):
    (folder / "train" / "cat" / "3.png").write_bytes(b"decoding this would fail")
    refused("48 images of 3x1024x1024 take 0.141 GiB decoded", folder, size=1024, memory_limit_gib=0.1)


def test_bad_sizes_get_one_line(folder):
    refused("size is 0: expected a whole number from 1 to 32768, in pixels, or null", folder, size=0)
    refused("resize is 4 with a size of 8: expected", folder, size=8, resize=4)
    refused("resize is 8 with a size of None: expected", folder, resize=8)


def listen(path):
    """Make a socket; its path is too long for the system, so that it is made in the current folder."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.rename(path.name, path)


def test_pipes_and_circles_of_links_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, label in itertools.product(("train", "test"), "ab"):
        (tmp_path / split / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / split / label / "0.png")
    folder = tmp_path / "train" / "a"
    assert len(ImageFolder(str(tmp_path)).files()[0]) == 2
    for name, make, message in (
        ("pipe.png", os.mkfifo, r"pipe.png is no regular file"),
        ("gone.png", lambda path: path.symlink_to("nowhere"), r"gone.png is no regular file"),
        ("socket.png", listen, r"socket.png is no regular file"),
        ("zero.png", lambda path: path.symlink_to("/dev/zero"), r"zero.png is no regular file"),
        ("own.png", lambda path: path.symlink_to("own.png"), r"own.png cannot be read \(Too many .*\): remove it, or"),
        ("../circle", lambda path: path.symlink_to("circle"), r"circle cannot be read \(Too many .*\): remove it, or"),
        ("self", lambda path: path.symlink_to(folder), r"self is a link to a folder that contains it"),
        ("other", lambda path: path.symlink_to(tmp_path), r"is a link to a folder that contains it"),
    ):
        make(folder / name)
        with pytest.raises(UserError, match=message):
            ImageFolder(str(tmp_path)).files()
        (folder / name).unlink()


def test_two_folders_that_link_to_each_other_are_a_circle(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link").symlink_to(tmp_path / other)
    with pytest.raises(UserError, match="is a link to a folder that contains it"):
        sorted_images(tmp_path / "a")


def test_the_order_is_torchvisions(tmp_path):
    for name in ("b.png", "a/z.png", "a/b/y.PNG", "a-x/w.jpg", "a.png/v.png", "note.txt"):
        (tmp_path / "class" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "class" / name).write_bytes(b"")
    (tmp_path / "class" / "linked").symlink_to(tmp_path / "class" / "a-x")
    expected = [path for path, _ in make_dataset(tmp_path, {"class": 0}, extensions=IMG_EXTENSIONS)]
    assert sorted_images(tmp_path / "class") == expected and len(expected) == 6
