import errno
import json
import os
import shutil

import pytest
from safetensors import SafetensorError

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.files import keep, os_errors, read_sums, replacing, sha256, text_of, unchanged


def write(path, text):
    with replacing(path, checksum=True) as partial:
        partial.write_text(text)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")
    with pytest.raises(RuntimeError), replacing(path, checksum=True) as partial:
        partial.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old" and unchanged(path)


def test_what_could_not_be_written_takes_no_room(tmp_path):
    with pytest.raises(OSError, match="No space left"), replacing(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(("make", "number"), [(os.mkfifo, errno.EINVAL), (os.mkdir, errno.EISDIR)])
def test_folders_and_devices_are_never_replaced(tmp_path, make, number):
    """As root, a file would take the place of /dev/full."""
    path = tmp_path / "a"
    make(path)
    with pytest.raises(OSError) as error, replacing(path) as partial:
        partial.write_text("never")
    assert error.value.errno == number and error.value.filename == str(path)
    assert not path.is_file() and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda path: os.mkfifo(path), ValueError, "it is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), ValueError, "it is no regular file"),
        (lambda path: path.write_bytes(b"\xe9"), ValueError, "utf-8"),
        (lambda path: path.mkdir(), IsADirectoryError, "directory"),
        (lambda path: path.symlink_to(path.name), OSError, "symbolic links"),
        (lambda path: None, FileNotFoundError, "No such file"),
    ],
)
def test_what_may_never_end_is_not_read(tmp_path, write, error, message):
    write(tmp_path / "a")
    with pytest.raises(error, match=message):
        text_of(tmp_path / "a")
    (tmp_path / "b").write_text("é", encoding="utf-8")
    assert text_of(tmp_path / "b") == "é"


def test_what_was_changed_is_noticed(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")
    assert unchanged(path)
    path.write_text("odd")
    assert not unchanged(path)
    (tmp_path / "b.txt").write_text("never recorded")
    assert not unchanged(tmp_path / "b.txt")


def test_a_crash_between_checksum_and_file_is_harmless(tmp_path, monkeypatch):
    """Even twice in a row: the file on disk always has a checksum."""
    path = tmp_path / "a.txt"
    write(path, "old")
    for text in ("new", "newer"):
        (tmp_path / "a.partial").write_text(text)
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", lambda old, new: None if new == path else shutil.move(old, new))
            keep(tmp_path / "a.partial", path)
        assert path.read_text() == "old" and unchanged(path)
    keep(tmp_path / "a.partial", path)
    assert path.read_text() == "newer" and unchanged(path)


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"a.txt": 3}', b"\xff", b"", b"[" * 100_000])
def test_damaged_checksums_are_one_line(tmp_path, damage):
    write(tmp_path / "a.txt", "old")
    (tmp_path / "checksums.json").write_bytes(damage)
    with pytest.raises(UserError, match=r"checksums.json is damaged \(.*begin again in another folder") as error:
        unchanged(tmp_path / "a.txt")
    assert "\n" not in str(error.value)


def test_checksums_are_sha256(tmp_path):
    write(tmp_path / "a.txt", "abc")  # the first example of FIPS 180-2
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "a.txt") == expected and read_sums(tmp_path) == {"a.txt": [expected]}
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"a.txt": [expected]}


@pytest.mark.parametrize(
    ("raised", "number"),
    [
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), errno.EIO),
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
    ],
)
def test_libraries_that_cannot_write_are_the_systems_refusal(tmp_path, raised, number):
    with pytest.raises(OSError, match=r"w\.bin") as error, os_errors(tmp_path / "w.bin"):
        raise raised
    assert error.value.errno == number and error.value.filename == str(tmp_path / "w.bin")


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), os_errors(tmp_path / "w.bin"):
        raise RuntimeError("shapes differ")
