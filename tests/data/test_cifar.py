import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from gnnrl_lightning.data import CIFAR10, CIFAR100
from gnnrl_lightning.errors import UserError


def write(folder, name, contents):
    """One pickled file as the CIFAR archives have it; returns name and checksum, as torchvision has them."""
    folder.mkdir(parents=True, exist_ok=True)
    data = pickle.dumps(contents)
    (folder / name).write_bytes(data)
    return [name, hashlib.md5(data).hexdigest()]


def images(n, seed):
    """Rows of 3,072 bytes: 1,024 red, 1,024 green, 1,024 blue."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    rows = [images(20, seed) for seed in range(6)]
    labels = [[(i + seed) % 10 for i in range(20)] for seed in range(6)]
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    listed = [
        write(folder, name, {"data": row, "labels": label})
        for name, row, label in zip(names, rows, labels, strict=True)
    ]
    meta = write(folder, "batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", listed[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", listed[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta[1]})
    return tmp_path, rows, labels


def test_cifar10_keeps_channels_rows_and_labels(cifar10):
    root, rows, labels = cifar10
    data = CIFAR10(root=str(root), holdout_size=20)
    data.prepare_data()
    data.setup()
    assert (data.image_shape, data.num_classes, data.name) == ((3, 32, 32), 10, "cifar10")
    assert (len(data.train), len(data.holdout), len(data.test)) == (80, 20, 20)
    assert torch.equal(data.test.images, torch.from_numpy(rows[5]).view(20, 3, 32, 32))
    assert data.test.labels.tolist() == labels[5]
    assert torch.bincount(data.holdout.labels).tolist() == [2] * 10
    assert data.transform_record()["classes"][3] == "class 3"


def test_cifar100_reads_the_fine_labels(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    train = {"data": images(200, 0), "fine_labels": [i % 100 for i in range(200)], "coarse_labels": [0] * 200}
    test = {"data": images(100, 1), "fine_labels": list(range(100)), "coarse_labels": [0] * 100}
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [write(folder, "train", train)])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [write(folder, "test", test)])
    meta = write(folder, "meta", {"fine_label_names": [f"class {i}" for i in range(100)]})
    monkeypatch.setattr(datasets.CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": meta[1]})
    data = CIFAR100(root=str(tmp_path), holdout_size=100)
    data.setup()
    assert (data.num_classes, data.name) == (100, "cifar100")
    assert data.test.labels.tolist() == list(range(100))
    assert torch.equal(data.holdout.labels.sort().values, torch.arange(100))


def test_missing_and_damaged_files_get_one_line(cifar10, tmp_path):
    root, _, _ = cifar10
    with pytest.raises(UserError, match=r"cifar10 is missing or damaged in .*nowhere.*`download: true`"):
        CIFAR10(root=str(tmp_path / "nowhere")).setup()
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cut short")
    with pytest.raises(UserError, match="cifar10 is missing or damaged"):
        CIFAR10(root=str(root)).setup()


def test_download_happens_only_when_asked_for_and_its_failure_gets_one_line(tmp_path, monkeypatch):
    asked = []

    def no_network(url, *args, **kwargs):
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    CIFAR10(root=str(tmp_path)).prepare_data()
    assert asked == []
    with pytest.raises(UserError, match=f"downloading cifar10 to {tmp_path} failed: no network"):
        CIFAR10(root=str(tmp_path), download=True).prepare_data()
    assert asked == [datasets.CIFAR10.url]
