"""User-defined parts work by import path from YAML in whole jobs, without changes to the package."""

import json
from pathlib import Path

import pytest
import torch

from gnnrl_lightning import load
from gnnrl_lightning.cli import main
from gnnrl_lightning.data import Digits
from tests.support.workplace import SPENT, working_in

OWN = '''
import torch
from torch import nn

from gnnrl_lightning.objective import Figure, Measured, Objective

CALLS = {"importance": 0, "repair": 0, "search": 0}


class Robust(Objective):
    """Right within a tolerance: the largest logit has to lead by a margin."""

    figures = {
        "clear": Figure("clearly right", "%", higher_is_better=True),
        "hinge": Figure("hinge loss", digits=3),
    }
    ranking = ("clear", "hinge")

    def __init__(self, margin=1.0):
        self.margin = margin

    def loss(self, outputs, targets):
        return nn.functional.multi_margin_loss(outputs, targets, margin=self.margin)

    def measure(self, outputs, targets):
        hinge = nn.functional.multi_margin_loss(outputs, targets, margin=self.margin, reduction="none")
        clear = hinge == 0
        return Measured(clear, {"clear": 100.0 * clear.sum(), "hinge": hinge.sum()})


def importance(network, parameters, calibration):
    """The first channels stay."""
    CALLS["importance"] += 1
    return {name: -torch.arange(float(len(weight))).reshape(-1, *[1] * (weight.dim() - 1)).expand(weight.shape)
            for name, weight in parameters.items()}


class Repair:
    """Halves what the classifier gives: ranks nothing anew."""

    def __call__(self, dense, pruned, selection):
        CALLS["repair"] += 1
        with torch.no_grad():
            pruned.classifier.weight *= 0.5


def search(problem, seed):
    """Four candidates around the uniform one."""
    CALLS["search"] += 1
    generator = torch.Generator().manual_seed(seed)
    for _ in range(min(4, problem.left)):
        keep = torch.rand(len(problem.graph.groups), generator=generator)
        problem.ask(problem.project(problem.graph.widths * keep), "own")
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with working_in(tmp_path_factory.mktemp("extending")) as folder:
        (folder / "own_parts.py").write_text(OWN)
        yield folder


OPTIONS = ["--candidate.importance", "own_parts.importance", "--candidate.repair", "own_parts.Repair"]


def test_an_importance_and_a_repair_by_import_path_search_and_deliver(folder):
    """The importance is counted as a pass over 128 images: less than one evaluation, of 287 + 128, more than before."""
    main(["fit", "--config", "small.yaml", *OPTIONS, "--run.name", "fit"])
    import own_parts

    result = json.loads(Path("runs/fit/result.json").read_text())
    journal = [json.loads(line) for line in Path("runs/fit/journal.jsonl").read_text().splitlines()]
    assert own_parts.CALLS["importance"] == 2  # once before training, to try it
    assert own_parts.CALLS["repair"] == 1 + len({tuple(record["widths"]) for record in journal}) > 2  # tried as well
    assert result["search"]["evaluations"] <= SPENT
    recipe = json.loads(Path("runs/fit/pruned/recipe.json").read_text())
    for kept in recipe["steps"][0]["kept"].values():  # the first channels stay
        assert kept == list(range(len(kept)))


def test_a_search_method_by_import_path_is_compared(folder):
    methods = ["uniform", "own_parts.search"]
    compared = ["--compare.methods", json.dumps(methods), "--compare.seeds", "[0, 1]"]
    main(["compare", "--config", "small.yaml", *OPTIONS, *compared, "--run.name", "compare"])
    figures = json.loads(Path("runs/compare/compare.json").read_text())
    assert [(row["method"], row["seed"]) for row in figures["rows"]] == [
        ("uniform", None),
        ("own_parts.search", 0),
        ("own_parts.search", 1),
    ]
    own = figures["rows"][1]
    # Four candidates, and one evaluation for the pass of the importance over 128 images.
    assert own["found_by"] == "own" and own["evaluations"] == 4 + 1


def test_an_objective_by_import_path_trains_searches_and_is_tested(folder):
    """The figures in result.json are those of the delivered network on the test images, by the objective's own loss."""
    own = {"class_path": "own_parts.Robust", "init_args": {"margin": 0.5}}
    Path("own.yaml").write_text(json.dumps({"objective": own, "episode": {"reward": "hinge"}}))
    main(["fit", "--config", "small.yaml", "--config", "own.yaml", "--run.name", "objective"])
    result = json.loads(Path("runs/objective/result.json").read_text())
    data = Digits()
    data.setup()
    network = load("runs/objective/pruned", own_network(), data.normalize(data.test.inputs[:1]))
    with torch.no_grad():
        logits = network(data.normalize(data.test.inputs))
    right = logits.gather(1, data.test.targets[:, None])
    hinge = (0.5 - right + logits).clamp(min=0).scatter(1, data.test.targets[:, None], 0.0).mean(1)
    assert result["pruned"]["hinge_test_after"] == pytest.approx(float(hinge.mean()), rel=1e-4)
    assert result["pruned"]["clear_test_after"] == pytest.approx(100.0 * float((hinge == 0).float().mean()), rel=1e-4)
    assert result["pruned"]["clear_test_after"] > 50  # of random outputs it is less than 10
    journal = [json.loads(line) for line in Path("runs/objective/journal.jsonl").read_text().splitlines()]
    assert all(record["scores"].keys() == {"clear", "hinge", "divergence"} for record in journal)


def own_network():
    """The dense network of the workplace."""
    from own_networks import Small

    return Small()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--candidate.importance", "own_parts.nothing", r"candidate.importance 'own_parts.nothing' cannot be imported"),
        (
            "--candidate.repair",
            "own_parts.CALLS",
            r"candidate.repair 'own_parts.CALLS': expected a Repair, or a function",
        ),
        ("--search.sensitivity", "nowhere.at_all", r"search.sensitivity 'nowhere.at_all' cannot be imported"),
        ("--compare.methods", "[own_parts.CALLS]", r"compare.methods 'own_parts.CALLS': expected a Method"),
        ("--delivery.formats", "[own_parts.search]", r"delivery.formats 'own_parts.search': expected a Format"),
    ],
)
def test_what_is_no_row_is_refused_in_one_line(folder, capsys, option, value, message):
    from tests.cli.refused import assert_refused

    assert_refused(capsys, folder, [option, value], message)
