"""Values as short texts for people: numbers, ages, times, and what of a recorded text is safe to print."""

from __future__ import annotations

import json
import math
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CELL = 24
"""Longest cell of a table on a terminal; longer ones are cut in the middle."""


def number(value: float) -> str:
    """Return a number with four significant digits.

    Example:
        >>> [number(value) for value in (0.148449, 1.0, 12345.6, 1e-7, float("nan"))]
        ['0.1484', '1', '12346', '1e-07', 'nan']
    """
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    if 1000 <= abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.4g}"


NOTHING: Final = object()
"""Stands where an experiment has no such value; None is a value."""


def column(values: Sequence[Any]) -> list[str]:
    """Return the values of one column: its numbers have equally many decimals, so that they can be compared at a glance.

    Example:
        >>> column([0.148449, 1.15, 0.2, "none", NOTHING])
        ['0.1484', '1.1500', '0.2000', 'none', '-']
        >>> column([0.5, 1e-7])
        ['0.5', '1e-07']
    """
    if set(map(type, values)) == {float} and min(map(abs, values)) >= 1e-4 and max(map(abs, values)) < 1000:
        # The usual case, at a tenth of the time: no sign of infinity, no exponent.
        form = f"%.{_decimals(values)}f"
        return [form % value for value in values]
    shown = cells(values)
    numbers = [cell for cell, value in zip(shown, values, strict=True) if _is_finite_number(value)]
    if any("e" in number for number in numbers):
        return shown
    decimals = max((len(number.partition(".")[2]) for number in numbers), default=0)
    if not decimals:
        return shown
    return [f"{value:.{decimals}f}" if _is_finite_number(value) else cell for cell, value in zip(shown, values, strict=True)]


def _decimals(values: Sequence[float]) -> int:
    """Return how many decimals numbers from 0.0001 to 1000 have that are written with four significant digits."""
    # None has more than the one nearest to 0 could have. One that has so many nearly always comes soon.
    most = 3 - math.floor(math.log10(min(map(abs, values))))
    found = 0
    for value in values:
        found = max(found, len(f"{value:.4g}".partition(".")[2]))
        if found >= most:
            break
    return found


def cells(values: Sequence[Any]) -> list[str]:
    """Return values one by one; those that come again and again, as params do, are not put into words again.

    Example:
        >>> cells([64, "adam", 64, NOTHING])
        ['64', 'adam', '64', '-']
    """
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= _SIMPLE:
        distinct = set(values)
        if 0.0 not in distinct or float not in kinds:  # which -0.0 is equal to, and written otherwise
            shown_as = {value: cell(value) for value in distinct}
            return [shown_as[value] for value in values]
    known: dict[tuple[type, Any], str] = {}
    found = []
    for value in values:
        if type(value) is float:
            found.append(number(value))
        elif value is NOTHING:
            found.append("-")
        elif isinstance(value, list | dict):
            found.append(cell(value))
        else:
            shown = known.get((type(value), value))
            if shown is None:
                shown = known[type(value), value] = cell(value)
            found.append(shown)
    return found


_SIMPLE = {str, int, bool, float}


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A whole number beyond these has no exact float, and a huge one none at all.
    return abs(value) <= 2**53 if isinstance(value, int) else math.isfinite(value)


def cell(value: Any) -> str:
    """Return any recorded value as one line that is safe on a terminal."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, str):
        return safe(value) or '""'
    if isinstance(value, datetime):
        return iso(value)
    return safe(json.dumps(value, ensure_ascii=False))


def safe(text: str) -> str:
    r"""Return a text without what could steer a terminal: control and format characters are shown as escapes.

    Example:
        >>> safe("a" + chr(27) + "[31mb")
        'a\\x1b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else char.encode("unicode_escape").decode("ascii") for char in text)


def safe_block(block: str) -> str:
    r"""Return a text of many lines without what could steer a terminal; line breaks and tabs stay.

    Example:
        >>> safe_block("a\tb\n" + chr(27) + "c")
        'a\tb\n\\x1bc'
    """
    return "\n".join("\t".join(map(safe, line.split("\t"))) for line in block.split("\n"))


def _is_harmless(char: str) -> bool:
    # Cc: control characters; Cf: invisible ones, some of which reverse the direction of text; Cs: lone surrogates;
    # Zl and Zp: line and paragraph separators. The joiner of emoji sequences is harmless.
    return char == "\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def width(text: str) -> int:
    """Return how many columns a text takes on a terminal.

    Example:
        >>> width("ab"), width("模型"), width("e" + chr(0x301))
        (2, 4, 1)
    """
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if char == "\u200d" or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, limit: int = MAX_CELL) -> str:
    """Return a text that takes no more than so many columns, with an ellipsis in its middle where it was longer.

    Example:
        >>> cut("a-very-long-name-indeed", 11)
        'a-ver…ndeed'
    """
    if width(text) <= limit:
        return text
    head, tail = "", ""
    for char in text:
        if width(head + char) > limit // 2:
            break
        head += char
    for char in reversed(text):
        if width(head + char + tail) > limit - 1:
            break
        tail = char + tail
    return f"{head}…{tail}"


def cut_end(text: str, limit: int) -> str:
    """Return a text that takes no more than so many columns, with an ellipsis at its end where it was longer.

    Example:
        >>> cut_end("val_loss, val_acc, train_loss", 18)
        'val_loss, val_acc…'
    """
    if width(text) <= limit:
        return text
    head, used = "", 0
    for char in text:
        used += _char_width(char)
        if used > limit - 1:
            break
        head += char
    return f"{head}…"


def wrapped(text: str, limit: int) -> list[str]:
    """Return a text as lines of no more than so many columns, broken at spaces, and within a word where it is longer than a line.

    Example:
        >>> wrapped("python train.py --lr 0.1", 15)
        ['python train.py', '--lr 0.1']
    """
    lines: list[str] = []
    start, used, space = 0, 0, 0  # of the present line: where it begins, how wide it is, where its last space is
    for position, char in enumerate(text):
        columns = _char_width(char)
        if used + columns > limit and position > start:
            end = position if char == " " or space <= start else space
            lines.append(text[start:end])
            start = end + (text[end] == " ")
            used = width(text[start:position])
        used += columns if position >= start else 0
        space = position if char == " " else space
    return [*lines, text[start:]] if start < len(text) or not lines else lines


def age(seconds: float) -> str:
    """Return a time span in its largest unit.

    Example:
        >>> [age(s) for s in (41, 750, 4000, 200_000)]
        ['41s', '12m', '1h', '2d']
    """
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(max(seconds, 0))}s"


def span(seconds: float) -> str:
    """Return a time span in its two largest units.

    Example:
        >>> [span(s) for s in (41, 754, 4320, 200_000)]
        ['41s', '12m 34s', '1h 12m', '2d 7h']
    """
    whole = int(max(seconds, 0))
    for (unit, length), (smaller, smaller_length) in (
        (("d", 86400), ("h", 3600)),
        (("h", 3600), ("m", 60)),
        (("m", 60), ("s", 1)),
    ):
        if whole >= length:
            rest = whole % length // smaller_length
            return f"{whole // length}{unit} {rest}{smaller}" if rest else f"{whole // length}{unit}"
    return f"{whole}s"


def local(moment: datetime) -> str:
    """Return a moment in the reader's time zone, with its name; one that does not exist there, at either end of time, as ISO 8601."""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()
    except (OverflowError, ValueError):
        return iso(moment)


def iso(moment: datetime) -> str:
    """Return a moment as ISO 8601 in UTC, to the second.

    Example:
        >>> iso(datetime(2026, 11, 23, 4, 5, 6, 700, tzinfo=UTC))
        '2026-11-23T04:05:06Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def size(size_bytes: float) -> str:
    """Return a number of bytes as people say it.

    Example:
        >>> [size(s) for s in (0, 999, 212_000, 101_000_000, 4_040_000_000)]
        ['0 B', '999 B', '212 kB', '101 MB', '4.04 GB']
    """
    unit = "B"
    size_bytes = float(min(size_bytes, 1 << 90))  # a record may claim any number
    for larger in ("kB", "MB", "GB", "TB"):
        if size_bytes < 999.5:  # what would be rounded to 1000 belongs to the next unit
            break
        size_bytes, unit = size_bytes / 1000, larger
    return f"{size_bytes:.3g} {unit}" if size_bytes < 100 else f"{size_bytes:.0f} {unit}"


def plural(count: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> plural(1, "experiment"), plural(2100, "experiment")
        ('1 experiment', '2,100 experiments')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


NOT_UPLOADED = "not uploaded"
"""What is said of an experiment that the store does not have all of; while it runs that is as it should be."""


def status(word: str, *, is_uploaded: bool) -> str:
    """Return an experiment's status in one cell, such as ``stopped, not uploaded``."""
    return word if is_uploaded or word == "running" else f"{word}, {NOT_UPLOADED}"
