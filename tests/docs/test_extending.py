"""Every page of docs/extending: its snippet runs, and its YAML is taken by the command line."""

import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import gnnrl_lightning
from gnnrl_lightning.cli import main
from gnnrl_lightning.registry import Registry
from tests.support.workplace import working_in

PAGES = Path(__file__).parents[2] / "docs" / "extending"
NAMES = sorted(path.name for path in PAGES.glob("add-*.md"))


def tables():
    """All tables, wherever they are defined."""
    names = [module.name for module in pkgutil.walk_packages(gnnrl_lightning.__path__, "gnnrl_lightning.")]
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    return [table for module in modules for table in vars(module).values() if isinstance(table, Registry)]


@pytest.fixture(autouse=True)
def own_rows(monkeypatch):
    """Removes what a snippet registers."""
    for table in tables():
        monkeypatch.setattr(table, "_rows", dict(table))


def test_every_table_is_found():
    found = {table.kind for table in tables()}
    assert {"metric", "repair", "distillation", "objective", "search method", "export format", "encoder"} <= found


def block(page, language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    return found


def test_the_index_names_every_page():
    assert set(re.findall(r"\((add-[\w-]+\.md)\)", (PAGES / "index.md").read_text())) == set(NAMES)


def everything():
    return "".join((PAGES / page).read_text() for page in NAMES)


FURTHER = [
    pytest.param(source, id=f"{page} {number}")
    for page in NAMES
    for number, source in enumerate(re.findall(r"^```py\n(.*?)^```$", (PAGES / page).read_text(), re.M | re.S))
]


@pytest.mark.parametrize("source", FURTHER)
def test_further_snippets_run_and_their_data_sets_are_taken(source, tmp_path, capsys):
    (module,) = re.findall(r"^# (\w+)\.py\n", source)
    (data,) = re.findall(r"^class (\w+)\((?:LightningDataModule|Datasets)\)", source, re.MULTILINE)
    with working_in(tmp_path):
        (tmp_path / f"{module}.py").write_text(source)
        runpy.run_path(f"{module}.py", run_name="__main__")
        two = ["--network.init_args", "{classes: 2}"]
        main(["inspect", "--config", "small.yaml", "--data", f"{module}.{data}", *two])
        for settings in re.findall(r"^```yml\n(.*?)^```$", everything(), re.M | re.S):
            if f"{module}." in settings:
                (tmp_path / "further.yaml").write_text(settings)
                main(["inspect", "--config", "small.yaml", "--config", "further.yaml", *two])
    assert "groups" in capsys.readouterr().out


def test_every_snippet_is_run():
    assert {*re.findall(r"^```(\w+)$", everything(), re.MULTILINE)} == {"python", "yaml", "py", "yml"} and FURTHER


@pytest.mark.parametrize("page", NAMES)
def test_a_page_is_complete_and_runs(page, tmp_path, capsys):
    source, settings = block(page, "python"), block(page, "yaml")
    module = re.match(r"# (\w+)\.py\n", source)
    assert module and f"{module.group(1)}." in settings, "the YAML names something of the snippet"
    with working_in(tmp_path):
        (tmp_path / f"{module.group(1)}.py").write_text(source)
        (tmp_path / "page.yaml").write_text(settings)
        runpy.run_path(f"{module.group(1)}.py", run_name="__main__")
        main(["inspect", "--config", "small.yaml", "--config", "page.yaml"])
    assert "groups" in capsys.readouterr().out
