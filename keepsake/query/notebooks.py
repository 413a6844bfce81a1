"""What of a Jupyter notebook a person has written: the sources of its cells, without outputs and counters."""

from __future__ import annotations

import json
from typing import Any

SUFFIX = ".ipynb"


def sources(content: bytes) -> bytes | None:
    r"""Return the cells of a notebook as one text, each below a line that says its type; None if this is no notebook.

    Example:
        >>> sources(b'{"cells": [{"cell_type": "code", "source": ["x = 1\\n", "x"], "outputs": []}]}')
        b'# %% [code]\nx = 1\nx\n'
        >>> sources(b"x = 1") is None
        True
    """
    try:
        cells = json.loads(content)["cells"]
        return b"".join(_text_of(cell) for cell in cells)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _text_of(cell: dict[str, Any]) -> bytes:
    source = cell["source"]
    text = source if isinstance(source, str) else "".join(source)
    # Whatever may stand in JSON, lone surrogates too, is to be compared.
    return f"# %% [{cell['cell_type']}]\n{text}\n".encode(errors="surrogatepass")
