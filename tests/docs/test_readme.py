"""What README and the manual say in Python runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets():
    for page in PAGES:
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)):
            yield pytest.param(code, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("code", list(snippets()))
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


def test_the_readme_cuts_to_half_of_the_macs(capsys):
    """Within a step of the budget, by the exact cost."""
    *_, code = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    names = {"__name__": "snippet"}
    exec(compile(code, "snippet", "exec"), names)
    macs, params = map(int, capsys.readouterr().out.split())
    dense = int(names["graph"].cost.macs(names["graph"].widths))
    assert 0.48 * dense < macs <= 0.5 * dense and params < sum(each.numel() for each in names["network"].parameters())


def test_links_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([\w./]+\.(?:md|png|yaml))\)", page.read_text("utf-8")):
            made = {"configuration.md", "operators.md", "results.md", "figures/policy_budgets.png"}
            assert target in made or (page.parent / target).is_file(), f"{page.name}: {target}"
