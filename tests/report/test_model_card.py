"""The model card: metadata that parses, the table of results, and code that loads each file."""

import ast
import re

import pytest
import yaml

from gnnrl_lightning.artifacts.formats import FORMATS
from gnnrl_lightning.report.model_card import USAGE, model_card
from tests.report.test_files import FORMATS as FIGURES
from tests.support.results import RESULT

RECIPE = {
    "network": {"class_path": "my.ResNet", "init_args": {"classes": 10}},
    "formats": {
        **{name: {"file": row.file, "batch": "any"} for name, row in FORMATS.items()},
        "mine.HALF": {"file": "half.safetensors"},
    },
}


@pytest.fixture(scope="module")
def card():
    return model_card({**RESULT, "formats": FIGURES}, RECIPE, "user/small")


def test_metadata_has_the_score_on_the_test_examples(card):
    metadata = yaml.safe_load(card.split("---\n")[1])
    (found,) = metadata["model-index"]
    (result,) = found["results"]
    assert result["metrics"] == [{"type": "top1", "name": "top-1 in %", "value": 98.75}]
    assert result["dataset"]["name"] == "digits" and metadata["library_name"] == "gnnrl-lightning"


def test_results_before_and_after_budget_and_costs_are_told(card):
    assert "at most 50 % of the MACs" in card and "the budget macs 0.5" in card
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| dense", "| uniform", "| ours", "| ours, int8"]
    assert len({row.count("|") for row in rows}) == 1
    ours = rows[4]
    assert "98.75" in ours and "88.00" in ours and "50.0 %" in ours
    assert "a drop of 1.2% of the network's lead over guessing" in card


def test_every_format_has_code_that_loads_its_file(card):
    blocks = re.findall(r"^### (\S+)\n.*?^```python\n(.*?)^```", card, re.M | re.S)
    assert [name for name, _ in blocks] == [*RECIPE["formats"]] and set(USAGE) == set(FORMATS)
    for name, code in blocks:
        ast.parse(code)
        assert "{" not in code.replace('{"INFERENCE_PRECISION_HINT"', "").replace("{'classes'", ""), name
    assert 'load("FOLDER", format="mine.HALF")' in card
    assert "`model.int8.onnx` (250.0 kB), batch: any" in card
    assert "pickled parts: load it only if you trust its author" in card
