"""Pages that are made from the code when the documentation is built, so that they stay true: a hook of MkDocs."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import torch
import yaml
from jsonargparse import ArgumentParser
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gnnrl_lightning import data
from gnnrl_lightning.cli.arguments import ArgumentsCLI
from gnnrl_lightning.cli.helping import MEANINGS, TITLES, TRAINER
from gnnrl_lightning.cli.parser import PASSED
from gnnrl_lightning.cli.subcommands import CONFIGURED
from gnnrl_lightning.rl import learners
from gnnrl_lightning.tracing import rules
from gnnrl_lightning.tracing.walk import RULES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gnnrl_lightning"
RESULTS = ROOT / "experiments" / "results"

CONFIGURATION = """# Configuration

All keys of a YAML file, with type, default and meaning. With `--` before it, each key is also an option of the command
line: the key `name` of the section `run` is `--run.name`, and in a file it is nested, `run: {name: mine}`. `null` means
no value. `python -m gnnrl_lightning SUBCOMMAND --print_config` prints the whole configuration after all files and
options have been applied; each run saves it in `config.yaml`.

"""


OPERATORS = """# Operators

The ATen operators through which channels are followed, with the tracer's rule for each. Channels that flow through any
other operator are frozen, and `inspect` names it. [Add an operator](extending/add-an-operator.md) shows a rule of your
own.

"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of a folder where the navigation names one that ends in a slash."""
    config.nav = [_listed(entry, config) for entry in config.nav or []]
    return config


def _listed(entry: Any, config: MkDocsConfig) -> Any:
    ((title, target),) = entry.items()
    if not isinstance(target, str) or not target.endswith("/"):
        return entry
    if target == "api/":
        found = list(api_pages())
    else:
        pages = Path(config.docs_dir, target).glob("*.md")
        found = [path.relative_to(config.docs_dir).as_posix() for path in pages]
    return {title: sorted(found, key=lambda name: (not name.endswith("index.md"), name))}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here, and the figures that they show."""
    made = {"configuration.md": configuration(), "operators.md": operators()}
    pages = made | results() | api_pages()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for figure in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"results/{figure.name}", abs_src_path=str(figure)))
    return files


def operators() -> str:
    """The page of operators through which channels are followed: a table for each file of rules, and pointwise ones."""
    named: dict[Any, list[str]] = defaultdict(list)
    for name, row in sorted(RULES.items()):
        named[row.apply].append(name)
    text = [OPERATORS]
    for module in rules.__all__:
        found = getattr(rules, module)
        mine = [rule for rule in named if rule.__module__ == found.__name__]
        text += [f"## {module}\n", f"{_first_line(found)}\n", "| operators | channels |", "|---|---|"]
        text += [f"| {_code(named[rule])} | {_first_line(rule)} |" for rule in mine]
        text.append("")
    text += ["## Pointwise operators\n", f"{_code(_pointwise())}\n"]
    return "\n".join(text)


def _pointwise() -> list[str]:
    """Names of the operators that PyTorch tags as pointwise and that have no rule of their own."""
    packets = {name: getattr(torch.ops.aten, name) for name in dir(torch.ops.aten) if not name.endswith("_")}
    found = {name: packet for name, packet in packets.items() if hasattr(packet, "overloads") and name not in RULES}
    return sorted(
        name
        for name, packet in found.items()
        if any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
    )


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names if name != "pointwise")


def results() -> dict[str, str]:
    """File -> Markdown: the pages of measurements, of experiments/results, whose links to docs/ are shorter here."""
    pages = {path.name: path.read_text(encoding="utf-8") for path in sorted(RESULTS.glob("*.md"))}
    return {f"results/{name}": text.replace("](../../docs/", "](../") for name, text in pages.items()}


def api_pages() -> dict[str, str]:
    """File -> Markdown: the front door, and a page for each part of the package with all of its modules."""
    pages = {"api/index.md": "# API\n\nWhat `import gnnrl_lightning` offers.\n\n::: gnnrl_lightning\n"}
    modules = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if not parts[-1].startswith("__"):
            modules[parts[0] if len(parts) > 1 else "base"].append(".".join((PACKAGE.name, *parts)))
    for part, names in modules.items():
        about = inspect.cleandoc(_docstring(PACKAGE / part / "__init__.py")) if part != "base" else "Single modules."
        blocks = "\n\n".join(f"::: {name}" for name in names)
        pages[f"api/{part}.md"] = f"# {part}\n\n{about}\n\n{blocks}\n"
    return pages


def _docstring(path: Path) -> str:
    found = re.match(r'\s*"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise ValueError(f"{path} has no docstring")
    return found[1]


def configuration() -> str:
    """The page of all keys: a table for each section, and one for each class of learner and data."""
    sections: dict[str, list[Any]] = defaultdict(list)
    for action in options("fit"):
        section = action.dest.partition(".")[0]
        sections[section if "." in action.dest else ""].append(action)
    single, of_lightning = sections.pop(""), sections.pop("trainer")
    text = [CONFIGURATION, "## Keys without a section\n", *_table(single)]
    for name, actions in sections.items():
        text += [f"\n## {name}\n", *_table(actions, f"{name}.")]
    for cls in _classes(learners, learners.GraphLearner):
        text += _class_table(cls, "model", learners, set(PASSED))
    for cls in _classes(data, data.ImageData):
        text += _class_table(cls, "data", data, set())
    of_use = [action for action in of_lightning if action.dest.removeprefix("trainer.") in TRAINER]
    text += ["\n## trainer\n", f"{TITLES['trainer']}.\n", *_table(of_use, "trainer.")]
    everywhere = {action.dest for action in options("fit")}
    text += ["\n## Options of single subcommands\n"]
    text += [
        f"- `{name}`: `--{action.dest}`, {_sentence(action.help)}"
        for name in CONFIGURED
        for action in options(name)
        if action.dest not in everywhere
    ]
    return "\n".join(text) + "\n"


def _class_table(cls: type, section: str, module: Any, skip: set[str | int]) -> list[str]:
    """The arguments of a class that a section names."""
    parser = ArgumentParser()
    parser.add_class_arguments(cls, f"{section}.init_args", skip=skip, fail_untyped=False)
    about = f"{_first_line(cls)} `class_path: {module.__name__}.{cls.__name__}`\n"
    return [f"\n## {section}: {cls.__name__}\n", about, *_table(_documented(parser), f"{section}.init_args.")]


class _Parsed(Exception):
    """The parser is there."""


class _Parser(ArgumentsCLI):
    """The command line's parser of a subcommand, which parses nothing."""

    def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
        raise _Parsed


def options(subcommand: str) -> list[Any]:
    """What a subcommand takes, in the parser's order."""
    cli = _Parser.__new__(_Parser)
    try:
        cli.__init__([subcommand])
    except _Parsed:
        return _documented(cli._parser(subcommand))
    raise RuntimeError("the parser has parsed")


def _documented(parser: ArgumentParser) -> list[Any]:
    left_out = ("help", "config", "print_config")
    found = [action for action in parser._actions if action.dest not in left_out]
    return [action for action in found if action.default != "==SUPPRESS==" and not action.dest.endswith(".help")]


def _classes(module: Any, base: type) -> Iterator[type]:
    for name in module.__all__:
        cls = getattr(module, name)
        if isinstance(cls, type) and issubclass(cls, base) and not inspect.isabstract(cls):
            yield cls


def _table(actions: Iterable[Any], section: str = "") -> list[str]:
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for action in actions:
        kind = shown(getattr(action, "_typehint", None) or action.type or type(action.default))
        if action.nargs == "+":
            kind = f"list of {kind}"
        default = "required" if action.required else f"`{_value(action.default)}`"
        told = _sentence(MEANINGS.get(action.dest, action.help))
        rows.append(
            f"| `{action.dest.removeprefix(section)}` | {_escaped(kind)} | {_escaped(default)} | {_escaped(told)} |"
        )
    return rows


def _value(value: Any) -> str:
    """A default as YAML says it."""
    plain = value.as_dict() if hasattr(value, "as_dict") else list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def shown(kind: Any) -> str:
    """A type in the words of YAML: `int | null`, `list of str`, `one of all, even, odd`."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind in (None, NoneType):
        return "null"
    if origin in (Union, UnionType):
        return " | ".join(shown(each) for each in inside)
    if origin is Literal:
        return ("one of " if len(inside) > 1 else "") + ", ".join(str(each) for each in inside)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Callable):
        return "class path"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {shown(inside[0])} to {shown(inside[1])}"
    if origin is tuple:
        return f"list of {shown(inside[0])}" if Ellipsis in inside else "[" + ", ".join(map(shown, inside)) + "]"
    if origin is not None and inside:
        return f"list of {shown(inside[0])}"
    if kind is Any:
        return "anything"
    return getattr(kind, "__name__", str(kind))


def _first_line(item: Any) -> str:
    return (inspect.getdoc(item) or "").partition("\n")[0]


def _sentence(text: str | None) -> str:
    """Help in one line; what Lightning says of its own defaults in the markup of Sphinx becomes plain code."""
    line = " ".join((text or "").split())
    line = re.sub(r":\w+:`~?\.?([^`<]*?)(?: ?<[^`]*>)?`", r"`\1`", line).replace("``", "`")
    return line[:1].upper() + line[1:]


def _escaped(text: str) -> str:
    """Text of a cell: in code, between backticks, only the bar has a meaning."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)
