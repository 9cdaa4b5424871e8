import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
IMPORTS = re.compile(r"^(import|from) torch_geometric", re.MULTILINE)


# Jupyter's own client and kernel, in other threads and processes.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::DeprecationWarning:zmq")


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in its own folder and returns it with its outputs."""

    def run(name):
        monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
        sources = [cell.source for cell in notebook.cells]
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        warned = "".join(output["text"] for output in outputs if output.get("name") == "stderr")
        assert str(NOTEBOOKS.parent / "gnnrl_lightning") + "/" not in warned  # warnings from other packages are allowed
        # A notebook that imports torch_geometric itself is warned by it.
        assert "ipywidgets" not in warned or any(map(IMPORTS.search, sources))
        return notebook

    return run


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs if output.get("name") != "stderr")


def test_cells_may_be_run_again():
    """A run that exists is replaced, or, by compress, resumed."""
    code = "\n".join(
        cell.source
        for path in NOTEBOOKS.glob("*.ipynb")
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "code"
    )
    begun = [line for line in code.splitlines() if "RunFolder.create(" in line or 'main(["fit"' in line]
    assert len(begun) == 3 and all("overwrite" in line for line in begun)


def test_quickstart_runs(tmp_path, monkeypatch, execute):
    monkeypatch.setenv("QUICKSTART_SMALL", "1")
    monkeypatch.setenv("QUICKSTART_RUNS", str(tmp_path / "runs"))
    notebook = execute("quickstart.ipynb")
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["network"] == "resnet20" and result["pruned"]["macs_ratio"] <= 0.5
    # 16 images through 61 networks, and once more for the moments of layers' inputs and for what refit records, cost
    # four evaluations of 287 + 16; then six starting candidates and rounds of four, four and two. Repeated candidates
    # read no images.
    assert result["search"]["evaluations"] == 4 + 6 + 4 + 4 + 2
    assert result["search"]["examples"] <= 16 * (61 + 2) + (6 + 10) * (287 + 16)
    assert printed(notebook.cells[-1]).startswith(
        f"top-1 on the test examples: {result['pruned']['top1_test_after']:.2f} %"
    )


def test_graphs_runs(execute):
    cells = execute("graphs.ipynb").cells
    figures = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(figures) == 3
    text = "".join(printed(cell) for cell in cells if cell.cell_type == "code")
    assert "is an output of the network" in text and "layer1.0" in text
    assert "largest difference" in text and printed(cells[-1]).startswith(
        "decisions of each graph [1, 1, 1, 1, 4, 4, 4, 4]"
    )


@pytest.mark.slow
def test_custom_policy_runs(execute):
    cells = [cell for cell in execute("custom_policy.ipynb").cells if cell.cell_type == "code"]
    shown = [output.get("data", {}).get("text/plain", "") for cell in cells for output in cell.outputs]
    assert any("written to runs/mine" in text for text in shown)  # with the classes named in the YAML
    search = next(printed(cell) for cell in cells if "TwoLayerActor:" in printed(cell))
    best, uniform = (float(number) for number in re.findall(r"[\d.]+(?= %)", search))
    assert best >= uniform
    reward, constant = (float(number) for number in re.findall(r"-0\.\d+", printed(cells[-1])))
    assert reward > constant / 2


@pytest.mark.slow
def test_transfer_runs(execute):
    cells = [cell for cell in execute("transfer.ipynb").cells if cell.cell_type == "code"]
    for cell, groups in ((cells[-2], 12), (cells[-1], 18)):
        lines = printed(cell).splitlines()
        assert [line.split("%")[0] for line in lines] == ["30", "50", "70"]
        assert all(len(json.loads(line.split("% ")[-1])) == groups for line in lines)
