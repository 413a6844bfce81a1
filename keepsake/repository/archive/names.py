"""Which entries of an archive may be written: nothing of what an archive or its index says is trusted."""

from __future__ import annotations

import difflib
import posixpath
from pathlib import PurePath
from typing import TYPE_CHECKING

from keepsake.exceptions import ReadError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from keepsake.repository.archive.index import Kind

MAX_LINKS = 40
"""How many links Linux follows before it gives up."""

MAX_CLOSE = 3
"""How many names an error proposes."""


class Tree:
    """What has been met of an archive so far, which refuses what must not be written beside it.

    Args:
        where: What to call the archive in errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._kinds: dict[str, Kind] = {}
        self._links: dict[str, str] = {}

    def check_name(self, name: str) -> None:
        """Refuse a name that leaves the directory, here or on any system.

        Raises:
            ReadError: It does.
        """
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise self.unsafe(name, "leaves the directory")
        if any(PurePath(part).parts != (part,) for part in parts if part not in ("", ".")):
            # A backslash or a drive where the system knows them.
            raise self.unsafe(name, "leaves the directory")

    def take_place(self, name: str, kind: Kind, link_target: str | None) -> None:
        """Refuse what is there twice, and what lies behind a link or below a file.

        Args:
            name: Its path without the ID in front, normalised.
            kind: What it is.
            link_target: Where a link points to.

        Raises:
            ReadError: It must not be written.
        """
        for parent in parents(name):
            if self._kinds.setdefault(parent, "directory") != "directory":
                raise self.unsafe(name, f"lies behind the {self._kinds[parent]} {parent!r}")
        taken = self._kinds.get(name)
        if taken is not None and not taken == kind == "directory":
            raise self.unsafe(name, "is there twice")
        self._kinds[name] = kind
        if kind == "link":
            self._links[name] = link_target or ""
            if self._links[name].startswith("/") or "\0" in self._links[name]:
                raise self.unsafe(name, f"is a link that leaves the directory (to {link_target!r})")

    def check_links(self) -> None:
        """Follow each link as the system would, other links on its way included.

        Raises:
            ReadError: One leads out of the tree.
        """
        for name, target in self._links.items():
            if _leaves(name, self._links):
                raise self.unsafe("", f"holds a link that leaves the directory ({name!r} to {target!r})")

    def unsafe(self, name: str, why: str) -> ReadError:
        """Return the error for an entry, or for the whole where it has no name."""
        what = f"{name!r} {why}" if name else why
        return ReadError(f"{self._where} is not safe to open: {what}; nothing of it is used")


def parents(name: str) -> list[str]:
    """Return the directories above a name, the nearest first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def close_names(wanted: str, names: Collection[str]) -> list[str]:
    """Return the names that may have been meant: those written alike, else those of the same file somewhere else.

    Example:
        >>> close_names("mode1.pt", ["model.pt", "train.py"]), close_names("model.pt", ["some/where/model.pt"])
        (['model.pt'], ['some/where/model.pt'])
    """
    alike = difflib.get_close_matches(wanted, names, n=MAX_CLOSE)
    return alike or [name for name in names if posixpath.basename(name) == posixpath.basename(wanted)][:MAX_CLOSE]


def _leaves(name: str, links: Mapping[str, str]) -> bool:
    """Tell whether a link leads out of the tree."""
    place: list[str] = []
    waiting = name.split("/")[::-1]
    followed = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            if not place:
                return True
            place.pop()
        elif part not in ("", "."):
            place.append(part)
        target = links.get("/".join(place))
        if target is not None and part not in ("", ".", ".."):
            followed += 1
            if followed > MAX_LINKS:
                return False
            place.pop()
            waiting += target.split("/")[::-1]
    return False
