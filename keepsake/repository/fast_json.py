"""JSON by a fast library, and by the standard one where the fast one refuses what others may have recorded."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW_BYTES = 200_000
"""What the standard library reads in the time that it takes to load the fast one: a small listing ends before."""

_STEERING = "[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"

_read_bytes = 0


def loads(content: bytes) -> Any:
    """Return the value of a JSON document.

    Raises:
        ValueError: It is not one, or not UTF-8.

    Example:
        >>> loads(b'{"lr": 0.1}')
        {'lr': 0.1}
    """
    if _is_much(content):
        import orjson

        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            pass  # half a surrogate pair, for one, is JSON and no Unicode
    return json.loads(content.decode(), parse_constant=_no_json)


def _is_much(content: bytes) -> bool:
    """Tell whether the fast library is there already, or has become worth loading with what is to be read now."""
    if "orjson" in sys.modules:
        return True
    global _read_bytes
    _read_bytes += len(content)
    return _read_bytes > FEW_BYTES


def loads_all(contents: Sequence[bytes]) -> list[Any]:
    """Return the values of several JSON documents: of many small ones in half of the time that one after the other takes.

    Raises:
        ValueError: One of them is not one, or not UTF-8.

    Example:
        >>> loads_all([b'{"lr": 0.1}', b"[]"])
        [{'lr': 0.1}, []]
    """
    values: list[Any] = loads(b"[" + b",".join(contents) + b"]")
    if len(values) != len(contents):
        raise ValueError("these are not JSON documents")
    return values


def dumps(value: object, *, indented: bool = False) -> str:
    r"""Return a value as a JSON document.

    Args:
        value: What JSON can hold: not NaN, nor an infinity.
        indented: By two spaces, instead of all on one line.

    Raises:
        ValueError: It holds NaN or an infinity, beside something else that is unusual.

    Example:
        >>> dumps({"lr": 0.1, "name": "\ud800"})
        '{"lr": 0.1, "name": "\\ud800"}'
    """
    import orjson

    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indented else None).decode()
    except TypeError:
        return json.dumps(value, indent=2 if indented else None, allow_nan=False)


def harmless(text: str) -> str:
    r"""Return the text of a JSON document, with escapes for what JSON allows although terminals obey it, which mean the same.

    Example:
        >>> harmless('["\u202e"]')
        '["\\u202e"]'
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return re.sub(_STEERING, lambda match: f"\\u{ord(match[0]):04x}", text)


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
