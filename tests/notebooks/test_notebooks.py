import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


# Jupyter's own client and kernel, in other threads and processes.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::DeprecationWarning:zmq")
def test_quickstart_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTART_SMALL", "1")
    monkeypatch.setenv("QUICKSTART_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOKS / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert result["network"] == "resnet20" and result["pruned"]["macs_ratio"] <= 0.5
    assert result["search"]["evaluations"] == 20
    printed = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert printed.startswith(f"{result['pruned']['top1_test_after']:.2f} % on the test images")
