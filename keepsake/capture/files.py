"""Which files of a path are taken: what ``.keepsakeignore`` and the built-in rules leave, and never our own repository.

This only lists. Packing what is listed is `keepsake.repository.archive`'s business.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from keepsake import messages

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from io import BufferedReader

    from pathspec.pattern import Pattern

IGNORE_FILE_NAME = ".keepsakeignore"
"""The file with the user's own rules, in the project directory, in Git's syntax."""

IGNORED_NAMES = frozenset(
    {".keepsake", ".git", ".hg", ".mypy_cache", "__pycache__", "node_modules", ".ipynb_checkpoints"},
)
"""Names that are never taken from a directory, wherever they lie."""

STAGING_PREFIX = ".keepsake-checkout-"
"""How the names of directories begin in which a checkout gathers files; they are never taken either."""

MARKERS = frozenset({"pyvenv.cfg", "conda-meta", "CACHEDIR.TAG"})
"""What tells that a directory is a virtual environment, or the cache of some tool."""

REPOSITORY_MEMBERS = ("repository.json", "metadata", "experiments", "checkpoints", "metrics", ".tmp", ".journal")
"""What is left out where the whole project lies inside a repository's directory."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One thing to be saved.

    Args:
        name: Its name in the archive: relative to the project directory, with ``/``.
        source: Where it lies now, absolute.
        kind: ``"directory"`` only for one of which nothing else is taken.
        link_target: What a link says, relative to its own directory.
    """

    name: str
    source: Path
    kind: Literal["file", "directory", "link"]
    link_target: str | None = None


def project_files(directory: Path, path: str | os.PathLike[str], *, exclude: Collection[Path] = ()) -> list[FileEntry]:
    """List what of the project is saved when an experiment starts, sorted by name.

    Args:
        directory: The project directory.
        path: A file or directory in it, relative to it or absolute. What is named here is taken even if it is ignored.
        exclude: Directories that are never taken.

    Raises:
        ValueError: The path is not in the project directory, is a repository, or is neither a file nor a directory.
        FileNotFoundError: There is nothing of that name.
    """
    located = _locate(directory, path)
    # A link to a file elsewhere is that file, as in a walk; a directory elsewhere is not part of the project.
    place = located.real if located.real.is_dir() else _real(located.path.parent)
    if located.name is None or not _is_within(place, _real(directory)):
        raise ValueError(f'path="{os.fspath(path)}" is outside the project directory {directory}')
    return _entries(located, located.name, directory, exclude)


def checkpoint_files(
    directory: Path, path: str | os.PathLike[str], *, exclude: Collection[Path] = ()
) -> tuple[str, list[FileEntry]]:
    """List what is saved with a checkpoint, sorted by name.

    Args:
        directory: The project directory.
        path: A file or directory, relative to the project directory or absolute; it may lie outside. What is named here is
            taken even if it is ignored.
        exclude: Directories that are never taken.

    Returns:
        The path as it is recorded (relative to the project directory, or the base name of one outside), and the files.

    Raises:
        ValueError: The path is a repository, or is neither a file nor a directory.
        FileNotFoundError: There is nothing of that name.
    """
    located = _locate(directory, path)
    name = located.name if located.name is not None else located.path.name
    if not name:
        raise ValueError(f'path="{os.fspath(path)}" has no name to save it under')
    return name, _entries(located, name, directory, exclude)


def open_plain(path: Path) -> BufferedReader:
    """Open a file for reading, without following a link or waiting for a pipe that took its place.

    Raises:
        OSError: It is not there, or not readable, or a link (``ELOOP``), or a pipe or a device (``EINVAL``).
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda name, _: os.open(name, flags | getattr(os, "O_CLOEXEC", 0)))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no plain file", str(path))
    return file


# --- the path that was named ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Located:
    """A path that exists: as it was named, without links, and relative to the project directory if it lies in there."""

    path: Path
    real: Path
    name: str | None


def _locate(directory: Path, path: str | os.PathLike[str]) -> _Located:
    given = os.fsdecode(path)
    if not given:
        raise ValueError('path is empty; leave it out to save no files, or write "." for the whole project')
    named = Path(os.path.normpath(directory.absolute() / given))
    try:
        real = named.resolve(strict=True)
    except (OSError, RuntimeError) as err:
        if isinstance(err, PermissionError):
            raise
        raise FileNotFoundError(_no_such_file(directory, given, named)) from None
    return _Located(named, real, _relative(named, directory))


def _relative(named: Path, directory: Path) -> str | None:
    """Return the name of a path relative to the project directory; None if it lies outside."""
    if named.is_relative_to(directory.absolute()):
        return named.relative_to(directory.absolute()).as_posix()
    # The same place may have been named through a link. The last part stays: it may be a link itself.
    real = _real(named.parent) / named.name
    if _real(named) == _real(directory):
        return "."
    return real.relative_to(_real(directory)).as_posix() if _is_within(real, _real(directory)) else None


def _no_such_file(directory: Path, given: str, named: Path) -> str:
    text = f"no such file (looked in {directory if not Path(given).is_absolute() else named.parent})"
    close = difflib.get_close_matches(named.name, _names_in(named.parent), n=3)
    if close:
        text += f", did you mean {' or '.join(close)}?"
    if not Path(given).is_absolute() and Path(given).exists():
        text += f"; it is in {Path.cwd()}, but path is relative to the project directory"
    return text


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError:
        return []


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_within(path: Path, directory: Path) -> bool:
    return path.is_relative_to(directory)


# --- what is taken of it ----------------------------------------------------------------------------------------------


def _entries(located: _Located, name: str, directory: Path, exclude: Collection[Path]) -> list[FileEntry]:
    mode = located.real.stat().st_mode
    if stat.S_ISREG(mode):
        return [FileEntry(name, located.real, "file")]
    if not stat.S_ISDIR(mode):
        raise ValueError(f'"{name}" is neither a file nor a directory')
    excluded = _Excluded(exclude, _real(directory))
    if excluded.holds(located.real):
        raise ValueError(f'"{name}" is in a directory that is never saved, such as the repository itself')
    prefix = "" if name == "." else name
    rules = _Rules.of(directory, prefix) if located.name is not None else _Rules([])
    return _Walk(located.real, prefix, rules, excluded).entries()


class _Walk:
    """Collects what is taken of one directory.

    Args:
        root: The directory, without links in its path.
        prefix: Its name in the archive, "" for the project directory.
        rules: The user's rules.
        excluded: Directories that are never taken.
    """

    def __init__(self, root: Path, prefix: str, rules: _Rules, excluded: _Excluded) -> None:
        self._root = root
        self._prefix = prefix
        self._rules = rules
        self._excluded = excluded
        self._taken: list[FileEntry] = []
        self._directories: list[tuple[str, Path]] = []
        self._unreadable: list[str] = []

    def entries(self) -> list[FileEntry]:
        """Return all entries, sorted by name."""
        # A list of our own, because trees may be deeper than Python's stack.
        waiting = [(self._prefix, self._root)]
        while waiting:
            waiting += self._look_into(*waiting.pop())
        self._keep_empty_directories()
        if self._unreadable:
            first = ", ".join(sorted(self._unreadable)[:3])
            more = f" and {len(self._unreadable) - 3} more" if len(self._unreadable) > 3 else ""
            messages.warning(f"not saved, because they cannot be read: {first}{more}")
        return sorted(self._taken, key=lambda entry: entry.name)

    def _look_into(self, name: str, path: Path) -> Iterator[tuple[str, Path]]:
        """Take the files of a directory and yield the directories in it."""
        try:
            with os.scandir(path) as scanned:
                found = list(scanned)
        except OSError:
            self._unreadable.append(name)
            return
        if name != self._prefix and any(entry.name in MARKERS for entry in found):
            return
        if name:
            self._directories.append((name, path))
        for entry in found:
            inner = f"{name}/{entry.name}" if name else entry.name
            if entry.name in IGNORED_NAMES or entry.name.startswith(STAGING_PREFIX):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    if not self._rules.ignore(inner, is_directory=True) and not self._excluded.is_one(entry.path):
                        yield inner, Path(entry.path)
                elif not self._rules.ignore(inner) and not self._excluded.is_one(entry.path):
                    self._take(inner, entry)
            except OSError:
                # It has gone since, or its file system has.
                self._unreadable.append(inner)

    def _take(self, name: str, entry: os.DirEntry[str]) -> None:
        if entry.is_symlink():
            self._take_link(name, Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            self._take_file(name, Path(entry.path))
        else:
            messages.debug(f"{name} is neither a file nor a directory, not saved")

    def _take_file(self, name: str, path: Path) -> None:
        if _is_secret(path):
            messages.debug(f"{name} holds secrets, not saved")
        elif os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            self._taken.append(FileEntry(name, path, "file"))
        else:
            self._unreadable.append(name)

    def _take_link(self, name: str, path: Path) -> None:
        real = _real(path)
        if _is_within(real, self._root):
            self._taken.append(FileEntry(name, path, "link", self._target_inside(name, path, real)))
        elif real.is_file():
            if not self._excluded.holds(real) and not _is_secret(path):
                self._take_file(name, real)
        elif real.exists():
            what = "directory" if real.is_dir() else "device"
            messages.warn_once(f"link {path}", f"{name} is a link to a {what} elsewhere, which is not saved")
        else:
            messages.warn_once(f"link {path}", f"{name} is a link to {real}, which does not exist; not saved")

    def _target_inside(self, name: str, path: Path, real: Path) -> str:
        """Return a link's target so that it works wherever the tree is put."""
        target = path.readlink()
        depth = len(Path(name).relative_to(self._prefix).parents) - 1 if self._prefix else len(Path(name).parents) - 1
        steps = Path(os.path.normpath(target)).parts
        if not target.is_absolute() and steps.count("..") <= depth:
            return target.as_posix()
        return Path(os.path.relpath(real, path.parent)).as_posix()

    def _keep_empty_directories(self) -> None:
        occupied = {parent for entry in self._taken for parent in _parents(entry.name)}
        for name, path in sorted(self._directories, reverse=True):
            if name not in occupied:
                self._taken.append(FileEntry(name, path, "directory"))
                occupied.update(_parents(name))


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


# --- what is not taken ------------------------------------------------------------------------------------------------


class _Excluded:
    """Directories that are never taken, known by their identity: the same one may have several spellings.

    Args:
        directories: The directories; those that do not exist are no matter.
        project: The project directory, without links. Of a directory that it lies in, only a repository's members are meant.
    """

    def __init__(self, directories: Collection[Path], project: Path) -> None:
        members = [
            member
            for directory in directories
            for member in ([directory / name for name in REPOSITORY_MEMBERS] if _is_around(directory, project) else [directory])
        ]
        self._identities = {identity for path in members if (identity := _identity(path)) is not None}

    def is_one(self, path: str | Path) -> bool:
        """Tell whether a path is an excluded directory."""
        return bool(self._identities) and _identity(path) in self._identities

    def holds(self, real: Path) -> bool:
        """Tell whether a path is an excluded directory or lies in one."""
        return any(self.is_one(path) for path in (real, *real.parents))


def _is_around(directory: Path, project: Path) -> bool:
    real = _real(directory)
    return real == project or (_is_within(project, real) and project.relative_to(real).parts[0] not in REPOSITORY_MEMBERS)


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Rules:
    """The user's ignore rules, the last one that matches wins.

    Args:
        lines: Lines of an ignore file.
        named: The directory that was asked for by name; rules that ignore it as a whole do not count.
    """

    def __init__(self, lines: Sequence[str], named: str = "") -> None:
        rules = [rule for line in lines if (rule := _Rule.of(line)) is not None]
        self._rules = [rule for rule in reversed(rules) if not (named and rule.is_against(named))]

    @classmethod
    def of(cls, directory: Path, named: str) -> _Rules:
        """Read the rules of a project."""
        try:
            text = (directory / IGNORE_FILE_NAME).read_text(encoding="utf-8-sig", errors="surrogateescape")
        except FileNotFoundError:
            return cls([])
        except OSError as err:
            messages.warn_once(f"ignore {directory}", f"cannot read {IGNORE_FILE_NAME}: {err.strerror}; nothing is left out")
            return cls([])
        return cls(text.split("\n"), named)

    def ignore(self, name: str, *, is_directory: bool = False) -> bool:
        """Tell whether a name is left out, given that none of its parents is."""
        return next((rule.ignores for rule in self._rules if rule.matches(name, is_directory=is_directory)), False)


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line of an ignore file.

    The library's patterns match what they name and all below it. In Git a pattern matches only what it names: after
    ``data/`` and ``!results``, ``results/data`` is ignored, and a match of all below ``results`` would undo that. So an end mark
    is put behind the pattern and behind the name to be matched, which none of its parents has.
    """

    pattern: Pattern
    ignores: bool
    only_directories: bool

    @classmethod
    def of(cls, line: str) -> _Rule | None:
        """Read a line; None for a comment or a blank one."""
        from pathspec import GitIgnoreSpec

        text = _without_trailing_spaces(line.removesuffix("\r"))
        names = text.removesuffix("/")
        if names in ("", "!") or text.startswith("#"):
            return None
        if names.endswith("/**") or names in ("**", "!**"):
            # Means everything below, whose own name is the last part.
            names += "/*"
        try:
            with warnings.catch_warnings():
                # Python warns of expressions such as "[[" for the sake of its own future syntax.
                warnings.simplefilter("ignore", FutureWarning)
                [pattern] = GitIgnoreSpec.from_lines([names + _END]).patterns
        except (ValueError, re.error):
            messages.warn_once(f"ignore line {line}", f'{IGNORE_FILE_NAME}: "{line}" is not a pattern')
            return None
        return cls(pattern, pattern.include, text.endswith("/")) if pattern.include is not None else None

    def matches(self, name: str, *, is_directory: bool) -> bool:
        return (is_directory or not self.only_directories) and self.pattern.match_file(name + _END) is not None

    def is_against(self, named: str) -> bool:
        """Tell whether the rule leaves out a whole directory, or all that is in it."""
        above = any(self.matches(name, is_directory=True) for name in (named, *_parents(named)))
        return self.ignores and (above or self.matches(f"{named}/any other name", is_directory=True))


_END = "\x01"


def _without_trailing_spaces(line: str) -> str:
    text = line.rstrip(" ")
    backslashes = len(text) - len(text.rstrip("\\"))
    return f"{text} " if len(text) < len(line) and backslashes % 2 else text


# --- secrets ----------------------------------------------------------------------------------------------------------

_KEY_NAMES = frozenset({"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", ".netrc", ".pypirc", ".envrc"})
_KEY_SUFFIXES = frozenset({".pem", ".key", ".ppk"})
_KEY_STORE_SUFFIXES = frozenset({".p12", ".pfx"})
_KEY_MARKS = (b"PRIVATE KEY-----", b"PuTTY-User-Key-File", b'"private_key"')
_HARMLESS_ENV_SUFFIXES = frozenset({".example", ".sample", ".template", ".dist"})


def _is_secret(path: Path) -> bool:
    """Tell whether a file holds passwords or private keys, by its name, and by its content where the name is not enough."""
    name = path.name.lower()
    suffix = path.suffix.lower()
    if name == ".env" or (name.startswith(".env.") and suffix not in _HARMLESS_ENV_SUFFIXES):
        return True
    if name in _KEY_NAMES or suffix in _KEY_STORE_SUFFIXES:
        return True
    may_be_key = suffix in _KEY_SUFFIXES or (suffix == ".json" and ("credential" in name or "account" in name or "key" in name))
    return may_be_key and _has_key_mark(path)


def _has_key_mark(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            beginning = file.read(65_536)
    except OSError:
        return False
    return any(mark in beginning for mark in _KEY_MARKS)
