"""Tables in Markdown, in which whatever was recorded stays text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MEANS_NOTHING = re.compile(r"(?:[^\W_]|(?<=[^\W_])_(?=[^\W_])|[-+@ .,:;=/()%…▁-█])*\*?")
"""What Markdown takes for text, also the star behind the best."""

_LINKED = re.compile(r"://|www\.|\S@\S+\.", re.IGNORECASE)
"""What makes a text a link: to somewhere, or to somebody."""


def table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table line by line.

    Args:
        rows: Cells that are safe on a terminal, those of the headings first.

    Example:
        >>> list(table([["LR", "VAL_LOSS"], ["0.1", "0.1484*"]]))
        ['| LR | VAL_LOSS |', '| --- | --- |', '| 0.1 | 0.1484* |']
    """
    for index, row in enumerate(rows):
        yield f"| {' | '.join(map(text, row))} |"
        if not index:
            yield f"| {' | '.join(['---'] * len(row))} |"


def text(shown: str) -> str:
    r"""Return a text that Markdown shows as it stands: as code, where something in it has a meaning.

    Code is also what is never typeset as a formula.

    Args:
        shown: One line, safe on a terminal.

    Example:
        >>> [text(shown) for shown in ("val_loss", "<b>", "a|b")]
        ['val_loss', '`<b>`', '<code>a&#124;b</code>']
    """
    if _MEANS_NOTHING.fullmatch(shown) and not _LINKED.search(shown):
        return shown
    if not {"|", "`", "\\"} & set(shown) and shown == shown.strip():
        return f"`{shown}`"
    # A bar would end a cell even in code, and a backslash before it is read in two ways.
    return f"<code>{''.join(one if one.isalnum() or one == ' ' else f'&#{ord(one)};' for one in shown)}</code>"
