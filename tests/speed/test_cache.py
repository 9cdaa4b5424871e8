import errno
import json
import os
import random
import threading

import pytest

from gnnrl_lightning.cost.grid import Grid
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.speed.cache import Cache
from tests.support.damage import damaged

SETTINGS = {"processor": "one", "threads": 1}
GRIDS = {"relu 8x8": Grid((0,), (8, 16), ((0.5, 0.75),)), "linear": Grid((1, 4), (8,), ((0.125,), (1.5,)))}


@pytest.fixture
def cache(tmp_path):
    made = Cache(tmp_path / "tables", SETTINGS)
    made.add(GRIDS)
    return made


def test_what_is_added_is_read(cache):
    assert Cache(cache.path.parent, SETTINGS).read() == GRIDS
    cache.add({"linear": Grid((1,), (8,), ((0.25,),))})
    assert cache.read() == {**GRIDS, "linear": Grid((1,), (8,), ((0.25,),))}
    assert Cache(cache.path.parent, {**SETTINGS, "threads": 2}).read() == {} == Cache(None, SETTINGS).read()


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_noticed_or_changes_nothing(cache, seed):
    cache.path.write_bytes(damaged(cache.path.read_bytes(), random.Random(seed)))
    try:
        assert cache.read() == GRIDS
    except UserError as error:
        message = str(error)
        assert message.isprintable() and str(cache.path) in message
        assert message.endswith("delete it to go on; the operators are measured again")


def edited(cache):
    found = json.loads(cache.path.read_text())
    found["operators"]["linear"]["milliseconds"][0][0] = 0.25
    cache.path.write_text(json.dumps(found))


def of_another_machine(cache):
    other = Cache(cache.path.parent, {**SETTINGS, "processor": "another"})
    other.add(GRIDS)
    other.path.rename(cache.path)


def replaced(make):
    def replace(cache):
        cache.path.unlink()
        make(cache.path)

    return replace


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edited, "it was changed since it was written"),
        (of_another_machine, "it was measured on another machine or in another way"),
        (lambda cache: cache.path.write_text("[" * 100_000), "recursion"),
        (lambda cache: cache.path.write_text("{}"), "sha256"),
        (replaced(os.mkfifo), "it is no regular file"),
        (replaced(os.mkdir), "it is no regular file"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_remedy(cache, change, reason):
    change(cache)
    for use in (cache.read, lambda: cache.add(GRIDS)):
        with pytest.raises(
            UserError, match=rf"latency.cache .*json cannot be used \(.*{reason}.*\): delete it to go on"
        ):
            use()


def test_a_full_disk_is_refused_before_anything_is_measured(cache, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gnnrl_lightning.speed.cache.TemporaryFile", full)
    with pytest.raises(UserError, match=r"latency.cache .* cannot be written \(.*No space left on device\): give ano"):
        cache.check_writable()
    Cache(None, SETTINGS).check_writable()


def test_a_check_leaves_nothing(cache):
    before = sorted(cache.path.parent.iterdir())
    cache.check_writable()
    assert sorted(cache.path.parent.iterdir()) == before


def test_several_add_at_once_and_nothing_is_lost(cache):
    def add(number):
        for row in range(5):
            Cache(cache.path.parent, SETTINGS).add({f"{number} {row}": Grid((0,), (number + 1,), ((0.1,),))})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.read()) == len(GRIDS) + 30
