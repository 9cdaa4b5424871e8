"""Values of the wrong kind or out of range are refused in one line, whatever is called from Python."""

import math
from pathlib import Path

import pytest
import torch

from gnnrl_lightning import GNNRL, Budget, GroupOptions, Options, Task, TrainingOptions, UserError, load, pull, push
from gnnrl_lightning.artifacts.integrity import check_files
from gnnrl_lightning.checks import (
    LARGEST,
    as_path,
    as_seed,
    ascending,
    counts,
    flag,
    instance,
    one_of,
    real,
    reals,
    shown,
    whole,
)
from gnnrl_lightning.cost.ranges import GroupLimit
from gnnrl_lightning.data import CIFAR10, BatchLoader, Diabetes, DigitPixels, Digits, ImageFolder, StreamingImageFolder
from gnnrl_lightning.job import (
    CandidateOptions,
    DeliveryOptions,
    EpisodeOptions,
    FinalsOptions,
    RunFolder,
    Runtime,
    ScoringOptions,
    SearchOptions,
    StageOptions,
    check,
    deliver,
    search,
    train,
)
from gnnrl_lightning.networks import MobileNetV2, Perceptron, SmallUNet, load_weights, resnet20, save_weights, vgg16_bn
from gnnrl_lightning.objective import Classification, Segmentation
from gnnrl_lightning.rl.learners import DDPG
from gnnrl_lightning.runs.folder import RunOptions
from gnnrl_lightning.speed.options import LatencyOptions
from tests.support.two_hidden import TwoHidden


class Silent:
    """An object that cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no text")


VALUES = (None, 1.5, "x", b"x", [], {}, (1, 2), object(), Silent(), math.nan, math.inf, -1, 10**20, True, "a\0b")
VALUES += (10**5000, torch.zeros(3), int, Path("nowhere"), "")


def but(*allowed):
    """The values apart from some of them, told by their text, as True is 1."""
    return tuple(value for value in VALUES if shown(value) not in allowed)


ANYTHING = but()
NO_COUNT = ANYTHING
NO_SEED = ANYTHING
NO_NUMBER = but("1.5", shown(10**20), "a int")
NO_SHARE = ANYTHING
NO_FLAG = but("True")
NO_PATH = but("'x'", shown(Path("nowhere")))
NO_TEXT = but("'x'", "''", shown("a\0b"))

TABLE = (
    *((GNNRL, name, but(shown(10**20), "1.5", "a int")) for name in ("learning_rate", "clip_epsilon", "value_coeff")),
    *((GNNRL, name, NO_COUNT) for name in ("epochs", "minibatches", "episodes_per_iteration", "proxy_episodes")),
    *((GNNRL, name, NO_COUNT) for name in ("proxy_warmup", "proxy_between")),
    *((GNNRL, name, NO_SHARE) for name in ("gamma", "gae_lambda")),
    (GNNRL, "target_kl", but("None", "1.5", shown(10**20), "a int")),
    (GNNRL, "seed", NO_SEED),
    (GNNRL, "policy_file", but("None", "'x'", shown(Path("nowhere")))),
    (GNNRL, "make_policy", but("<class 'int'>", shown(int))),
    (GNNRL, "env", but("None")),
    *((DDPG, name, NO_COUNT) for name in ("replay_capacity", "batch_size", "gradient_steps", "critic_iterations")),
    *((DDPG, name, NO_SHARE) for name in ("gamma", "tau", "spread_decay")),
    *((DDPG, name, NO_NUMBER) for name in ("actor_learning_rate", "final_spread", "saturation_coeff")),
    (DDPG, "credit", ANYTHING),
    (TrainingOptions, "epochs", NO_COUNT),
    *((TrainingOptions, name, NO_NUMBER) for name in ("learning_rate", "weight_decay", "mixup", "gradient_clip")),
    *((TrainingOptions, name, NO_SHARE) for name in ("distillation_weight", "ema_decay")),
    (TrainingOptions, "distillation_temperature", NO_NUMBER),
    (TrainingOptions, "decay_norms_and_biases", NO_FLAG),
    (TrainingOptions, "optimizer", ANYTHING),
    (TrainingOptions, "schedule", but("<class 'int'>", shown(int))),
    (SearchOptions, "evaluations", NO_COUNT),
    (ScoringOptions, "batch_size", NO_COUNT),
    (ScoringOptions, "racing", NO_FLAG),
    (ScoringOptions, "drop_probability", NO_SHARE),
    (ScoringOptions, "precision", ANYTHING),
    (ScoringOptions, "finetune_steps", NO_COUNT),
    (EpisodeOptions, "max_steps", NO_COUNT),
    (EpisodeOptions, "max_ratio_per_step", NO_SHARE),
    (EpisodeOptions, "macs_range", but("None")),
    (EpisodeOptions, "penalty", but("None", "1.5", "-1", shown(10**20), "a int")),
    (EpisodeOptions, "proposal", but("None")),
    (EpisodeOptions, "sensitivity", NO_FLAG),
    (EpisodeOptions, "surrogate", but("None", "True")),
    (CandidateOptions, "calibration_examples", NO_COUNT),
    (FinalsOptions, "candidates", NO_COUNT),
    (FinalsOptions, "steps", NO_COUNT),
    (DeliveryOptions, "calibration_examples", NO_COUNT),
    (DeliveryOptions, "formats", ANYTHING),
    (DeliveryOptions, "largest_drop", NO_SHARE),
    (StageOptions, "shares", but("[]")),
    (LatencyOptions, "batch_size", NO_COUNT),
    (LatencyOptions, "precision", ANYTHING),
    (LatencyOptions, "threads", but("None")),
    (LatencyOptions, "table", but("None", "'x'", shown(Path("nowhere")))),
    *((Options, name, ANYTHING) for name in ("candidate", "scoring", "episode", "search", "pretraining", "stages")),
    (RunOptions, "root", NO_PATH),
    (RunOptions, "threads", but("None")),
    (RunFolder.create, "root", NO_PATH),
    (RunFolder.create, "name", but("None", "'x'")),
    *((Digits, name, NO_COUNT) for name in ("batch_size", "eval_batch_size", "pad", "cutout")),
    *((Digits, name, NO_SEED) for name in ("split_seed", "seed")),
    (Digits, "holdout_size", but(shown(10**20), "a int")),
    *((Digits, name, but("(1, 2)")) for name in ("mean", "std")),
    (Digits, "mean", ("x", (1, 2), ("x",), (math.nan,), (True,))),
    (Digits, "std", ((0.0,), (-1.0,), (1, 2))),
    (Digits, "flip", NO_FLAG),
    (Digits, "memory_limit_gib", NO_NUMBER),
    (DigitPixels, "canvases", NO_COUNT),
    (Diabetes, "batch_size", NO_COUNT),
    (CIFAR10, "root", NO_PATH),
    (CIFAR10, "download", NO_FLAG),
    (ImageFolder, "root", NO_PATH),
    (lambda **given: ImageFolder("x", **given), "size", but("None")),
    (lambda **given: ImageFolder("x", size=8, **given), "resize", but("None")),
    (lambda **given: ImageFolder("x", **given), "name", but("None", "'x'", "''", shown("a\0b"))),
    (lambda **given: StreamingImageFolder("x", **given), "num_workers", NO_COUNT),
    (lambda **given: StreamingImageFolder("x", size=8, **given), "crop_scale", but("None")),
    (lambda **given: StreamingImageFolder("x", size=8, **given), "crop_ratio", but("(1, 2)")),
    (lambda **given: BatchLoader(range(9), **given), "batch_size", NO_COUNT),
    (lambda **given: BatchLoader(range(9), 2, **given), "world_size", NO_COUNT),
    (lambda **given: BatchLoader(range(9), 2, **given), "rank", ANYTHING),
    (Classification, "label_smoothing", NO_SHARE),
    (Segmentation, "divergence_temperature", NO_NUMBER),
    (Segmentation, "ignore_index", but("-1")),
    *((resnet20, name, NO_COUNT) for name in ("num_classes", "in_channels")),
    (resnet20, "shortcut", ANYTHING),
    (vgg16_bn, "num_classes", NO_COUNT),
    (MobileNetV2, "width", but("1.5")),
    (SmallUNet, "width", NO_COUNT),
    (Perceptron, "inputs", NO_COUNT),
    (lambda **given: Perceptron(2, **given), "hidden", but("[]", "(1, 2)")),
    (Budget, "macs", but("None", shown(10**20))),
    (Budget, "macs", (None,)),
    (lambda **given: Budget(macs=0.5, **given), "channel_multiple", NO_COUNT),
    (lambda **given: Budget(macs=0.5, **given), "min_width", but("None")),
    (lambda **given: Budget(macs=0.5, **given), "mac", VALUES),
    (Budget, "limits", ANYTHING),
    (Budget(macs=0.5).on, "graph", ANYTHING),
    (GroupLimit, "min", but("None", shown(10**20), "a int")),
    (GroupOptions, "keep", but("[]", "(1, 2)")),
    (GroupOptions, "limits", but("{}")),
    (lambda **given: load(dense=TwoHidden(), example=torch.zeros(1, 1, 8, 8), **given), "folder", ANYTHING),
    (lambda **given: load(format="onnx", **given), "folder", ANYTHING),
    (check_files, "folder", ANYTHING),
    (lambda **given: push(repo="user/repo", **given), "run", ANYTHING),
    (lambda **given: push("nowhere", **given), "repo", ANYTHING),
    (lambda **given: pull("user/repo", **given), "folder", NO_PATH),
    (lambda **given: pull("user/repo", "nowhere", **given), "revision", but("None", *map(shown, ("x", "", "a\0b")))),
    (lambda **given: load_weights(TwoHidden(), **given), "path", ANYTHING),
    (lambda **given: load_weights(path="nowhere", **given), "network", ANYTHING),
    (lambda **given: save_weights(TwoHidden(), **given), "path", NO_PATH),
    (lambda **given: Task(data=Digits(), **given), "network", ANYTHING),
    (lambda **given: Task(TwoHidden(), **given), "data", ANYTHING),
    *((lambda **given: Task(TwoHidden(), Digits(), **given), name, ANYTHING) for name in ("seed", "groups")),
    (lambda **given: Task(TwoHidden(), Digits(), **given), "objective", ANYTHING),
    (lambda **given: Task(TwoHidden(), Digits(), **given), "checkpoint", but("None", "'x'", shown(Path("nowhere")))),
    (lambda **given: Task(TwoHidden(), Digits(), **given), "artifact", but("None", "'x'", shown(Path("nowhere")))),
    (lambda **given: check(budget=Budget(macs=0.5), **given), "task", ANYTHING),
    (lambda **given: check(Task(TwoHidden(), Digits()), **given), "budget", ANYTHING),
    *(
        (lambda **given: check(Task(TwoHidden(), Digits()), Budget(macs=0.5), **given), name, but("None"))
        for name in ("options", "runtime", "folder")
    ),
    *((Runtime, name, but(shown(int))) for name in ("trainers", "shown")),
    (Runtime, "timer", but("None")),
    (train, "checked", ANYTHING),
    (lambda **given: search(by="random", folder=RunFolder(Path("nowhere")), **given), "trained", ANYTHING),
    (lambda **given: deliver(folder=RunFolder(Path("nowhere")), **given), "searched", ANYTHING),
)
"""What is called, the argument that is wrong, and its values."""


def names():
    for call, name, _ in TABLE:
        yield f"{getattr(call, '__qualname__', call)} {name}".replace("<lambda>", "")


@pytest.mark.parametrize(("call", "name", "values"), TABLE, ids=names())
def test_whatever_is_wrong_is_one_line(call, name, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for value in values:
        with pytest.raises(UserError) as error:
            call(**{name: value})
        said = str(error.value)
        assert said.isprintable() and 25 < len(said) < 400, (value, said)
    assert not list(tmp_path.rglob("*"))


def test_the_table_is_long():
    assert len(TABLE) > 130 and sum(len(values) for _, _, values in TABLE) > 2300


def refused(message, call, *given, **options):
    with pytest.raises(UserError) as error:
        call(*given, **options)
    assert str(error.value) == message


def test_values_are_shown_if_they_are_short():
    assert [shown(value) for value in ("x", 1.5, None, [1])] == ["'x'", "1.5", "None", "[1]"]
    assert shown("a\nb") == "'a\\nb'" and shown("x" * 99) == "a str"
    assert [shown(value) for value in (object(), Silent(), 10**5000)] == ["a object", "a Silent", "a int"]


def test_whole_numbers():
    assert whole("n", 3) == 3 and whole("n", torch.tensor([3]).numpy()[0]) == 3
    assert as_seed("seed", 2**32 - 1) == 2**32 - 1
    counts(a=1, b=2)
    refused("n is 1.5: expected a whole number, at least 1", whole, "n", 1.5, 1)
    refused("n is True: expected a whole number, at least 0", whole, "n", True)
    refused("n is 0: expected at least 1, or null", whole, "n", 0, 1, other=", or null")
    refused("n is 9: expected a whole number from 1 to 8", whole, "n", 9, 1, 8)
    refused(f"n is {LARGEST + 1}: expected a number of at most 2,147,483,647", whole, "n", LARGEST + 1)
    refused("b is 0: expected at least 1", counts, a=1, b=0)
    refused("seed is -1: expected a whole number from 0 to 4294967295", as_seed, "seed", -1)


@pytest.mark.parametrize(
    ("low", "high", "ends", "inside", "outside", "expected"),
    [
        (0, 1, "[]", (0, 0.5, 1), (-0.1, 1.1), "a number from 0 to 1"),
        (0, 1, "(]", (0.5, 1), (0, 1.1), "a number above 0 and at most 1"),
        (0, 1, "[)", (0, 0.5), (-0.1, 1), "a number at least 0 and below 1"),
        (0, 1, "()", (0.5,), (0, 1), "a number above 0 and below 1"),
        (0, math.inf, "(]", (1e-9, 1e30), (0, -1), "a positive number"),
        (1, math.inf, "[]", (1, 5), (0.9,), "a finite number, at least 1"),
        (-math.inf, 2, "[]", (-5, 2), (2.1,), "a finite number, at most 2"),
        (-math.inf, math.inf, "[]", (-5, 5), (), "a finite number"),
    ],
)
def test_ranges_of_numbers(low, high, ends, inside, outside, expected):
    assert [real("x", value, low, high, ends) for value in inside] == [*inside]
    for value in (*outside, math.nan, math.inf, -math.inf, "0.5", None, True, 0.5j):
        refused(f"x is {shown(value)}: expected {expected}", real, "x", value, low, high, ends)


def test_several_numbers():
    assert reals("mean", [0.5, 1]) == (0.5, 1)
    refused("std is 0: expected a positive number", reals, "std", (1, 0), 0, ends="(]")
    for value in ("1", 1, (), None):
        refused(f"m is {shown(value)}: expected a list of numbers, one for each channel", reals, "m", value)
    assert ascending("r", [0.5, 1], "x", 1) == (0.5, 1)
    for value in ((0, 1), (0.5, 0.4), (0.5, 1.1), (0.5,), "ab", (0.5, math.nan), ("a", "b"), (True, True)):
        refused(f"r is {shown(value)}: expected two", ascending, "r", value, "two", 1)
    refused("r is (0.5, 1): expected two", ascending, "r", (0.5, 1), "two", 1, "()")


def test_flags_paths_and_objects():
    assert flag("f", False) is False
    assert one_of("o", "a", {"a": 1, "b": 2}) == "a"
    refused("f is 1: expected true or false", flag, "f", 1)
    assert as_path("p", "a/b") == as_path("p", Path("a/b")) == Path("a/b")
    refused("p is '': expected the path of a folder, or None", as_path, "p", "", "folder", ", or None")
    refused("p is 3: expected the path of a file", as_path, "p", 3)
    refused("p is 'a\\x00b': expected the path of a file, without null bytes", as_path, "p", "a\0b")
    assert instance("x", 3, int, "a number") == 3
    refused("x is the class int: expected a number", instance, "x", int, int, "a number")
    refused("x is a str: expected a number", instance, "x", "3", int, "a number")
