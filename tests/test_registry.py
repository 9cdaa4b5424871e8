import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.registry import Registry, resolve


@dataclass(frozen=True)
class Doubled:
    number: float


def as_doubled(given):
    if isinstance(given, Doubled):
        return given
    if callable(given):
        return Doubled(2 * given())
    raise TypeError(f"expected a function or a Doubled, not a {type(given).__name__}")


@pytest.fixture
def registry():
    made = Registry("number", as_doubled)
    made.register("two", Doubled(4))
    made.register("three", lambda: 3)
    return made


@pytest.fixture
def module(monkeypatch):
    """A user's own module."""
    made = ModuleType("own_numbers")
    made.row, made.function, made.text = Doubled(10), lambda: 6, "words"
    monkeypatch.setitem(sys.modules, "own_numbers", made)
    return made


def test_a_row_is_found_by_name_by_path_and_as_it_is(registry, module):
    assert registry.find("two") == Doubled(4) and registry.find("three") == Doubled(6)
    assert registry.find("own_numbers.row") is module.row
    assert registry.find("own_numbers.function") == Doubled(12)
    assert registry.find(Doubled(1)) == Doubled(1) and registry.find(lambda: 1) == Doubled(2)


def test_it_is_a_mapping_in_the_order_of_registration(registry):
    assert list(registry) == ["two", "three"] and len(registry) == 2
    assert dict(registry) == {"two": Doubled(4), "three": Doubled(6)} and "two" in registry


def test_a_name_that_is_taken_raises_and_changes_nothing(registry):
    with pytest.raises(UserError, match="number 'two' is registered already: choose another name"):
        registry.register("two", Doubled(5))
    assert registry["two"] == Doubled(4)


@pytest.mark.parametrize("name", ["", "a.b"])
def test_a_name_is_no_import_path(registry, name):
    with pytest.raises(UserError, match="expected a name without dots"):
        registry.register(name, Doubled(5))


def test_an_unknown_name_says_what_was_probably_meant(registry):
    with pytest.raises(
        UserError, match=r"section.number is 'tree' \(did you mean three\?\): expected one of two, three"
    ):
        registry.find("tree", "section.number")
    with pytest.raises(UserError, match="nothing like it"):
        registry.find("nothing like it")


def test_what_is_no_row_is_refused(registry, module):
    with pytest.raises(UserError, match="expected a function or a Doubled, not a str"):
        registry.find("own_numbers.text")
    with pytest.raises(UserError, match="number 'int': expected a function or a Doubled, not a int"):
        registry.find(3)


def test_a_module_that_ends_the_process_when_imported_is_an_error_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "ends_it.py").write_text("import sys\nsys.exit('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"option 'ends_it\.row' cannot be imported: no licence"):
        resolve("ends_it.row", "option")


@pytest.mark.parametrize("path", ["nothere.row", "math.nothing", "math..pi"])
def test_a_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(UserError, match="option"):
        resolve(path, "option")


def test_an_attribute_of_a_class_is_found():
    assert resolve("collections.OrderedDict.fromkeys", "option")("ab") == {"a": None, "b": None}
