import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from torch import nn

from gnnrl_lightning import data
from gnnrl_lightning.artifacts.formats import FORMATS
from gnnrl_lightning.cli import main
from gnnrl_lightning.cli.helping import TRAINER
from gnnrl_lightning.importance import IMPORTANCES
from gnnrl_lightning.repair.table import REPAIRS
from gnnrl_lightning.speed.backends import BACKENDS
from gnnrl_lightning.surrogate.measures import SENSITIVITIES
from gnnrl_lightning.tracing.walk import RULES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate():
    """The hook, which is a file and no module of a package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(page):
    """Section -> key -> default, of all tables of a page."""
    sections, current = {}, {}
    for line in page.splitlines():
        if line.startswith("## "):
            current = sections[line.removeprefix("## ")] = {}
        row = re.match(r"\| `([^`]+)` \| .* \| (?:`(.*?)`|required) \| (.*) \|$", line)
        if row is not None:
            assert row[3], f"{row[1]} has no description"
            current[row[1]] = row[2]
    return sections


def test_every_key_has_its_default(generate, capsys):
    """The page against what `--print_config` says."""
    rows = rows_of(generate.configuration())
    with pytest.raises(SystemExit):
        main(["fit", "--network.class_path", "resnet20", "--data", "Digits", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    config["network"]["class_path"] = None  # those of the page have no default
    digits, usual = config.pop("data")["init_args"], config.pop("model")["init_args"]
    config["trainer"] = {key: value for key, value in config["trainer"].items() if key in TRAINER}
    for section, keys in {name: keys for name, keys in config.items() if isinstance(keys, dict)}.items():
        told = {key: yaml.safe_load(default) if default is not None else None for key, default in rows[section].items()}
        assert keys.keys() == told.keys(), section
        plain = {key: value for key, value in keys.items() if not isinstance(value, dict)}
        assert plain == {key: told[key] for key in plain}, section
    single = {name for name, value in config.items() if not isinstance(value, dict)}
    assert single <= rows["Keys without a section"].keys()
    assert {key: yaml.safe_load(value) for key, value in rows["data: Digits"].items()} == digits
    policy = usual.pop("make_policy")["class_path"]
    learner = {key: yaml.safe_load(value) for key, value in rows["model: GNNRL"].items()}
    assert policy.endswith(".Agent") and learner.pop("make_policy") is not None and learner == usual
    assert rows["model: DDPG"]["tau"] == "0.05"


def test_every_class_of_data_has_a_table(generate):
    rows = rows_of(generate.configuration())
    named = {title.removeprefix("data: ") for title in rows if title.startswith("data: ")}
    assert {"Digits", "CIFAR10", "ImageFolder", "StreamingImageFolder"} <= named <= set(data.__all__)
    assert rows["data: ImageFolder"]["root"] is None  # required


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (int, "int"),
        (int | None, "int | null"),
        (list[str], "list of str"),
        (tuple[float, float], "[float, float]"),
        (tuple[float, ...], "list of float"),
        (dict[str, Any], "mapping of str to anything"),
        (Mapping[str, int], "mapping of str to int"),
        (int | Literal["auto"], "int | auto"),
        (Literal["all", "odd"], "one of all, odd"),
        (Callable[[int], nn.Module], "class path"),
        (nn.Module, "Module"),
    ],
)
def test_types_in_the_words_of_yaml(generate, kind, said):
    assert generate.shown(kind) == said


def test_options_are_told_in_our_words_and_code_is_not_escaped(generate):
    page = generate.configuration()
    assert "Seed of weights, training and search; true: a random seed." in page
    assert "(`layer1.*`)" in page and "instantiation" not in page
    assert "`gradient_clip_val`" in page and "`fast_dev_run`" not in page  # which is refused


@pytest.mark.parametrize(
    ("option", "table"),
    [
        ("candidate.importance", IMPORTANCES),
        ("candidate.repair", REPAIRS),
        ("delivery.repair", REPAIRS),
        ("delivery.formats", FORMATS),
        ("latency.backend", BACKENDS),
        ("search.sensitivity", SENSITIVITIES),
    ],
)
def test_an_option_that_takes_a_row_of_a_table_lists_its_names(generate, option, table):
    (told,) = [action.help for action in generate.options("fit") if action.dest == option]
    assert set(table) <= set(re.findall(r"\w+", told))


def test_api_has_every_module_once(generate):
    pages = generate.api_pages()
    shown = [line.removeprefix("::: ") for text in pages.values() for line in text.splitlines() if line[:4] == "::: "]
    files = [path for path in (ROOT / "gnnrl_lightning").rglob("*.py") if not path.name.startswith("__")]
    expected = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files} | {"gnnrl_lightning"}
    assert len(shown) == len(set(shown)) and set(shown) == expected


def test_every_rule_is_among_the_operators(generate):
    page = generate.operators()
    tables, _, pointwise = page.partition("## Pointwise operators")
    rows = [row for row in tables.splitlines() if row.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert len(listed) == len(set(listed)) and set(listed) == set(RULES) - {"pointwise"}
    assert all(row.count("|") == 3 and row.split("|")[2].strip() for row in rows)
    assert {"relu", "exp", "maximum"} <= set(re.findall(r"`(\w+)`", pointwise)).difference(listed)


def test_pages_of_results_are_in_the_navigation(generate):
    """They lie in one folder, with links to each other as they are, and to the manual beside it."""
    pages = generate.results()
    assert pages.keys() == set(re.findall(r": (results/\S+)", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert "](../concepts.md)" in pages["results/README.md"] and "docs/" not in "".join(pages.values())


@pytest.mark.slow
def test_documentation_builds_without_a_warning(tmp_path):
    """`.ci/run` builds it every time. This test also checks that no page loads anything from another host."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "configuration", "concepts", "results", "api", "extending"} <= {
        path.name for path in (tmp_path / "site").iterdir()
    }
    for page in pages:
        fetched = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text("utf-8"))
        assert fetched == [], page
