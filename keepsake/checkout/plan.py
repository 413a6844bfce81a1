"""Bringing saved files back into a directory: first a plan of what would change, then the change, file by file.

Files are extracted into a staging directory on the target's file system, compared with what is there, and moved into place one
by one, so that an interruption leaves each file either old or new.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from keepsake import messages
from keepsake.config import CONFIG_FILE_NAMES
from keepsake.exceptions import DoesNotExist, ReadError, UnsavedFiles, WriteError
from keepsake.repository import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment

__all__ = ["CheckoutPlan", "checkout", "plan_checkout"]


class CheckoutPlan:
    """What a checkout would do to a directory; a context manager that removes its staging directory in the end.

    Args:
        staging: A directory of our own with the files, on the target's file system.
        target: The directory that they will go to.

    Attributes:
        new: Names of files that are not there yet, relative to the target, sorted.
        changed: Files that are there with other content, which would be lost.
        identical: Files that are there already.
        kept: Files that are there with other content and stay: a checkout never puts back an old keepsake.yaml, which would
            make the directory point at another repository.
    """

    def __init__(self, staging: Path, target: Path) -> None:
        self._staging = staging
        self.target = target
        self.new: list[str] = []
        self.changed: list[str] = []
        self.identical: list[str] = []
        self.kept: list[str] = []
        for name in _names_below(staging):
            self._sort_in(name)

    def _sort_in(self, name: str) -> None:
        staged, present = self._staging / name, self.target / name
        _refuse_links_on_the_way(self.target, name)
        if not os.path.lexists(present):
            self.new.append(name)
        elif _same(staged, present):
            self.identical.append(name)
        elif name in CONFIG_FILE_NAMES:
            self.kept.append(name)
        else:
            self.changed.append(name)

    def apply(self) -> None:
        """Move the new and the changed files into place.

        Raises:
            WriteError: A file could not be written; those before it are in place.
        """
        try:
            self.target.mkdir(parents=True, exist_ok=True)
            for name in [*self.new, *self.changed]:
                _move(self._staging / name, self.target / name)
        except OSError as err:
            raise WriteError(f"cannot write to {self.target}: {err}", url=f"file://{self.target}") from err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)


def plan_checkout(
    experiment: Experiment,
    checkpoint: Checkpoint | None,
    target: Path,
    *,
    path: str | os.PathLike[str] | None = None,
    code: bool = True,
    progress: Callable[[int], Callable[[int], None]] | None = None,
) -> CheckoutPlan:
    """Fetch the files of an experiment and a checkpoint, and compare them with what is in a directory.

    Where both hold a file of one name, the checkpoint's is taken.

    Args:
        experiment: Whose code to take.
        checkpoint: Whose files to take; None for none.
        target: The directory; it need not exist and is not changed yet.
        path: Only this file or directory.
        code: Whether to take the experiment's code.
        progress: Called with the number of bytes that will be fetched; what it returns is called with how many more have been.

    Raises:
        DoesNotExist: Nothing was saved, or not this path.
        ReadError: An archive is missing, damaged or unsafe.
        WriteError: There is no room for the files.
    """
    target = target.expanduser().absolute()
    if target.exists() and not target.is_dir():
        raise UnsavedFiles(f"{target} is a file, not a directory", hint="choose another directory with -o")
    staging = Path(tempfile.mkdtemp(prefix=".keepsake-checkout-", dir=_nearest_directory(target)))
    try:
        only = os.fspath(path) if path is not None else None
        # How much a part of it is, nobody knows before.
        _fetch(experiment, checkpoint, staging, only, code=code, progress=progress if only is None else None)
        return CheckoutPlan(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def checkout(
    experiment: Experiment,
    checkpoint: Checkpoint | None,
    target: Path,
    *,
    path: str | os.PathLike[str] | None,
    code: bool,
    quiet: bool,
) -> None:
    """Plan a checkout and do it, over what is there."""
    with plan_checkout(experiment, checkpoint, target, path=path, code=code) as plan:
        plan.apply()
        if not quiet:
            source = f"checkpoint {checkpoint.short_id()}" if checkpoint is not None else f"experiment {experiment.short_id()}"
            count = len(plan.new) + len(plan.changed)
            messages.info(
                f"checked out {source} into {plan.target}: {count} files written, {len(plan.identical)} were there already"
            )


def _fetch(
    experiment: Experiment,
    checkpoint: Checkpoint | None,
    staging: Path,
    only: str | None,
    *,
    code: bool,
    progress: Callable[[int], Callable[[int], None]] | None,
) -> None:
    sources: list[tuple[str, str]] = []
    if code and experiment.path is not None:
        sources.append((layout.experiment_archive_key(experiment.id), experiment.id))
    if checkpoint is not None and checkpoint.record.has_files:
        sources.append((layout.checkpoint_archive_key(checkpoint.id), checkpoint.id))
    if not sources:
        raise DoesNotExist(
            f"experiment {experiment.short_id()} has no saved files: neither init() nor checkpoint() was given a path"
        )
    missing: list[DoesNotExist] = []
    for key, id in sources:
        record = experiment.record if id == experiment.id else checkpoint.record if checkpoint is not None else None
        if record is not None:
            experiment.wait_for_files(record)
        if record is not None and record.archive_pending:
            raise ReadError(
                f"the files of {layout.short_id(id)} are not stored yet, or the process that saved them died before they were",
                key=key,
            )
        try:
            part = staging / id
            part.mkdir()
            announced = record.archive if record is not None else None
            fetched = progress(announced.size_bytes) if progress is not None and announced is not None else None
            experiment.repository.extract_archive(key, part, only=only, announced=announced, on_progress=fetched)
            _merge(part, staging)
        except DoesNotExist as err:
            missing.append(err)
            shutil.rmtree(staging / id, ignore_errors=True)
    if len(missing) == len(sources):
        raise missing[-1]


def _merge(part: Path, staging: Path) -> None:
    """Move what one archive held over what an earlier one held."""
    for name in _names_below(part):
        _move(part / name, staging / name)
    shutil.rmtree(part)


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            target.unlink()
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        # A directory stands where a file was saved. Only an empty one gives way: its files are not ours to delete.
        target.rmdir()
    source.replace(target)


def _names_below(directory: Path) -> Iterator[str]:
    """Yield files, links and empty directories below a directory as relative names, sorted."""
    found: list[str] = []
    for parent, directories, files in os.walk(directory):
        inner = [name for name in directories if not (Path(parent) / name).is_symlink()]
        links = [name for name in directories if name not in inner]
        found += [(Path(parent) / name).relative_to(directory).as_posix() for name in [*files, *links]]
        if not directories and not files and Path(parent) != directory:
            found.append(Path(parent).relative_to(directory).as_posix())
    yield from sorted(found)


def _same(one: Path, other: Path) -> bool:
    mode, other_mode = one.lstat().st_mode, other.lstat().st_mode
    if stat.S_IFMT(mode) != stat.S_IFMT(other_mode):
        return False
    if stat.S_ISLNK(mode):
        return one.readlink() == other.readlink()
    if stat.S_ISDIR(mode):
        return True
    return (mode & stat.S_IXUSR) == (other_mode & stat.S_IXUSR) and filecmp.cmp(one, other, shallow=False)


def _refuse_links_on_the_way(target: Path, name: str) -> None:
    parent = target
    for segment in Path(name).parts[:-1]:
        parent /= segment
        if parent.is_symlink():
            raise UnsavedFiles(
                f"{parent} is a link: writing {name} through it could change files elsewhere",
                hint="choose another directory with -o",
            )


def _nearest_directory(path: Path) -> Path:
    return next(parent for parent in [path, *path.parents] if parent.is_dir())
