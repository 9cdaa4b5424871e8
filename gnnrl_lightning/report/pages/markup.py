"""The parts of a page: HTML without scripts, and nothing that is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from gnnrl_lightning.report.pages.drawing import variables

STYLE = Path(__file__).with_name("page.css")


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page.

    Args:
        title: Its title, plain text.
        parts: Its contents, HTML.
    """
    colours = (
        f":root {{ color-scheme: light dark; {variables(0)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(1)} }} }}\n"
    )
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{colours}{STYLE.read_text(encoding='utf-8')}</style>"
    )
    body = "\n".join(part for part in parts if part)
    whole = f"<head>\n{head}\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>"
    return f'<!doctype html>\n<html lang="en">\n{whole}\n</html>\n'


def heading(text: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def sentence(line: str) -> str:
    """A line of the console as a sentence of the page."""
    return f"{line[:1].upper()}{line[1:].rstrip('.')}."


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; `kind` is its class in page.css."""
    return f"<p{_kind(kind)}>{coded(text)}</p>"


def block(parts: Sequence[str], kind: str) -> str:
    """Return parts in a block; `kind` is its class in page.css."""
    return f"<div{_kind(kind)}>{''.join(parts)}</div>"


def coded(text: str) -> str:
    """Return plain text as HTML, in which `names in backticks` are code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], strong: str = "", kind: str = "") -> str:
    """Return a table that scrolls sideways if it is wider than the page.

    Args:
        headings: A heading for each column.
        rows: Rows of cells, plain text; the first cell names the row.
        strong: First cell of the row to emphasise.
        kind: Its class in page.css.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in headings)
    body = "".join(
        f"<tr{_kind('ours' if row[0] == strong else '')}>"
        + "".join(f"<td>{coded(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table{_kind(kind)}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(svg: str, title: str, caption: str) -> str:
    """Return a figure with its heading and what to look for."""
    return f"<figure><figcaption><h3>{escape(title)}</h3>{coded(caption)}</figcaption>{svg}</figure>"


def code(text: str) -> str:
    """Return a block of code."""
    return f"<pre>{escape(text)}</pre>"


def folded(summary: str, part: str) -> str:
    """Return a part that is shown when the reader opens it."""
    return f"<details><summary>{escape(summary)}</summary>{part}</details>"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
