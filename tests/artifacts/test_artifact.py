import json
import math
import random
import shutil
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gnnrl_lightning import trace
from gnnrl_lightning.artifacts import artifact
from gnnrl_lightning.artifacts.formats import Format
from gnnrl_lightning.artifacts.recipe import difference, recipe_hash
from gnnrl_lightning.errors import UserError
from tests.support.damage import damaged


class Small(nn.Module):
    """A convolution, a batch norm and a tied pair of linear layers."""

    def __init__(self, channels=6):
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3)
        self.bn = nn.BatchNorm2d(channels)
        self.first = nn.Linear(channels, channels)
        self.second = nn.Linear(channels, 3)

    def forward(self, x):
        return self.second(self.first(self.bn(self.conv(x)).relu().mean((2, 3))).relu())


class Tied(Small):
    """Its first linear layer is used twice, under two names."""

    def __init__(self):
        super().__init__()
        self.again = nn.Linear(6, 6)
        self.again.weight = self.first.weight

    def forward(self, x):
        return self.second(self.again(self.first(self.bn(self.conv(x)).mean((2, 3))).relu()))


class Configured(Small):
    """Its code reads a width from a configuration."""

    def __init__(self):
        super().__init__()
        self.config = {"widths": [1, 6]}

    def forward(self, x):
        x = self.bn(self.conv(x)).relu().view(x.shape[0], self.config["widths"][-1], -1)
        return self.second(self.first(x.mean(2)).relu())


class FixedBatch(Small):
    """Its code says that there is one image."""

    def forward(self, x):
        return self.second(self.first(self.bn(self.conv(x)).relu().mean((2, 3)).view(1, -1)).relu())


@dataclass
class Scores:
    """Outputs by name."""

    logits: torch.Tensor


class Named(Small):
    """It returns an object."""

    def forward(self, x):
        return Scores(super().forward(x))


EXAMPLE = torch.linspace(-1, 1, 36).view(1, 1, 6, 6)
DESCRIPTION = artifact.Description(
    network={"class_path": "tests.Small", "init_args": {}},
    budget={"macs": 0.5},
    transform={"mean": [0.5]},
    figures={"top1_test_after": 97.5, "cross_entropy_test_after": math.inf},
)


def save(folder, pruned, dense, graph, plan, example=EXAMPLE, **more):
    about = {"dense": dense, "steps": [artifact.step(graph, plan)], "example": example, "description": DESCRIPTION}
    artifact.save(folder, pruned, **about, **more)


def saved(folder, network, example=EXAMPLE, **more):
    network.eval()
    graph = trace(network, example)
    plan = graph.plan(network, graph.project(graph.widths, macs=0.5))
    pruned = plan.apply(network)
    save(folder, pruned, network, graph, plan, example, **more)
    return pruned.eval()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pruned"


@pytest.mark.parametrize("kind", [Small, Tied, Configured])
def test_both_ways_of_loading_compute_the_same(folder, kind):
    pruned = saved(folder, kind())
    images = torch.randn(7, 1, 6, 6)
    assert torch.equal(artifact.load(folder, kind(), EXAMPLE)(images), pruned(images))
    torch.testing.assert_close(artifact.load(folder, format="program")(images), pruned(images))
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in kind().parameters())


@pytest.mark.parametrize("kind", [Small, Tied, Configured])
def test_what_is_pruned_twice_is_restored_in_one_go(folder, kind):
    network = kind().eval()
    first = trace(network, EXAMPLE)
    plan = first.plan(network, first.project(first.widths, macs=0.7))
    between = plan.apply(network).eval()
    second = trace(between, EXAMPLE)
    again = second.plan(between, second.project(second.widths, macs=0.7))
    smallest = again.apply(between).eval()
    steps = [artifact.step(first, plan), artifact.step(second, again)]
    artifact.save(folder, smallest, dense=network, steps=steps, example=EXAMPLE, description=DESCRIPTION)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (network, between, smallest)]
    assert sizes[0] > sizes[1] > sizes[2]
    images = torch.randn(7, 1, 6, 6)
    assert torch.equal(artifact.load(folder, kind(), EXAMPLE)(images), smallest(images))
    with pytest.raises(UserError, match="its channel groups are not those of this one"):
        artifact.load(folder, between, EXAMPLE)  # the first step does not fit the already pruned network


def test_ties_survive(folder):
    saved(folder, Tied())
    loaded = artifact.load(folder, Tied(), EXAMPLE)
    assert loaded.again.weight is loaded.first.weight


def test_recipe_says_what_was_done(folder):
    network = Small()
    pruned = saved(folder, network)
    recipe = artifact.read_recipe(folder)
    assert recipe["network"] == DESCRIPTION.network and recipe["budget"] == {"macs": 0.5}
    assert recipe["transform"] == {"mean": [0.5]} and recipe["figures"]["top1_test_after"] == 97.5
    assert recipe["figures"]["cross_entropy_test_after"] is None, "JSON has no infinity"
    assert recipe["input"] == {"shape": [1, 6, 6], "dtype": "float32"}
    assert recipe["formats"] == {
        "weights": {"file": "weights.safetensors"},
        "program": {"file": "model.pt2", "batch": "any"},
    }
    assert recipe["versions"]["torch"]
    kept = recipe["steps"][0]["kept"]["conv"]
    assert torch.equal(pruned.conv.weight, network.conv.weight[kept])
    assert set(recipe["sha256"]) == {"weights.safetensors", "model.pt2", "recipe.json"}
    assert load_file(folder / "weights.safetensors").keys() == pruned.state_dict().keys()


def test_a_network_that_fixes_its_batch_is_exported_so_and_says_so(folder):
    pruned = saved(folder, FixedBatch())
    assert artifact.read_recipe(folder)["formats"]["program"] == {"file": "model.pt2", "batch": "fixed at 1"}
    torch.testing.assert_close(artifact.load(folder, format="program")(EXAMPLE), pruned(EXAMPLE))


def test_dataclasses_are_exported_if_pytorch_knows_them(folder):
    with pytest.raises(UserError, match=r"^Named returns a Scores, which no exported program can: expected tensors in"):
        saved(folder, Named())
    assert not folder.exists()
    pruned = saved(folder, Named(), formats=["weights"])
    restored = artifact.load(folder, Named(), EXAMPLE)
    assert torch.equal(restored(EXAMPLE).logits, pruned(EXAMPLE).logits)
    torch.export.register_dataclass(Scores, serialized_type_name="Scores")
    pruned = saved(folder, Named())
    torch.testing.assert_close(artifact.load(folder, format="program")(EXAMPLE).logits, pruned(EXAMPLE).logits)


def test_saving_leaves_the_mode_as_it_was(folder):
    network = Small().eval()
    graph = trace(network, EXAMPLE)
    plan = graph.plan(network, graph.project(graph.widths, macs=0.5))
    pruned = plan.apply(network).train()
    save(folder, pruned, network, graph, plan)
    assert all(module.training for module in pruned.modules())


def test_saving_refuses_what_does_not_load_back(folder):
    network = Small().eval()
    graph = trace(network, EXAMPLE)
    plan = graph.plan(network, graph.project(graph.widths, macs=0.5))
    pruned = plan.apply(network)
    pruned.register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(RuntimeError, match=r"loaded from weights.safetensors \(weights\) differs by"):
        save(folder, pruned, network, graph, plan)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_damage_is_named(folder):
    saved(folder, Small())
    flip(folder / "weights.safetensors")
    with pytest.raises(UserError, match=r"weights.safetensors is damaged: its SHA-256 is"):
        artifact.load(folder, Small(), EXAMPLE)
    flip(folder / "model.pt2")
    with pytest.raises(UserError, match=r"model.pt2 is damaged"):
        artifact.load(folder, format="program")


def test_changed_recipe_is_named(folder):
    saved(folder, Small())
    path = folder / "recipe.json"
    recipe = json.loads(path.read_text())
    recipe["steps"][0]["kept"]["conv"][0] += 1
    path.write_text(json.dumps(recipe))
    with pytest.raises(UserError, match=r"recipe.json is damaged: it has been changed"):
        artifact.load(folder, Small(), EXAMPLE)
    path.write_text("{")
    with pytest.raises(UserError, match=r"recipe.json is damaged"):
        artifact.read_recipe(folder)
    path.write_text('{"format": 99}')
    with pytest.raises(UserError, match=r"not a recipe of version 4, but of 99: update"):
        artifact.read_recipe(folder)


def test_missing_files_are_named(folder):
    with pytest.raises(UserError, match=r"has no recipe.json: expected"):
        artifact.load(folder, Small(), EXAMPLE)
    saved(folder, Small())
    with pytest.raises(UserError, match=rf"has no recipe.json \(did you mean {folder}\?\): expected the folder"):
        artifact.load(folder.parent, Small(), EXAMPLE)
    (folder / "model.pt2").unlink()
    with pytest.raises(UserError, match=r"model.pt2 is missing"):
        artifact.load(folder, format="program")


def test_another_network_is_refused(folder):
    saved(folder, Small())
    for other in (Small(channels=8), nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 4), nn.Flatten())):
        with pytest.raises(UserError, match="its channel groups are not those of this one"):
            artifact.load(folder, other, EXAMPLE)


def test_recipe_without_its_keys_is_refused(folder):
    saved(folder, Small())
    recipe = json.loads((folder / "recipe.json").read_text())
    for name in ("network", "steps", "sha256", "transform"):
        (folder / "recipe.json").write_text(json.dumps({key: recipe[key] for key in recipe if key != name}))
        with pytest.raises(UserError, match=rf"recipe.json is damaged: it lacks {name}"):
            artifact.read_recipe(folder)


def with_recipe(folder, change):
    """Change a recipe as someone would who knows its hash."""
    path = folder / "recipe.json"
    recipe = json.loads(path.read_text())
    change(recipe)
    recipe["sha256"]["recipe.json"] = recipe_hash(recipe)
    path.write_text(json.dumps(recipe))


def setting(*keys, to):
    """Function that sets a part of a recipe."""

    def change(recipe):
        *outer, last = keys
        for key in outer:
            recipe = recipe[key]
        recipe[last] = to

    return change


CONV = ("steps", 0, "kept", "conv")
INVALID = {
    "an older version": (setting("format", to=3), "not a recipe of version 4, but of 3: save the artifact again"),
    "a newer version": (setting("format", to=5), "not a recipe of version 4, but of 5: update gnnrl_lightning"),
    "a version that is no number": (setting("format", to="4"), "not a recipe of version 4"),
    "steps of another type": (setting("steps", to={}), "lacks steps"),
    "a step of another type": (setting("steps", 0, to=[]), "step 0 lacks fingerprint, keep, kept"),
    "a step without its hash": (setting("steps", 0, "fingerprint", to=None), "step 0 lacks fingerprint"),
    "kept layers of another type": (setting("steps", 0, "keep", to="conv"), "step 0 lacks"),
    "no shape": (setting("input", "shape", to=None), r"has the shape None"),
    "a negative shape": (
        setting("input", "shape", to=[1, -6, 6]),
        r"shape \[1, -6, 6\], expected positive",
    ),
    "a huge shape": (setting("input", "shape", to=[10**9, 10**9, 6]), "expected positive sizes"),
    "sizes that are no numbers": (setting("input", "shape", to=["1", 6, 6]), "expected positive sizes"),
    "a type that PyTorch lacks": (setting("input", "dtype", to="float33"), "has the type 'float33'"),
    "a type that is a function": (setting("input", "dtype", to="load"), "has the type 'load'"),
    "no input": (setting("input", to={"tuple": [3]}), "an input is 3"),
    "a file elsewhere": (setting("formats", "weights", "file", to="../w.safetensors"), "expected a plain name"),
    "no file": (setting("formats", "weights", to=None), "has the file None"),
    "no channels of a group": (lambda recipe: recipe["steps"][0]["kept"].pop("conv"), "keeps None of conv"),
    "channels out of range": (setting(*CONV, to=[0, 1, 6]), r"keeps \[0, 1, 6\] of conv: expected .* from 0 to 5"),
    "negative channels": (setting(*CONV, to=[-1, 1, 2]), "expected ascending channels"),
    "a channel twice": (setting(*CONV, to=[1, 1, 2]), "expected ascending channels"),
    "channels out of order": (setting(*CONV, to=[2, 1, 3]), "expected ascending channels"),
    "no channels": (setting(*CONV, to=[]), "expected ascending channels"),
    "channels that are fractions": (setting(*CONV, to=[0.5, 1.0]), "expected ascending channels"),
    "channels that are text": (setting(*CONV, to=["a"]), "expected ascending channels"),
    "channels of other lengths": (setting(*CONV, to=[[0, 1], [0]]), "expected ascending channels"),
    "a channel too large for an integer": (setting(*CONV, to=[10**30]), "expected ascending channels"),
    "other channels, as many": (setting(*CONV, to=[0]), "weights.safetensors is for another network"),
    "another fingerprint": (setting("steps", 0, "fingerprint", to="0"), "was pruned from a different network"),
    "other outputs": (setting("probe", to=[[0.0, 0.0, 9.0]]), "does not compute what was saved"),
    "fewer outputs": (setting("probe", to=[]), "does not compute what was saved"),
    "outputs of another type": (setting("probe", to=[["a"]]), "does not compute what was saved"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "pruned"
    saved(folder, Small(), formats=("weights",))
    return folder


@pytest.mark.parametrize("case", INVALID)
def test_a_recipe_with_invalid_parts_is_one_line(whole, tmp_path, case):
    folder = shutil.copytree(whole, tmp_path / "pruned")
    change, message = INVALID[case]
    with_recipe(folder, change)
    with pytest.raises(UserError, match=message) as error:
        artifact.load(folder, Small(), EXAMPLE)
    assert "\n" not in str(error.value)


class Changed(Small):
    """The same parameters, and other code."""

    def forward(self, x):
        return self.second(self.first(self.bn(self.conv(x)).sigmoid().mean((2, 3))).relu())


def test_code_that_has_changed_since_is_noticed(whole):
    assert isinstance(artifact.load(whole, Small(), EXAMPLE), Small)
    with pytest.raises(UserError, match=r"weights.safetensors does not compute what was saved: expected the network's"):
        artifact.load(whole, Changed(), EXAMPLE)


class Shares(Small):
    """Outputs of a few thousandths, as a softmax over many classes has them."""

    def forward(self, x):
        return super().forward(x) / 500


class ChangedShares(Changed):
    """The same with the other code."""

    def forward(self, x):
        return super().forward(x) / 500


def test_code_that_has_changed_since_is_noticed_by_small_outputs(folder):
    torch.manual_seed(0)
    network = Shares()
    saved(folder, network)
    assert isinstance(artifact.load(folder, network, EXAMPLE), Shares)
    with pytest.raises(UserError, match=r"weights.safetensors does not compute what was saved"):
        artifact.load(folder, ChangedShares(), EXAMPLE)


class Odd(Small):
    """Besides logits, it returns what has no difference, or an infinite one."""

    def forward(self, x):
        logits = super().forward(x)
        return logits, logits > 0, logits[:, :0], logits.where(logits > logits.mean(), -torch.inf)


def test_outputs_that_are_truth_values_empty_or_infinite_are_compared(folder):
    """Also with the infinite ones in other places."""
    torch.manual_seed(0)
    pruned = saved(folder, Odd())
    for loaded in (artifact.load(folder, Odd(), EXAMPLE), artifact.load(folder, format="program")):
        torch.testing.assert_close(loaded(EXAMPLE), pruned(EXAMPLE))
    given, wanted = torch.tensor([1.0, -torch.inf]), torch.tensor([-torch.inf, 1.0])
    assert difference(given, given) == (0, 1)
    assert min(difference(given, wanted)[0], difference(wanted[1:], wanted[:1])[0]) > 1e300
    assert difference(torch.tensor([True, False]), torch.tensor([True, True])) == (1, 1)


@pytest.mark.parametrize("name", ["recipe.json", "weights.safetensors"])
def test_random_damage_is_one_line(whole, tmp_path, name):
    """Flipped, removed, added and truncated bytes; nothing but a refusal, or the same network."""
    folder, draw = shutil.copytree(whole, tmp_path / "pruned"), random.Random(0)
    data = (folder / name).read_bytes()
    for _ in range(200):
        (folder / name).write_bytes(damaged(data, draw))
        with pytest.raises(UserError) as error:
            artifact.load(folder, Small(), EXAMPLE)
        assert "\n" not in str(error.value)


def write_pickle(network, example, path):
    torch.save(network, path)
    return {"trusted": True}


def load_pickle(path, recipe, dense, example):
    return torch.load(path, weights_only=False)


def load_halved(path, recipe, dense, example):
    network = load_pickle(path, recipe, dense, example)
    return lambda images: network(images) / 2


def not_installed():
    raise UserError("format pickle needs a library that is not installed")


PICKLE = Format("model.pkl", write_pickle, load_pickle)
DAMAGED = Format("model.pkl", write_pickle, load_halved)
COARSE = Format("model.pkl", write_pickle, load_halved, tolerance=0.6)
MISSING = Format("model.pkl", write_pickle, load_pickle, check=not_installed)


def path_of(name):
    return f"{__name__}.{name}"


def test_a_format_by_its_import_path(folder):
    """Only this format is written, hashed and verified, and the recipe stores its notes."""
    pruned, pickled = saved(folder, Small(), formats=[path_of("PICKLE")]), path_of("PICKLE")
    recipe = artifact.read_recipe(folder)
    assert recipe["formats"] == {pickled: {"file": "model.pkl", "trusted": True}}
    assert {path.name for path in folder.iterdir()} == set(recipe["sha256"]) == {"model.pkl", "recipe.json"}
    images = torch.randn(3, 1, 6, 6)
    assert torch.equal(artifact.load(folder, format=pickled)(images), pruned(images))
    with pytest.raises(UserError, match=r"was saved as .*PICKLE, not as 'weights'"):
        artifact.load(folder, Small(), EXAMPLE)


def test_what_a_format_loads_is_compared_within_its_tolerance(folder):
    with pytest.raises(RuntimeError, match=r"loaded from model.pkl .* differs by"):
        saved(folder, Small(), formats=[path_of("DAMAGED")])
    pruned, images = saved(folder, Small(), formats=[path_of("COARSE")]), torch.randn(3, 1, 6, 6)
    assert torch.equal(artifact.load(folder, format=path_of("COARSE"))(images), pruned(images) / 2)


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (
            ["onions"],
            r"format is 'onions' \(did you mean onnx\?\): expected one of weights, program, onnx, openvino, int8, or an"
            r" import path",
        ),
        (["weights", "weights"], "expected different formats, each with its own file"),
        ([path_of("PICKLE"), path_of("COARSE")], "expected different formats, each with its own file"),
        ([path_of("MISSING")], "needs a library that is not installed"),
        ([path_of("not_installed")], "expected a Format, not a function"),
    ],
)
def test_formats_that_cannot_be_written_are_refused_before_anything_is(folder, formats, message):
    with pytest.raises(UserError, match=message):
        saved(folder, Small(), formats=formats)
    assert not folder.exists()


def test_weights_alone_need_the_dense_network(folder):
    pruned = saved(folder, Small())
    with pytest.raises(UserError, match="stores only weights: give the dense network"):
        artifact.load(folder, format="weights")
    loaded = artifact.load(folder, Small())  # an example of the recorded shapes does
    assert torch.equal(loaded(EXAMPLE), pruned(EXAMPLE))
