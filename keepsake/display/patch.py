"""A file that differs as a part of a patch that ``git apply`` takes: the true bytes, for programs and never for a terminal."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from base64 import b85encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keepsake.query.code import FileChange
    from keepsake.query.texts import Hunk
    from keepsake.query.trees import TreeFile

_PLAIN_NAME = re.compile(rb"[\w./+,@=:~%^-]+")
"""Names that stand in a patch as they are. Any others are quoted, as Git quotes them, and reads them whether it would or not."""

_ESCAPES = {char: b"\\" + bytes([letter]) for char, letter in zip(b'\a\b\t\n\v\f\r"\\', b'abtnvfr"\\', strict=True)}

_NOWHERE = b"/dev/null"
_BINARY_LINE_BYTES = 52


def file_patch(change: FileChange) -> bytes:
    """Return the patch of one file, binary ones too.

    Args:
        change: What differs, with the contents of both sides.
    """
    return b"".join(_parts(change))


def _parts(change: FileChange) -> Iterator[bytes]:
    left, right = change.pair.left, change.pair.right
    old_name, new_name = (_quoted(side + os.fsencode(change.pair.path)) for side in (b"a/", b"b/"))
    yield b"diff --git %b %b\n" % (old_name, new_name)
    if left is None:
        yield b"new file mode %b\n" % _mode(right)
    elif right is None:
        yield b"deleted file mode %b\n" % _mode(left)
    elif _mode(left) != _mode(right):
        yield b"old mode %b\nnew mode %b\n" % (_mode(left), _mode(right))
    if change.pair.has_same_content or change.contents is None:
        return
    old, new = change.contents
    is_kept = left is not None and right is not None and _mode(left) == _mode(right)
    mode = b" " + _mode(left) if is_kept else b""
    yield b"index %b..%b%b\n" % (_blob_id(old, left), _blob_id(new, right), mode)
    if change.edit is None:
        yield b"GIT binary patch\n" + _literal(new) + _literal(old)
    elif change.edit.hunks:
        yield b"--- %b\n+++ %b\n" % (old_name if left is not None else _NOWHERE, new_name if right is not None else _NOWHERE)
        for hunk in change.edit.hunks:
            yield hunk_head(hunk)
            for mark, line in hunk.lines:
                yield mark.encode() + (line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n")


def hunk_head(hunk: Hunk) -> bytes:
    """Return the line that a hunk begins with."""
    left, right = _range(hunk.left_start, hunk.left_count), _range(hunk.right_start, hunk.right_count)
    return b"@@ -%b +%b @@%b\n" % (left, right, b" " + hunk.heading if hunk.heading else b"")


def _range(start: int, count: int) -> bytes:
    # Lines are counted from 1, and one that spans no line stands behind the line before.
    first = start + 1 if count else start
    return b"%d" % first if count == 1 else b"%d,%d" % (first, count)


def _mode(file: TreeFile | None) -> bytes:
    if file is None:
        return b""
    return b"120000" if file.is_link else b"100755" if file.is_executable else b"100644"


def _blob_id(content: bytes, file: TreeFile | None) -> bytes:
    """Return the name that Git gives to a content; without it Git takes no binary patch."""
    if file is None:
        return b"0" * 40
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest().encode()


def _literal(content: bytes) -> bytes:
    """Return a content as Git writes it in patches: packed, and 52 bytes a line in base 85 behind their number as a letter."""
    packed = zlib.compress(content)
    lines = [b"literal %d" % len(content)]
    for start in range(0, len(packed), _BINARY_LINE_BYTES):
        piece = packed[start : start + _BINARY_LINE_BYTES]
        count = len(piece) + (ord("A") - 1 if len(piece) <= 26 else ord("a") - 27)
        lines.append(bytes([count]) + b85encode(piece, pad=True))
    return b"\n".join(lines) + b"\n\n"


def _quoted(name: bytes) -> bytes:
    if _PLAIN_NAME.fullmatch(name):
        return name
    return (
        b'"' + b"".join(_ESCAPES.get(char) or (bytes([char]) if 32 <= char < 127 else b"\\%03o" % char) for char in name) + b'"'
    )
