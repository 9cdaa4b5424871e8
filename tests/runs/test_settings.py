import copy
import json

import pytest
import yaml

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.runs.folder import RunFolder
from gnnrl_lightning.runs.integrity import check_files

CONFIG = {
    "seed_everything": 0,
    "trainer": {"accelerator": "auto", "devices": 1, "logger": None, "enable_progress_bar": False, "callbacks": None},
    "model": {"target_kl": None},
    "data": {"class_path": "Own", "init_args": {"num_workers": 4, "batch_size": 64}},
    "budget": {"macs": 0.5},
    "search": {"evaluations": 20},
    "delivery": {"repair": "refit", "formats": ["weights"]},
    "run": {"name": None, "threads": 1},
    "overwrite": False,
}
WANDB = {"class_path": "WandbLogger", "init_args": {"project": "own"}}
GONE = object()

FREE = {
    "trainer.accelerator": "cpu",
    "trainer.enable_progress_bar": True,
    "trainer.logger": WANDB,
    "data.init_args.num_workers": 0,
    "delivery.formats": ["weights", "onnx"],
    "delivery.largest_drop": 0.5,
    "run.threads": 2,
    "run.experiment": "new",
    "overwrite": GONE,
}
DECIDING = {
    "seed_everything": 1,
    "trainer.devices": 2,
    "trainer.callbacks": [{"class_path": "EarlyStopping"}],
    "trainer.max_epochs": 3,
    "model.target_kl": GONE,
    "data.class_path": "Other",
    "data.init_args.batch_size": 32,
    "budget.macs": 0.4,
    "search.evaluations": 21,
    "delivery.repair": "batch_norm",
}


@pytest.fixture
def begun(tmp_path):
    folder = RunFolder.create(tmp_path, "mine")
    folder.write_config(yaml.safe_dump(CONFIG))
    return folder


def edited(key, value):
    config = copy.deepcopy(CONFIG)
    *sections, name = key.split(".")
    part = config
    for section in sections:
        part = part[section]
    if value is GONE:
        del part[name]
    else:
        part[name] = value
    return config


@pytest.mark.parametrize("key", FREE)
def test_what_decides_no_result_may_change(begun, key):
    begun.config.write_text(json.dumps(edited(key, FREE[key])))
    check_files(begun)


@pytest.mark.parametrize("key", DECIDING)
def test_what_decides_the_result_may_not(begun, key):
    begun.config.write_text(yaml.safe_dump(edited(key, DECIDING[key])))
    with pytest.raises(UserError, match=rf"config.yaml: {key} is .*copy .*mine/.began.yaml over it to go on") as error:
        check_files(begun)
    assert str(error.value).isprintable()
    begun.config.write_text(begun.began.read_text())  # the remedy
    check_files(begun)


@pytest.mark.parametrize("text", [b"\xff\n", b"", b"only text\n", b"a: [\n", b"when: 2026-99-99\n"])
def test_a_configuration_that_cannot_be_read_is_one_line(begun, text):
    begun.config.write_bytes(text)
    with pytest.raises(UserError, match=r"config.yaml is damaged \(.*copy .* over it to go on") as error:
        check_files(begun)
    assert str(error.value).isprintable()


def test_comments_and_order_are_nothing(begun):
    begun.config.write_text("# mine\n" + yaml.safe_dump(dict(reversed(CONFIG.items())), sort_keys=False))
    check_files(begun)
