"""What a checkout would do to a directory, and doing it: files are fetched beside it, and each takes its place at once.

An interruption leaves every file either old or new, and a second run finds identical what the first one has put in place.
"""

from __future__ import annotations

import filecmp
import os
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Self

from keepsake import messages
from keepsake.capture import files as capture
from keepsake.checkout import places
from keepsake.checkout.saved import Place, places_of
from keepsake.checkout.staging import Staging, walk
from keepsake.checkout.undo import Change, Undo
from keepsake.checkout.version import Version, VersionFile
from keepsake.config import CONFIG_FILE_NAMES
from keepsake.exceptions import KeepsakeError, ReadError, UnsavedFiles, WriteError
from keepsake.storage.disk import write_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment


class CheckoutPlan:
    """What a checkout would do to a directory; a context manager that removes its staging directory in the end.

    Args:
        version: The files that are to come.
        staging: Where they are fetched to.
        target: The directory that they will go to.
        experiment: Whose they are.
        with_config: Whether a keepsake.yaml that is there may be overwritten.
        candidates: Files that are to go where the version does not hold them.

    Attributes:
        new: Names of files that are not there yet, relative to the target, sorted.
        changed: Files that are there with other content, which will be overwritten.
        identical: Files that are there already.
        kept: Files that are there with other content and stay: a checkout puts back an old keepsake.yaml, which may make the
            directory point at another repository, only if asked.
        deleted: Files that will be removed: of the candidates, and those in whose place a directory is to come.
    """

    def __init__(
        self,
        version: Version,
        staging: Staging,
        target: Path,
        experiment: Experiment,
        *,
        with_config: bool = False,
        candidates: Iterable[str] = (),
    ) -> None:
        self._version = version
        self._staging = staging
        self._experiment = experiment
        self.target = target
        self.new: list[str] = []
        self.changed: list[str] = []
        self.identical: list[str] = []
        self.kept: list[str] = []
        self.deleted: list[str] = sorted(name for name in candidates if name not in version.files)
        self._stamps: dict[str, tuple[int, ...] | None] = {}
        for file in version.files.values():
            self._sort_in(file, with_config=with_config)
        self.deleted.sort()
        for name in [*self.new, *self.changed, *self.deleted]:
            self._stamps[name] = places.stamp_of(target / name)

    def _sort_in(self, file: VersionFile, *, with_config: bool) -> None:
        name, path = file.name, self.target / file.name
        places.refuse_links(self.target, name)
        if os.path.lexists(path) and places.kind_of(path.lstat().st_mode) == "other":
            raise UnsavedFiles(
                f"{path} is neither a file nor a directory", hint="move it out of the way, or choose another directory with -o"
            )
        in_the_way = next((parent for parent in places.parents_of(name) if (self.target / parent).is_file()), None)
        if in_the_way is not None:
            self.new.append(name)
            if in_the_way not in self.deleted:
                self.deleted.append(in_the_way)
        elif not os.path.lexists(path):
            self.new.append(name)
        elif _is_there(file, path):
            self.identical.append(name)
        elif path.is_dir() and not path.is_symlink():
            self._require_empty(name, path)
            self.new.append(name)
        elif name in CONFIG_FILE_NAMES and not with_config:
            self.kept.append(name)
        else:
            self.changed.append(name)

    def _require_empty(self, name: str, directory: Path) -> None:
        left = [inner for inner in walk(directory) if f"{name}/{inner}" not in self.deleted and not (directory / inner).is_dir()]
        if left:
            raise UnsavedFiles(
                f"{directory} is a directory, and a file in the version that is to come",
                facts=[f"it holds {left[0]}" + (f" and {len(left) - 1} more" if len(left) > 1 else "")],
                hint="move it out of the way, or choose another directory with -o",
            )

    @cached_property
    def saved(self) -> dict[str, Place]:
        """Where else the contents lie that will be overwritten or removed; those of unsaved files lie nowhere else."""
        with _readable():
            return places_of([*self.changed, *self.deleted], self.target, self._experiment)

    @property
    def unsaved(self) -> list[str]:
        """Files that will be overwritten or removed, and whose content is saved nowhere else."""
        return [name for name in [*self.changed, *self.deleted] if name not in self.saved]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.new or self.changed or self.deleted)

    def apply(
        self,
        *,
        undo: Path | None = None,
        backup: bool = False,
        source: str = "",
        progress: Callable[[int], Callable[[int], None]] | None = None,
    ) -> None:
        """Fetch the new and the changed files and move them into place.

        Args:
            undo: A directory that does not exist yet, to keep there what `Undo` needs; None keeps nothing.
            backup: Whether to copy there what will be overwritten or removed.
            source: What is brought back, for people.
            progress: Called with the number of bytes that will be fetched; what it returns is called with how many more have been.

        Raises:
            ReadError: An archive is missing, damaged or unsafe.
            UnsavedFiles: A file has been changed since the plan was made.
            WriteError: A file could not be written; those before it are in place.
        """
        if self.is_empty:
            return
        names = [*self.new, *self.changed]
        fetched = self._version.fetch(names, self._staging, progress)
        for name in self._stamps:
            self._require_unchanged(name)
        done = 0
        try:
            self.target.mkdir(parents=True, exist_ok=True)
            if undo is not None:
                self._keep(undo, list(self._changes()), backup=backup, source=source)
            for name in self.deleted:
                self._require_unchanged(name)
                places.remove(self.target, name)
            for name in names:
                self._put(name, fetched[name])
                done += 1
        except KeepsakeError:
            # Some of them are errors of the system as well.
            raise
        except OSError as err:
            reached = [f"{done} of {len(names)} files are in place; run it again to go on"] if done else []
            raise write_error(err, self.target, facts=reached) from err

    def _keep(self, undo: Path, changes: list[Change], *, backup: bool, source: str) -> None:
        try:
            Undo.keep(undo, self.target, changes, backup=backup, source=source)
        except WriteError as err:
            if backup:
                raise
            # All that would be overwritten is saved elsewhere, or was given up.
            messages.warning(f"{err.message}; this checkout cannot be undone")

    def _changes(self) -> Iterator[Change]:
        for name in self.deleted:
            yield Change(name, places.state_of(self.target / name), None, self.saved.get(name))
        for name in self.changed:
            now = self._version.files[name].state()
            yield Change(name, places.state_of(self.target / name), now, self.saved.get(name))
        for name in self.new:
            yield Change(name, None, self._version.files[name].state(), None)

    def _put(self, name: str, fetched: Path) -> None:
        places.refuse_links(self.target, name)
        self._require_unchanged(name)
        if not os.path.lexists(fetched):
            raise ReadError(f"{name} is not in {self._version.files[name].source.label}, although its index names it")
        places.put(fetched, self.target / name)

    def _require_unchanged(self, name: str) -> None:
        if places.stamp_of(self.target / name) != self._stamps[name]:
            raise UnsavedFiles(f"{self.target / name} has been changed meanwhile", hint="run it again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._staging.close()


def plan_checkout(
    experiment: Experiment,
    checkpoint: Checkpoint | None,
    target: Path,
    *,
    path: str | os.PathLike[str] | None = None,
    code: bool = True,
    delete: bool = False,
    with_config: bool = False,
) -> CheckoutPlan:
    """Compare the files of an experiment and a checkpoint with what is in a directory, which stays as it is.

    Where both hold a file of one name, the checkpoint's is taken. Indexes of archives tell what they hold, so nothing is fetched
    yet, but for archives of keepsake 0.4.2, which have none.

    Args:
        experiment: Whose code to take.
        checkpoint: Whose files to take; None for none.
        target: The directory; it need not exist.
        path: Only this file or directory.
        code: Whether to take the experiment's code.
        delete: Whether files are to go that are not in the version: those that would be saved where the version was.
        with_config: Whether to put back the saved keepsake.yaml over the one that is there.

    Raises:
        DoesNotExist: Nothing was saved, or not this path.
        ReadError: An archive is missing, damaged or unsafe.
        UnsavedFiles: Something that is not a plain file is in the way.
        WriteError: There is no room for what has to be fetched.
    """
    target = target.expanduser().absolute()
    if target.exists() and not target.is_dir():
        raise UnsavedFiles(f"{target} is a file, not a directory", hint="choose another directory with -o")
    staging = Staging(target)
    try:
        only = os.path.normpath(os.fspath(path)) if path is not None else None
        version = Version.of(experiment, checkpoint, staging, only=only, code=code)
        candidates = set(_others(experiment, checkpoint, target, only, code=code)) if delete else set()
        with _readable():
            return CheckoutPlan(version, staging, target, experiment, with_config=with_config, candidates=candidates)
    except BaseException:
        staging.close()
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


@contextmanager
def _readable() -> Iterator[None]:
    """Name the file of the person's that cannot be compared."""
    try:
        yield
    except KeepsakeError:
        # Some of them are errors of the system as well.
        raise
    except OSError as err:
        raise ReadError(f"cannot read {err.filename}: {err.strerror or err}", hint="choose another directory with -o") from err


def _is_there(file: VersionFile, path: Path) -> bool:
    status = path.lstat()
    kind = places.kind_of(status.st_mode)
    if kind != file.kind:
        return False
    if kind == "link":
        return str(path.readlink()) == file.link_target
    if kind == "directory":
        return True
    if status.st_size != file.size_bytes or places.is_executable(status.st_mode) != file.is_executable:
        return False
    if file.staged is not None:
        return filecmp.cmp(file.staged, path, shallow=False)
    return file.digests is not None and file.digests.fit(path)


def _others(
    experiment: Experiment, checkpoint: Checkpoint | None, target: Path, only: str | None, *, code: bool
) -> Iterator[str]:
    """Yield what would be saved if the same paths were saved now; a keepsake.yaml never goes."""
    paths = [experiment.path] if code else []
    paths += [checkpoint.path] if checkpoint is not None else []
    root = experiment.repository.local_root
    for path in filter(None, paths):
        # What is not there, or is not in the directory, was saved from elsewhere.
        with suppress(FileNotFoundError, ValueError):
            for entry in capture.project_files(target, path, exclude=[root] if root is not None else []):
                is_wanted = only in (None, ".", entry.name) or entry.name.startswith(f"{only}/")
                if entry.kind != "directory" and entry.name not in CONFIG_FILE_NAMES and is_wanted:
                    yield entry.name
