"""HTML pages that stand alone: one file, pictures embedded, nothing fetched."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_MOST_COLUMNS = 20
"""Columns after these are aligned at the left."""
_RIGHT = ",".join(f".n{column} :is(td,th):nth-child({column})" for column in range(2, _MOST_COLUMNS + 1))
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "h1{font-size:1.7em;line-height:1.25;margin-bottom:.3em}"
    "h2{font-size:1.3em;margin:1.8em 0 .4em;border-bottom:2px solid #0072b2;padding-bottom:.2em}"
    "img{max-width:100%;display:block;margin:1em 0}"
    "table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums}"
    "td,th{border-bottom:1px solid #ccc;padding:.3em 1em;text-align:left;vertical-align:top}"
    "th{border-bottom:2px solid #999}tbody tr:hover{background:#f6f8fa}"
    "pre{background:#f4f4f4;padding:1em;white-space:pre-wrap;overflow-wrap:anywhere}"
    f"{_RIGHT}{{text-align:right}}"
    ".wide{overflow-x:auto}"
    ".notice{background:#fff6e0;border-left:4px solid #e69f00;padding:.5em 1em;margin:1em 0}"
    "nav{margin:1em 0}nav a{margin-right:1.3em}a{color:#0072b2}"
    "details{margin:1em 0;border:1px solid #ddd;border-radius:4px;padding:.4em 1em}summary{cursor:pointer}"
    "@media print{details{border:none}}"
)
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?(%|s|nm|px))?|undefined( \(.*\))?|-|")
"""Cells of a column of numbers, which is aligned at the right."""


def html_page(title: str, blocks: Sequence[str], refresh: int | None = None) -> str:
    """Return a page that stands alone, of blocks of HTML such as ``paragraph``, ``table`` and ``picture`` return.

    Args:
        title: plain text.
        blocks: HTML.
        refresh: the browser reads the page anew after so many seconds; None: it does not.
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        + (f'<meta http-equiv="refresh" content="{refresh}">' if refresh is not None else "")
        + f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
    )
    body = "\n".join(blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n<h1>{html.escape(title)}</h1>\n{body}\n'
        "</body></html>\n"
    )


def extended(page: str, sections: Mapping[str, Sequence[str]]) -> str:
    """Return a page of ``html_page`` with more sections at its end, heading -> blocks, and links to them."""
    links = "".join(_link(text) for text in sections)
    blocks = "\n".join(block for text, section in sections.items() for block in (heading(text), *section))
    return page.replace("</nav>", f"{links}</nav>", 1).replace("\n</body></html>", f"\n{blocks}\n</body></html>")


def heading(text: str) -> str:
    """Return a section heading, which ``contents`` can point to."""
    return f'<h2 id="{_anchor(text)}">{html.escape(text)}</h2>'


def subheading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{html.escape(text)}</h3>"


def contents(headings: Sequence[str]) -> str:
    """Return links to the sections of the page with these headings."""
    return f"<nav>{''.join(map(_link, headings))}</nav>"


def _link(text: str) -> str:
    return f'<a href="#{_anchor(text)}">{html.escape(text)}</a>'


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def notice(text: str) -> str:
    """Return a paragraph of plain text that must not be overlooked."""
    return f'<p class="notice">{html.escape(text)}</p>'


def details(summary: str, body: str) -> str:
    """Return a block (HTML) that opens when its summary (plain text) is clicked."""
    return f"<details><summary>{html.escape(summary)}</summary>\n{body}\n</details>"


def bullets(texts: Sequence[str]) -> str:
    """Return a list of plain texts."""
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"


def preformatted(text: str) -> str:
    """Return a text whose lines and spaces are kept, such as commands."""
    return f"<pre>{html.escape(text)}</pre>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text, columns of numbers aligned at the right; an empty header is left out."""
    numeric = [
        column + 1
        for column in range(1, min(_MOST_COLUMNS, min((len(row) for row in rows), default=0)))
        if all(_NUMBER.fullmatch(row[column]) for row in rows)
    ]
    head = "<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>" if header else ""
    lines = ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    opening = f'<table class="{" ".join(f"n{column}" for column in numeric)}">' if numeric else "<table>"
    body = "\n".join(lines)
    return f'<div class="wide">{opening}\n<thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


def picture(path: Path, description: str) -> str:
    """Embed a PNG file, with a description for those who cannot see it."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{html.escape(description, quote=True)}" src="data:image/png;base64,{data}">'


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
