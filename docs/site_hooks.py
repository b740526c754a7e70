"""Fits the pages, which are written to be read in the repository too, to MkDocs."""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")
"""A link to a file of the repository that is not part of the site: its name stays."""
_IN_ITEM = re.compile(r"^( {3}| {7})(?=\S)", re.MULTILINE)
"""Text and code inside an item of a numbered list: CommonMark takes three spaces, Python's Markdown four."""


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page's text as MkDocs needs it; called by MkDocs for every page."""
    return _IN_ITEM.sub(lambda match: match[0] + " ", _OUTSIDE.sub(r"\1", markdown))
