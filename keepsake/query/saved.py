"""What the sides of a comparison have saved, code and files of checkpoints, and what of it differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keepsake.capture import files as capture
from keepsake.exceptions import DoesNotExist, MissingFiles
from keepsake.query.code import changes_to_apply, changes_to_read
from keepsake.query.trees import ArchivedTree, DirectoryTree, pairs_of
from keepsake.repository import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import ExitStack

    from keepsake.capture.files import FileEntry
    from keepsake.query.code import FileChange
    from keepsake.query.compare import Side
    from keepsake.query.trees import FilePair, Tree
    from keepsake.repository.repository import Repository

NOTHING_SAVED, NOT_STORED_YET, MISSING = "nothing saved", "not stored yet", "not in the repository any more"
"""Why a side may have no tree of files."""


@dataclass(frozen=True, slots=True)
class TreeComparison:
    """What differs between two trees of files.

    Args:
        absent: Why either side has no tree that could be compared; empty for one that has.
        pairs: All files of both.
        changes: How those differ that do; empty where nothing is compared but sizes and digests.
    """

    absent: tuple[str, str] = ("", "")
    pairs: Sequence[FilePair] = ()
    changes: Sequence[FileChange] = ()

    @property
    def differs(self) -> bool:
        """Whether anything differs, or might: files that are not stored yet are not known to be the same."""
        if any(self.absent):
            return self.absent != (NOTHING_SAVED, NOTHING_SAVED)
        return bool(self.differing)

    @property
    def differing(self) -> list[FilePair]:
        """The files that differ."""
        return [pair for pair in self.pairs if pair.status != "same"]

    @property
    def added(self) -> int:
        """How many lines only the right side has."""
        return sum(change.edit.added for change in self.changes if change.edit is not None)

    @property
    def deleted(self) -> int:
        """How many lines only the left side has."""
        return sum(change.edit.deleted for change in self.changes if change.edit is not None)


@dataclass(frozen=True, slots=True)
class _Absent:
    """A tree that cannot be had, and why."""

    reason: str


class SavedFiles:
    """Compares what sides have saved, and reads no more of it than that takes: indexes, and of code the files that differ.

    Args:
        repository: Where it lies.
        directory: The project directory, which may be a side itself, as it is now.
        stack: What closes the archives in the end; each is opened once.
        globs: Patterns of the paths that are meant; see `keepsake.query.trees.pairs_of`.
        context: How many equal lines to give around those that differ.
    """

    def __init__(
        self, repository: Repository, directory: Path, stack: ExitStack, globs: Sequence[str] = (), context: int = 3
    ) -> None:
        self._repository = repository
        self._directory = directory
        self._stack = stack
        self._globs = globs
        self._context = context
        self._opened: dict[str, Tree] = {}

    def compare_code(self, left: Side, right: Side) -> TreeComparison:
        """Compare the code that was saved when the experiments began, line by line.

        Raises:
            ReadError: It cannot be read.
        """
        one, other = self._code(left, right), self._code(right, left)
        if isinstance(one, _Absent) or isinstance(other, _Absent):
            return _incomparable(one, other)
        pairs = pairs_of(one, other, self._globs)
        return TreeComparison(pairs=pairs, changes=list(changes_to_read(one, other, pairs, self._context)))

    def code_changes(self, left: Side, right: Side) -> Iterator[FileChange]:
        """Yield how the code differs, with all that a patch takes.

        Raises:
            DoesNotExist: A side has no code.
            ReadError: It cannot be read.
        """
        one, other = _present_of(left, self._code(left, right)), _present_of(right, self._code(right, left))
        yield from changes_to_apply(one, other, pairs_of(one, other, self._globs), self._context)

    def code_directory(self, side: Side, target: Path) -> Path:
        """Return a directory with the code of a side: the project directory itself, or a copy of what was saved.

        Args:
            side: The side.
            target: Where to make the copy; must not exist.

        Raises:
            DoesNotExist: The side has no code.
            ReadError: It cannot be read.
        """
        if side.experiment is None:
            return self._directory
        _present_of(side, self._code(side, side))
        target.mkdir()
        key = layout.experiment_archive_key(side.experiment.id)
        self._repository.archives.extract(key, target, announced=side.experiment.archive)
        return target

    def compare_files(self, left: Side, right: Side) -> TreeComparison:
        """Compare the files of the checkpoints, by their sizes and digests.

        Raises:
            ReadError: They cannot be read.
        """
        one, other = self._files(left, right), self._files(right, left)
        if isinstance(one, _Absent) or isinstance(other, _Absent):
            return _incomparable(one, other)
        return TreeComparison(pairs=pairs_of(one, other, self._globs))

    def _code(self, side: Side, other: Side) -> Tree | _Absent:
        """Return the code of one side; in the working directory what the other one has saved is looked for."""
        if side.experiment is None:
            path = other.experiment.path if other.experiment is not None else None
            return self._present_code(path) if path is not None else _Absent(NOTHING_SAVED)
        if side.experiment.path is None:
            return _Absent(NOTHING_SAVED)
        if side.experiment.archive_pending:
            return _Absent(NOT_STORED_YET)
        return self._archived(layout.experiment_archive_key(side.experiment.id), with_contents=True)

    def _files(self, side: Side, other: Side) -> Tree | _Absent:
        """Return the files of one side's checkpoint; in the working directory those that the other one has saved are looked for."""
        if side.experiment is None:
            path = other.checkpoint.path if other.checkpoint is not None else None
            return self._present_files(path) if path is not None else _Absent(NOTHING_SAVED)
        if side.checkpoint is None or not side.checkpoint.has_files:
            return _Absent(NOTHING_SAVED)
        if side.checkpoint.archive_pending:
            return _Absent(NOT_STORED_YET)
        return self._archived(layout.checkpoint_archive_key(side.checkpoint.id), with_contents=False)

    def _archived(self, key: str, *, with_contents: bool) -> Tree | _Absent:
        if key not in self._opened:
            opened = self._repository.archives.opened(key, with_contents=with_contents)
            try:
                self._opened[key] = ArchivedTree(self._stack.enter_context(opened))
            except MissingFiles:
                # All else that was recorded can be compared all the same.
                return _Absent(MISSING)
        return self._opened[key]

    def _present_code(self, path: str) -> Tree | _Absent:
        return self._present(path, lambda: capture.project_files(self._directory, path, exclude=self._excluded()))

    def _present_files(self, path: str) -> Tree | _Absent:
        if Path(path).is_absolute() or ".." in path.split("/"):
            # No keepsake writes that, and nobody is to be led around the disk by a record.
            return _Absent(f"{path} is outside of the project directory")
        return self._present(path, lambda: capture.checkpoint_files(self._directory, path, exclude=self._excluded())[1])

    def _present(self, path: str, entries: Callable[[], list[FileEntry]]) -> Tree | _Absent:
        try:
            return DirectoryTree(entries())
        except FileNotFoundError:
            return _Absent(f"no {path}")
        except (ValueError, OSError) as err:
            return _Absent(str(err))

    def _excluded(self) -> Collection[Path]:
        root = self._repository.local_root
        return [root] if root is not None else []


def _incomparable(left: Tree | _Absent, right: Tree | _Absent) -> TreeComparison:
    reasons = [side.reason if isinstance(side, _Absent) else "" for side in (left, right)]
    return TreeComparison((reasons[0], reasons[1]))


def _present_of(side: Side, tree: Tree | _Absent) -> Tree:
    if isinstance(tree, _Absent):
        what = f"experiment {layout.short_id(side.experiment.id)}" if side.experiment is not None else "the working directory"
        raise DoesNotExist(f"no code of {what} to compare: {tree.reason}")
    return tree
