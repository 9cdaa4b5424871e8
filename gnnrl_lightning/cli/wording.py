"""Messages of the parser in our form: what was given, what was expected, what was probably meant."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence

from gnnrl_lightning.errors import suggestion

TYPE = re.compile(r"<class '(?:[\w.]+\.)?(\w+)'>")
LITERAL = re.compile(r"typing\.Literal\[(?P<values>[^\]]*)\]")
WRONG_VALUE = re.compile(r'Parser key "(?P<key>[\w.]+)": Expected (?:a|an) (?P<kind>.+?)\. Got value: (?P<value>.*)')
SEVERAL_TYPES = re.compile(
    r'Parser key "(?P<key>[\w.]+)": .*?Errors: - (?P<reason>.*?)(?: - Expected an? | Given value)'
)
ONE_TYPE = re.compile(r'Parser key "(?P<key>[\w.]+)": (?P<reason>.*)')
UNKNOWN_KEY = (
    re.compile(r"unrecognized arguments: (?P<key>-*[\w.]+)"),
    re.compile(r"Subcommand '\w+' does not accept option '(?P<key>[\w.]+)'"),
)
NO_VALUE = re.compile(r"argument (?:-\w/)?(?P<key>--[\w.]+): expected (?P<count>one argument|at least one argument)")
NO_SUBCOMMAND = re.compile(r'expected "subcommand" to be one of .*, but it was not provided\.')
PRINTED = re.compile(r'Invalid option "(?P<value>.*)" for --print_config')
NO_HELP = re.compile(r"--(?P<key>[\w.]+)\.help: (?P<reason>.*)")
UNKNOWN_ARGUMENT = (
    re.compile(r"class_path '(?P<path>[\w.]+)': Option '(?P<key>[\w.]+)' is not accepted"),
    re.compile(r"Option '(?P<key>[\w.]+)' is not accepted\. Got value: Namespace\(class_path='(?P<path>[\w.]+)'"),
)
OF_ARGUMENT = re.compile(
    r"Parser key \"(?P<outer>[\w.]+)\": .*?Problem with given class_path '[\w.]+': (?P<mark>Parser key \"|--)"
    r"(?!.* Given value: [{])(?P<inner>.*?)(?: - Expected a NoneType Given value type: NestedArg .*|$)"
)
WRONG_INSIDE = re.compile(
    r'Parser key "(?P<key>[\w.]+)": Expected an? (?P<kind>.+?)\. Got value: (?P<value>.*?)(?:\. Got value: | - |$)'
)
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\w+)")
WRONG_CLASS = re.compile(r"Import path (?P<path>[\w.]+ )?does not correspond to a subclass of (?P<kind>\w+)")
PAGES = {
    "data": "LightningDataModule, such as ImageData of gnnrl_lightning.data, see docs/extending/add-a-data-set.md",
    "model": "GraphLearner of gnnrl_lightning.rl.learners, see docs/extending/add-a-learner.md",
}
"""Key -> what its class is a subclass of, and where that is described."""

CLASSES = {
    "data": "gnnrl_lightning.data",
    "model": "gnnrl_lightning.rl.learners",
    "trainer.logger": "lightning.pytorch.loggers",
    "trainer.callbacks": "lightning.pytorch.callbacks",
    "model.make_policy": "gnnrl_lightning.rl.policies",
}
"""Key -> module whose classes may be named without it."""


def refusal(message: str, keys: Sequence[str], subcommands: Sequence[str]) -> str:
    """Return a message of the parser as one line, with what was probably meant.

    Args:
        message: As the parser words it, possibly many lines.
        keys: All keys of the configuration, with dots.
        subcommands: The subcommands.
    """
    line = LITERAL.sub(_one_of, TYPE.sub(r"\1", " ".join(message.split())))
    if found := OF_ARGUMENT.match(line):
        return refusal(f"{found['mark']}{found['outer']}.{found['inner']}", keys, subcommands)
    if found := WRONG_VALUE.fullmatch(line):
        return f"{found['key']} is {found['value']}: expected {found['kind']}"
    if found := NO_VALUE.match(line):
        return f"{found['key']} has no value: expected {found['count']} after it"
    if NO_SUBCOMMAND.fullmatch(line):
        return f"no subcommand: expected one of {', '.join(subcommands)} before the options; see --help"
    if found := PRINTED.match(line):
        return f"--print_config is {found['value']}: expected nothing or skip_default"
    for pattern in UNKNOWN_KEY:
        if found := pattern.search(line):
            return f"{line}{_expected_key(found['key'], keys)}"
    if found := (SEVERAL_TYPES.match(line) or NO_HELP.match(line) or ONE_TYPE.fullmatch(line)):
        return f"{found['key']}: {_class_refusal(found['key'], found['reason'])}"
    return line


def _one_of(found: re.Match[str]) -> str:
    """Return the values of a `Literal` as words."""
    return f"one of {found['values'].replace(chr(39), '')}"


def _expected_key(given: str, keys: Sequence[str]) -> str:
    """Return what was expected in place of an unknown key, or of a section without the key."""
    inside = [key for key in keys if key.startswith(f"{given.lstrip('-')}.")]
    if inside:
        return f": expected one of its keys, such as --{inside[0]}; see --help"
    return f"{suggestion(given, keys)}: expected a key of the configuration, see --help"


def _class_refusal(key: str, reason: str) -> str:
    """Return why a class with arguments is refused."""
    if found := UNKNOWN_CLASS.search(reason):
        known = vars(importlib.import_module(CLASSES[key])) if key in CLASSES else ()
        meant = suggestion(found["name"], [name for name in known if name[:1].isupper()])
        return f"there is no class {found['name']}{meant}: expected its name or import path, package.module.Class"
    if found := WRONG_CLASS.search(reason):
        given = found["path"] or "the class "
        return f"{given}is of another kind: expected a subclass of {PAGES.get(key, found['kind'])}"
    for pattern in UNKNOWN_ARGUMENT:
        if found := pattern.search(reason):
            return _unknown_argument(found["path"], found["key"])
    if found := WRONG_INSIDE.search(reason):
        return f"{found['key']} is {found['value']}: expected {found['kind']}"
    return reason


def _unknown_argument(path: str, key: str) -> str:
    """Return why an argument is refused that a class does not have."""
    if key == "class_path":
        return "expected class_path and init_args, with the arguments of the class in init_args"
    known = _arguments(path)
    if key in known:  # of a base class
        return f"{path} does not pass {key} on: expected **kwargs and super().__init__(**kwargs) in its __init__"
    return f"{path} has no argument {key}{suggestion(key, known)}: see its documentation"


def _arguments(path: str) -> set[str]:
    """Return the names of the arguments of a class and its bases."""
    module, _, name = path.rpartition(".")
    given = getattr(importlib.import_module(module), name)
    makers = [each.__init__ for each in inspect.getmro(given)] if isinstance(given, type) else [given]
    return {
        key for make in makers for key in inspect.signature(make).parameters if key not in ("self", "args", "kwargs")
    }
