"""Messages to users say what was given, and what was expected or what to do."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "gnnrl_lightning"

WORDS = (
    "expected expects needed needs add begin call change choose copy create delete give install leave let lower omit "
    "override pass remove repeat replace return save see set try use wait write"
)
ADVICE = re.compile(rf"\b({'|'.join(WORDS.split())}|log in|must be|run it|pip install)\b")
ADVISING = {
    "expected": "expected",
    "remedy": "set",
    "_remedy(folder)": "give",
    "do": "give",
    "has": "expected",
    "TRACED": "give",
}
"""Variables of messages that hold advice -> a word of it."""
WRAPPED = re.compile(
    r"^(compare: {}|compare\.variants\.{}|inputs|report|{}|latency\.table {}|{} cannot be traced|{} {}): {}$"
    r"|^in training mode, {}$"
)
"""A message of another error, with where it comes from."""


def messages():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
                found = _text(node.args[0])
                if found.strip("{}"):
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", found


def _text(node):
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return ADVISING.get(ast.unparse(node.value), "{}")
    return node.value if isinstance(node, ast.Constant) else "{}"


def test_messages_have_one_line_and_advice():
    found = dict(messages())
    assert len(found) > 250
    assert [where for where, text in found.items() if "\n" in text or text.endswith(" ")] == []
    lacking = {where: text for where, text in found.items() if not ADVICE.search(text) and not WRAPPED.match(text)}
    assert lacking == {}
