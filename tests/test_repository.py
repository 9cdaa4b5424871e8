"""What holds for the repository as a whole."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml
from cffconvert import Citation

import gnnrl_lightning

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gnnrl_lightning"

# Each may import what stands below it, and nothing above.
ORDER = (
    "__main__",
    "cli",
    "job",
    "runs",
    "rl",
    "search",
    "surrogate",
    "evaluation",
    "speed",
    "candidates",
    "artifacts",
    "tracer",
    "graph",
    "importance",
    "repair",
    "calibration",
    "surgery",
    "cost",
    "exporting",
    "tracing",
    "training",
    "report",
    "objective",
    "data",
    "networks",
    "registry",
    "trees",
    "options",
    "tensor_files",
    "files",
    "processes",
    "module_state",
    "seeds",
    "quiet",
    "checks",
    "versions",
    "errors",
)


def imports(path):
    """Top-level parts of this package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "gnnrl_lightning" and len(parts) > 1 and parts[1] in ORDER:
                yield parts[1]


def python_files():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert part in ORDER, f"{part} has no place in the order of imports"
    upward = [other for other in imports(path) if ORDER.index(other) < ORDER.index(part)]
    assert not upward, f"{part} imports {upward}"


def test_every_part_of_the_order_is_there():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in python_files()}
    assert parts == set(ORDER)


# Tests of a part as a whole; the names of all others are, or begin with, the name of a module or folder.
OF_A_WHOLE = {
    "candidates": {"device"},
    "job": {"several_inputs"},
    "cli": {
        "bad_input",
        "configuration",
        "many_devices",
        "masks",
        "other_objectives",
        "own_data",
        "own_metrics",
        "own_policies",
        "prune",
        "refusals",
        "runs",
        "stages",
    },
    "networks": {"class_paths", "libraries"},
}


def test_tests_mirror_the_package():
    for test in (ROOT / "tests").rglob("test_*.py"):
        folder, name = test.parent.relative_to(ROOT / "tests"), test.stem.removeprefix("test_")
        assert (PACKAGE / folder).is_dir() or (ROOT / folder).is_dir(), f"{test} mirrors nothing"
        if folder.parts and (PACKAGE / folder).is_dir() and name not in OF_A_WHOLE.get(folder.as_posix(), ()):
            there = [path.stem for path in (PACKAGE / folder).iterdir()]
            assert any(name == each or name.startswith(f"{each}_") for each in there), f"{test} mirrors no file"


def test_citation_validates_and_has_the_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    Citation(text, src="CITATION.cff").validate()
    citation = yaml.safe_load(text)
    assert citation["version"] == gnnrl_lightning.__version__
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Yu", "Mazaheri", "Jannesari"]
    assert (paper["year"], paper["volume"], paper["start"], paper["end"]) == (2022, 162, 25656, 25667)


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("experiments/**/*.yaml"), ROOT / "CITATION.cff"]),
    ids=lambda path: path.name,
)
def test_yaml_parses(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_notebooks_are_stripped():
    notebooks = list((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None, path


def test_the_contributors_page_names_make_targets_that_exist():
    named = set(re.findall(r"`?make ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))) - {"and"}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"test", "test-all", "lint", "docs"} <= named <= targets


def test_commits_are_checked_by_what_make_lint_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing is fetched
    commands = [hook["entry"].removesuffix(" --fix") for hook in hooks[0]["hooks"]]
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert commands == ["ruff check", "ruff format"] and all(command in lint for command in commands)


def test_project_and_citation_say_the_same():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["authors"][0]["name"] in project and citation["preferred-citation"]["url"] in project


def test_make_targets_of_the_readme_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^make (\w+)", readme, re.MULTILINE))
    assert {"quickstart", "test"} <= named
    assert named <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))


def test_files_that_the_readme_names_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:experiments|notebooks)/[\w/.]+\.(?:yaml|ipynb)", readme))
    assert "experiments/digits.yaml" in named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_changelog_has_a_place_for_what_is_new():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.startswith("# Changelog") and "## [Unreleased]" in changelog
