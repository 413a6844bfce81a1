"""What differs inside of files: line by line where they are texts, and read only where they differ at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from keepsake.exceptions import ReadError
from keepsake.query import notebooks
from keepsake.query.texts import TextEdit, edit_of, is_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keepsake.query.trees import FilePair, Tree, TreeFile

MAX_TEXT_BYTES = 1_000_000
"""Longer files are not read to be shown: nobody reads that many lines, and most of them are data."""

MAX_NOTEBOOK_BYTES = 32_000_000
"""Notebooks may be longer, because of the pictures in them, which are not shown."""

MAX_PATCHED_BYTES = 500_000_000
"""Longest file in a patch. Git takes no patch of more than 1 GB."""

Form: TypeAlias = Literal["text", "notebook", "binary", "large"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that differs, and how.

    Args:
        pair: The file on either side.
        form: What it is compared as: a ``large`` one is not read.
        edit: What differs line by line; None where it is not compared by lines. It has no hunks where only the mode differs, or of a
            notebook only what nobody has written.
        contents: What either side holds, only where that was asked for.
    """

    pair: FilePair
    form: Form
    edit: TextEdit | None
    contents: tuple[bytes, bytes] | None = None


def changes_to_read(left: Tree, right: Tree, pairs: Sequence[FilePair], context: int = 3) -> Iterator[FileChange]:
    """Yield what differs, for people: notebooks by the sources of their cells, long files and binary ones as a whole.

    Args:
        left: The reference.
        right: What is compared with it.
        pairs: Files of both, sorted by path.
        context: How many equal lines to give around those that differ.

    Raises:
        ReadError: A file cannot be read.
    """
    differing = [pair for pair in pairs if pair.status != "same"]
    contents = _contents(left, right, [pair for pair in differing if not _is_large(pair) and not pair.has_same_content])
    for pair in differing:
        if pair.has_same_content:
            yield FileChange(pair, "text", TextEdit([], 0, 0))
        elif _is_large(pair):
            yield FileChange(pair, "large", None)
        else:
            yield _change_to_read(pair, *next(contents), context)


def _change_to_read(pair: FilePair, left: bytes, right: bytes, context: int) -> FileChange:
    if pair.path.endswith(notebooks.SUFFIX):
        one, other = (notebooks.sources(content) if content else b"" for content in (left, right))
        if one is not None and other is not None:
            return FileChange(pair, "notebook", edit_of(one, other, context))
    if not (is_text(left) and is_text(right)):
        return FileChange(pair, "binary", None)
    if max(len(left), len(right)) > MAX_TEXT_BYTES:
        return FileChange(pair, "large", None)
    return FileChange(pair, "text", edit_of(left, right, context))


def changes_to_apply(left: Tree, right: Tree, pairs: Sequence[FilePair], context: int = 3) -> Iterator[FileChange]:
    """Yield what differs, for programs: all of it, with the contents, one file at a time in memory.

    Args:
        left: The reference.
        right: What is compared with it.
        pairs: Files of both, sorted by path.
        context: How many equal lines to give around those that differ.

    Raises:
        ReadError: A file cannot be read, or is too long for a patch.
    """
    differing = [pair for pair in pairs if pair.status != "same"]
    for pair in differing:
        if _length(pair) > MAX_PATCHED_BYTES:
            raise ReadError(
                f"{pair.path} is too long for a patch ({_length(pair):,} bytes)",
                hint="choose other files with --path, or bring it back with keepsake checkout",
            )
    contents = _contents(left, right, [pair for pair in differing if not pair.has_same_content])
    for pair in differing:
        one, other = (b"", b"") if pair.has_same_content else next(contents)
        if is_text(one) and is_text(other):
            yield FileChange(pair, "text", edit_of(one, other, context), (one, other))
        else:
            yield FileChange(pair, "binary", None, (one, other))


def _contents(left: Tree, right: Tree, pairs: Sequence[FilePair]) -> Iterator[tuple[bytes, bytes]]:
    """Yield what both sides hold, b"" where one has no such file."""
    lefts = left.contents([pair.path for pair in pairs if pair.left is not None])
    rights = right.contents([pair.path for pair in pairs if pair.right is not None])
    for pair in pairs:
        yield next(lefts) if pair.left is not None else b"", next(rights) if pair.right is not None else b""


def _is_large(pair: FilePair) -> bool:
    return _length(pair) > (MAX_NOTEBOOK_BYTES if pair.path.endswith(notebooks.SUFFIX) else MAX_TEXT_BYTES)


def _length(pair: FilePair) -> int:
    sides: tuple[TreeFile | None, ...] = (pair.left, pair.right)
    return max(file.size_bytes for file in sides if file is not None)
