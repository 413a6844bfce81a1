"""Files that differ, as people read them: lines that are safe on a terminal, and rows for what is not shown line by line.

What programs read is made in `keepsake.display.patch`.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from keepsake.display import text
from keepsake.display.patch import hunk_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.display.tables import View
    from keepsake.query.code import FileChange
    from keepsake.query.texts import Hunk
    from keepsake.query.trees import FilePair, TreeFile

MAX_CHANGED_LINES = 2_000
"""On a terminal more lines of one file are only counted."""

NO_LINE_BREAK = "\\ No newline at end of file"

_WORDS = {"added": "new", "deleted": "gone", "changed": "differs", "same": "same"}
_MARK_STYLES = {"+": "green", "-": "red", " ": ""}
_WORD_MARKS = {"+": ("{+", "+}"), "-": ("[-", "-]")}
"""As ``git diff --word-diff`` marks them."""


def is_shown_by_lines(change: FileChange, view: View) -> bool:
    """Tell whether the lines of a file that differ are to be shown."""
    return change.edit is not None and bool(change.edit.hunks) and not _is_too_long(change, view)


def _is_too_long(change: FileChange, view: View) -> bool:
    if change.edit is None:
        return change.form == "large"
    return view.width is not None and change.edit.added + change.edit.deleted > MAX_CHANGED_LINES


# --- line by line -------------------------------------------------------------------------------------------------------


def change_lines(change: FileChange, names: tuple[str, str], view: View, *, words: bool = False) -> list[str]:
    """Return what differs in a file, line by line.

    Args:
        change: What differs.
        names: What the sides are called.
        view: How it is to look.
        words: Mark the words that differ instead of whole lines.
    """
    pair = change.pair
    left, right = (
        f"{mark} {f'{name}/{text.safe(pair.path)}' if file is not None else '/dev/null'}"
        for mark, name, file in (("---", names[0], pair.left), ("+++", names[1], pair.right))
    )
    note = _note(change)
    shown = [view.style(left, "bold"), view.style(f"{right} ({note})" if note else right, "bold")]
    for hunk in change.edit.hunks if change.edit is not None else ():
        shown += _hunk_words(hunk, view) if words else _hunk_lines(hunk, view)
    return shown


def _hunk_lines(hunk: Hunk, view: View) -> list[str]:
    shown = [view.style(_readable(hunk_head(hunk)), "cyan")]
    # Where every line ends as on Windows, to say so at each of them tells nobody anything.
    ending = b"\r\n" if all(line.endswith(b"\r\n") for _, line in hunk.lines) else b"\n"
    for mark, line in hunk.lines:
        shown.append(view.style(mark + _readable(line.removesuffix(ending)), _MARK_STYLES[mark]).rstrip(" "))
        if not line.endswith(b"\n"):
            shown.append(NO_LINE_BREAK)
    return shown


def _hunk_words(hunk: Hunk, view: View) -> list[str]:
    shown = [view.style(_readable(hunk_head(hunk)), "cyan")]
    line = ""
    for mark, piece in hunk.words():
        first, *others = piece.replace(b"\r\n", b"\n").split(b"\n")
        line += _marked_words(mark, first, view)
        for part in others:
            shown.append(line.rstrip(" "))
            line = _marked_words(mark, part, view)
    return [*shown, line] if line else shown


def _marked_words(mark: str, words: bytes, view: View) -> str:
    if not words or mark == " ":
        return _readable(words)
    before, behind = _WORD_MARKS[mark]
    return view.style(f"{before}{_readable(words)}{behind}", _MARK_STYLES[mark])


def _readable(line: bytes) -> str:
    """Return a line of a file as it may be printed: what could steer a terminal as escapes, but with its tabs."""
    decoded = line.removesuffix(b"\n").decode(errors="backslashreplace")
    return "\t".join(text.safe(part) for part in decoded.split("\t"))


def _note(change: FileChange) -> str:
    notes = [
        "link" if any(file.is_link for file in _files(change.pair)) else "",
        "sources of its cells" if change.form == "notebook" else "",
        _new_mode(change.pair),
    ]
    return ", ".join(note for note in notes if note)


def _new_mode(pair: FilePair) -> str:
    if pair.left is None or pair.right is None or pair.left.is_executable == pair.right.is_executable:
        return ""
    return "executable now" if pair.right.is_executable else "not executable"


def _files(pair: FilePair) -> list[TreeFile]:
    return [file for file in (pair.left, pair.right) if file is not None]


# --- as a whole ---------------------------------------------------------------------------------------------------------


def change_row(change: FileChange) -> list[str]:
    """Return what differs in a file in one row: how many lines where they can be counted, else sizes and digests."""
    edit, pair = change.edit, change.pair
    if edit is not None and edit.hunks:
        word = "" if pair.status == "changed" else _WORDS[pair.status]
        return [f"  {text.safe(pair.path)}", f"+{edit.added} -{edit.deleted}", "", _new_mode(pair) or word]
    if change.form == "notebook" and pair.status == "changed":
        return [*file_row(pair)[:3], "outputs differ"]
    return [*file_row(pair)[:3], _new_mode(pair) or _WORDS[pair.status]]


def file_row(pair: FilePair) -> list[str]:
    """Return a file on either side, by its size and its digest."""
    if pair.status == "same":
        return [f"  {text.safe(pair.path)}", "same"]
    return [f"  {text.safe(pair.path)}", _content(pair.left), _content(pair.right), _WORDS[pair.status]]


def _content(file: TreeFile | None) -> str:
    return f"{text.size(file.size_bytes)}  {file.digest[:7]}" if file is not None else "-"


def hints(changes: Sequence[FileChange], names: tuple[str, str], view: View) -> list[str]:
    """Return how to see what is too long to be shown.

    Args:
        changes: All files that differ.
        names: What the sides are called on the command line.
        view: How the others are shown.
    """
    paths = [change.pair.path for change in changes if _is_too_long(change, view)]
    if not paths:
        return []
    only = f" --path {text.safe(shlex.quote(paths[0]))}" if len(paths) == 1 else ""
    return [f"  too long to show; as a patch: keepsake diff {' '.join(names)} --only code{only} > changes.patch"]
