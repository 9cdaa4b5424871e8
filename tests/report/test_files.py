"""What is said of files and lossy formats; results of earlier releases have nothing of them."""

import copy
import io

import pytest
from rich.console import Console

from gnnrl_lightning.report.files import files_line, format_bytes, lossy_formats, lossy_line
from gnnrl_lightning.report.pages.words import result_rows
from gnnrl_lightning.report.table import print_result, result_table
from tests.support.results import RESULT

FORMATS = {
    "weights": {"files": {"weights.safetensors": 800_000}},
    "openvino": {"files": {"model.xml": 100_000, "model.bin": 700_500}},
    "int8": {"files": {"model.int8.onnx": 250_000}, "top1_search": 89.5, "top1_test": 98.25, "drop": 0.0125},
}
GIVEN = {**RESULT, "formats": FORMATS}


def test_sizes_are_those_of_all_files_of_a_format():
    assert format_bytes(GIVEN) == {"weights": 800_000, "openvino": 800_500, "int8": 250_000}
    assert files_line(GIVEN) == "files: weights 800.0 kB, openvino 800.5 kB, int8 250.0 kB"


def test_lossy_formats_are_rows_of_their_own():
    """The costs of the network, its own score, and nothing that was not measured."""
    assert [*lossy_formats(GIVEN)] == ["int8"]
    cells = [list(column.cells)[-1] for column in result_table(GIVEN).columns]
    assert cells == ["ours, int8", "1.000 M", "50.0%", "200.0 k", "50.0%", "", "", "", "98.25"]
    headings, rows = result_rows(GIVEN)
    row = dict(zip(headings, rows[-1], strict=True))
    assert row["network"] == "ours, int8" and row["minus dense"] == "-0.75"
    assert row["time"] == row["before fine-tuning"] == row["ms for 64"] == ""
    console = Console(file=io.StringIO(), width=140)
    print_result(GIVEN, console)
    line = "int8: top-1 on the holdout 89.50 %, a drop of 1.2% of the network's lead over guessing"
    assert lossy_line(GIVEN, "int8") == line and line in console.file.getvalue()


@pytest.mark.parametrize(("drop", "written"), [(-0.0004, "0.0%"), (0.0006, "0.1%"), (-0.02, "-2.0%")])
def test_no_drop_is_not_negative(drop, written):
    given = copy.deepcopy(GIVEN)
    given["formats"]["int8"]["drop"] = drop
    assert f"a drop of {written} of" in lossy_line(given, "int8")


def test_results_of_earlier_releases_have_no_formats():
    assert files_line(RESULT) is None and lossy_formats(RESULT) == {}
    assert "files:" not in str(result_rows(RESULT))
