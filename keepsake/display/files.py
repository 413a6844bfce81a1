"""Saved files: a table with sizes and digests, and a tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keepsake.display import text
from keepsake.display.tables import GAP, Column, View, lines, total_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keepsake.repository.archive import ArchivedFile

DIGEST_SHOWN = 7
MIN_PATH_WIDTH = 12


def file_table(files: Sequence[ArchivedFile], view: View) -> list[str]:
    """Return files one a line, with size and digest; a terminal gets the beginning of the digest, and long paths cut in the middle.

    Args:
        files: The entries of an archive, whose directories are left out.
        view: How it is to look.
    """
    return lines(file_columns([file for file in files if file.kind != "directory"], view), view.style)


def file_columns(entries: Sequence[ArchivedFile], view: View) -> list[Column]:
    """Return the columns of a table of files.

    Args:
        entries: The entries of an archive, without directories.
        view: How it is to look.
    """
    digest_length = DIGEST_SHOWN if view.is_short else None
    columns = [
        Column("SIZE", ["-" if file.kind == "link" else text.size(file.size_bytes) for file in entries], right=True),
        Column("SHA256", [text.safe(file.sha256 or "-")[:digest_length] for file in entries]),
    ]
    paths = [_path(file) for file in entries]
    if view.width is not None and not view.every:
        room = max(view.width - total_width(columns) - len(GAP), MIN_PATH_WIDTH)
        paths = [text.cut(path, room) for path in paths]
    return [*columns, Column("PATH", paths)]


def totals(files: Sequence[ArchivedFile]) -> str:
    """Return how many files there are and how large they are together."""
    entries = [file for file in files if file.kind != "directory"]
    return f"{text.plural(len(entries), 'file')}, {text.size(sum(file.size_bytes for file in entries))}"


# --- the tree ---------------------------------------------------------------------------------------------------------

DRAWN, DRAWN_IN_ASCII = ("├── ", "└── ", "│   "), ("|-- ", "`-- ", "|   ")


@dataclass(slots=True)
class _Directory:
    """What lies in a directory of the tree, by name."""

    directories: dict[str, _Directory] = field(default_factory=dict)
    files: dict[str, ArchivedFile] = field(default_factory=dict)

    def below(self, names: Sequence[str]) -> _Directory:
        """Return a directory below this one."""
        found = self
        for name in names:
            found = found.directories.setdefault(name, _Directory())
        return found

    def entries(self) -> list[tuple[str, _Directory | ArchivedFile]]:
        """Return directories and then files, by name; directories that hold nothing but another one stand together with it."""
        directories = sorted((one.joined(name) for name, one in self.directories.items()), key=lambda item: item[0])
        return [*directories, *sorted(self.files.items(), key=lambda item: item[0])]

    def joined(self, name: str) -> tuple[str, _Directory]:
        """Return the first directory below that branches or holds files, with the names that lead there; itself if it does."""
        found = self
        while len(found.directories) == 1 and not found.files:
            [(inner, found)] = found.directories.items()
            name = f"{name}/{inner}"
        return name, found


def tree(files: Sequence[ArchivedFile], view: View) -> list[str]:
    """Return files as a tree of directories, each with its size.

    Args:
        files: The entries of an archive.
        view: How it is to look.
    """
    root = _Directory()
    for file in files:
        *directories, name = file.path.split("/")
        if file.kind == "directory":
            root.below([*directories, name])
        else:
            root.below(directories).files[name] = file
    rows = list(_rows(root, DRAWN if view.unicode else DRAWN_IN_ASCII))
    names = [name for name, _ in rows]
    sizes = Column("", [size for _, size in rows], right=True)
    if view.is_short and view.width is not None:
        names = [text.cut(name, max(view.width - sizes.width - len(GAP), MIN_PATH_WIDTH)) for name in names]
    return lines([Column("", names), sizes], view.style, headings=False)


def _rows(root: _Directory, drawn: tuple[str, str, str]) -> Iterator[tuple[str, str]]:
    """Yield each name with the lines that lead to it, and its size."""
    middle, end, passing = drawn
    # Not by recursion: names in an archive may be deeper than that goes.
    waiting = _below(root, "")
    while waiting:
        start, name, entry, is_last = waiting.pop()
        lead = start + (end if is_last else middle)
        if isinstance(entry, _Directory):
            yield f"{lead}{text.safe(name)}/", ""
            waiting += _below(entry, start + ("    " if is_last else passing))
        else:
            yield f"{lead}{text.safe(name)}{_target(entry)}", "" if entry.kind == "link" else text.size(entry.size_bytes)


def _below(directory: _Directory, start: str) -> list[tuple[str, str, _Directory | ArchivedFile, bool]]:
    """Return what lies in a directory, the last first, each with what its line begins with and whether it is the last."""
    entries = directory.entries()[::-1]
    return [(start, name, entry, not index) for index, (name, entry) in enumerate(entries)]


# --- parts ------------------------------------------------------------------------------------------------------------


def _path(file: ArchivedFile) -> str:
    return text.safe(file.path) + _target(file)


def _target(file: ArchivedFile) -> str:
    return f" -> {text.safe(file.link_target or '')}" if file.kind == "link" else ""
