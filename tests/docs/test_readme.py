"""What README and the manual say in Python runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = ROOT / "experiments" / "results"


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


def sections(page):
    """Anchors of the titles of a page, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted(RESULTS.glob("*.md"))], ids=lambda page: f"{page.parent.name}-{page.stem}"
)
def test_links_lead_to_files_and_sections(page):
    """In the documentation, the folder of the results lies beside the manual."""
    for target, section in re.findall(r"\]\(([\w./-]+\.(?:md|png|yaml))?(?:#([\w-]+))?\)", page.read_text("utf-8")):
        if target in {"configuration.md", "operators.md"}:  # made when the documentation is built
            continue
        inside = target.startswith("results/") and page.parent.name == "docs"
        led = (RESULTS.parent if inside else page.parent) / target if target else page
        assert led.is_file(), f"{page.name}: {target}"
        assert not section or section in sections(led), f"{page.name}: {target}#{section}"
