"""Compares what is printed at several widths with the files of ``golden/``, letter by letter.

After a change that is meant, ``UPDATE_GOLDEN=1 pytest tests/display`` writes the files anew; read what Git then says.
"""

from __future__ import annotations

import os
from pathlib import Path

from keepsake.display.text import width

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (60, 80, 120, 200, None)


def compare(name: str, pages: dict[str, list[str]]) -> None:
    """Compare pages with what a file of ``golden/`` holds."""
    text = "".join(f"--- {title} ---\n" + "".join(f"{line}\n" for line in page) for title, page in pages.items())
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def titled(limit: int | None) -> str:
    """Return the title of the page for a width."""
    return f"{limit} columns" if limit is not None else "a pipe"


def fits(page: list[str], limit: int | None) -> bool:
    """Tell whether no line is wider than the terminal."""
    return limit is None or max(map(width, page)) <= limit
