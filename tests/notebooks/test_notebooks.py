import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


# Jupyter's own client and kernel, in other threads and processes.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::DeprecationWarning:zmq")


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in a folder of its own and returns it with its outputs."""

    def run(name):
        monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
        return notebook

    return run


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def test_quickstart_runs(tmp_path, monkeypatch, execute):
    monkeypatch.setenv("QUICKSTART_SMALL", "1")
    monkeypatch.setenv("QUICKSTART_RUNS", str(tmp_path / "runs"))
    notebook = execute("quickstart.ipynb")
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["network"] == "resnet20" and result["pruned"]["macs_ratio"] <= 0.5
    assert result["search"]["evaluations"] == 20
    assert printed(notebook.cells[-1]).startswith(f"{result['pruned']['top1_test_after']:.2f} % on the test images")


def test_graphs_runs(execute):
    cells = execute("graphs.ipynb").cells
    figures = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(figures) == 3
    text = "".join(printed(cell) for cell in cells if cell.cell_type == "code")
    assert "is an output of the network" in text and "layer1.0" in text
    assert "largest difference" in text and printed(cells[-1]).startswith("actions (8, 1)")
