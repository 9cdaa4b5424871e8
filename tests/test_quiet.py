"""Warnings of other packages are hidden while they are called; what the user has set for all others stays."""

import ast
import warnings
from pathlib import Path

import pytest

import gnnrl_lightning
from gnnrl_lightning.errors import UserError
from gnnrl_lightning.quiet import OTHERS, one_line_warnings, without_others_warnings
from gnnrl_lightning.report.progress import quiet_lightning

CHANGES = ("warnings.filterwarnings", "warnings.simplefilter", "warnings.resetwarnings")
PACKAGE = Path(gnnrl_lightning.__file__).parent
SAID = (
    "`isinstance(treespec, LeafSpec)` is deprecated, use another",
    "`torch.jit.script` is deprecated. Please switch",
    "IProgress not found. Please update jupyter",
)


@pytest.mark.parametrize("block", [without_others_warnings, quiet_lightning])
def test_they_are_hidden_within_the_block_only(block):
    before = [*warnings.filters]
    with block():
        for message in SAID:
            warnings.warn(message, FutureWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="of the user's"):
            warnings.warn("of the user's", stacklevel=1)
    assert [*warnings.filters] == before and len(SAID) == len(OTHERS)
    with pytest.raises(FutureWarning):
        warnings.warn(SAID[2], FutureWarning, stacklevel=1)


def test_those_of_the_package_are_one_line_without_a_place():
    usual, places = warnings.formatwarning, (str(PACKAGE / "job" / "cuts.py"), __file__)
    with one_line_warnings():
        own, other = (warnings.formatwarning("set more", UserWarning, place, 3) for place in places)
    assert own == "warning: set more\n"
    assert other == usual("set more", UserWarning, __file__, 3) and "test_quiet.py" in other
    assert warnings.formatwarning is usual


def test_parts_of_the_package_are_imported_within_it(monkeypatch):
    def imported(home):
        warnings.warn(SAID[1], FutureWarning, stacklevel=1)
        return UserError

    monkeypatch.setattr(gnnrl_lightning, "import_module", imported)
    monkeypatch.setitem(gnnrl_lightning._HOMES, "mro", "home")
    before = [*warnings.filters]
    assert gnnrl_lightning.mro() == UserError.mro()
    assert [*warnings.filters] == before


def changing(tree, held=False):
    """Lines that change the filters of the process outside of a block that restores them."""
    for node in ast.iter_child_nodes(tree):
        restored = isinstance(node, ast.With) and any("catch_warnings" in ast.unparse(each) for each in node.items)
        if isinstance(node, ast.Call) and not held and ast.unparse(node.func) in CHANGES:
            yield node.lineno
        yield from changing(node, held or restored)


def test_no_filter_of_the_process_is_changed():
    assert [*changing(ast.parse("import warnings\nwarnings.simplefilter('ignore')"))] == [2]
    found = {path: [*changing(ast.parse(path.read_text(encoding="utf-8")))] for path in PACKAGE.rglob("*.py")}
    assert {path: lines for path, lines in found.items() if lines} == {}
