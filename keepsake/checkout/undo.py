"""Bringing back what was in a directory before a checkout.

Each checkout writes down what it changes, in ``.keepsake/undo/<time>/undo.json`` of the project. What it overwrites is copied there only
with a backup. What lies in Git or in an archive is not kept twice: it is read back from there.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepsake.checkout import places
from keepsake.checkout.places import State
from keepsake.checkout.saved import Place, read_git
from keepsake.exceptions import DoesNotExist, KeepsakeError, ObjectNotFound, ReadError
from keepsake.repository.archive import Digests
from keepsake.storage.disk import write_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keepsake.repository.repository import Repository

UNDO = Path(".keepsake") / "undo"
"""Where it is kept, below the project directory."""

KEPT = 10
"""How many of the last checkouts without a backup can be undone."""

LEFT_BEHIND_S = 24 * 3600.0
"""Age at which a backup without its record counts as left behind, in seconds."""

_RECORD_NAME = "undo.json"
_FILES_NAME = "files"


@dataclass(frozen=True, slots=True)
class Change:
    """What a checkout does to one file.

    Args:
        name: Its name, relative to the target.
        was: What stood there; None for nothing.
        now: What stands there afterwards; None for nothing.
        place: Where else the old content lies.
    """

    name: str
    was: State | None
    now: State | None
    place: Place | None


@dataclass
class UndoPlan:
    """What an undo does.

    Attributes:
        restored: Files whose old content comes back.
        removed: Files that the checkout made.
        changed: Files that somebody has changed since the checkout; they stay.
        lost: Files whose old content is not to be had any more; they stay.
    """

    restored: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def undo_place(project_directory: Path) -> Path:
    """Return a directory for the undo of a checkout made now; it does not exist yet."""
    place = project_directory / UNDO / datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
    number, free = 2, place
    while free.exists():
        free, number = place.with_name(f"{place.name}.{number}"), number + 1
    return free


class Undo:
    """A checkout that can be undone.

    Args:
        directory: Where it was written down.
        raw: What was.
    """

    def __init__(self, directory: Path, raw: dict[str, Any]) -> None:
        self.directory = directory
        self.target = Path(raw["target"])
        self.created = datetime.fromisoformat(raw["created"])
        self.source: str = raw["source"]
        self._changes = [_change_of(item) for item in raw["changes"]]

    @classmethod
    def keep(cls, directory: Path, target: Path, changes: Sequence[Change], *, backup: bool, source: str) -> None:
        """Write down what a checkout is about to do, before it does it.

        Args:
            directory: Where; it does not exist yet.
            target: Where the checkout goes to.
            changes: What it does.
            backup: Whether to copy what it overwrites and removes.
            source: What is checked out, for people.

        Raises:
            WriteError: It cannot be written; nothing has been changed.
        """
        try:
            _make(directory)
            if backup:
                for change in changes:
                    if change.was is not None:
                        places.copy_durably(target / change.name, directory / _FILES_NAME / change.name)
            raw = {
                "created": datetime.now().astimezone().isoformat(),
                "target": str(target),
                "source": source,
                "changes": [asdict(change) for change in changes],
            }
            temporary = directory / f"{_RECORD_NAME}~"
            # ASCII escapes carry names that are not Unicode.
            temporary.write_text(json.dumps(raw, indent=1), encoding="ascii")
            temporary.replace(directory / _RECORD_NAME)
        except OSError as err:
            shutil.rmtree(directory, ignore_errors=True)
            raise write_error(err, directory) from err
        _forget_old(directory.parent)

    @classmethod
    def latest(cls, project_directory: Path, target: Path | None = None) -> Undo:
        """Return the last checkout that has not been undone.

        Args:
            project_directory: The project.
            target: Only of those into this directory.

        Raises:
            DoesNotExist: There is none.
        """
        found = [undo for undo in _all_in(project_directory / UNDO) if target is None or undo.target == target]
        if not found:
            into = f" into {target}" if target is not None else ""
            raise DoesNotExist(f"no checkout{into} to undo", facts=[f"looked in {project_directory / UNDO}"])
        return max(found, key=lambda undo: undo.created)

    @property
    def has_backup(self) -> bool:
        """Whether what was overwritten was copied."""
        return (self.directory / _FILES_NAME).is_dir()

    def apply(self, repository: Repository, *, force: bool = False, dry_run: bool = False) -> UndoPlan:
        """Bring back what was there, and remove what was not.

        Args:
            repository: Where archives lie.
            force: Whether to do so with files too that were changed since.
            dry_run: Only find out what would be done.

        Raises:
            StorageError: The repository cannot be read for the moment.
            WriteError: A file cannot be written.
        """
        plan = UndoPlan()
        try:
            # What was new goes first: it may stand where a directory was, or the other way round.
            for change in sorted(self._changes, key=lambda change: change.was is not None):
                self._undo(change, plan, repository, force=force, dry_run=dry_run)
        except KeepsakeError:
            # Some of them are errors of the system as well.
            raise
        except OSError as err:
            raise write_error(err, self.target) from err
        if not (dry_run or plan.changed or (plan.lost and self.has_backup)):
            shutil.rmtree(self.directory, ignore_errors=True)
        return plan

    def _undo(self, change: Change, plan: UndoPlan, repository: Repository, *, force: bool, dry_run: bool) -> None:
        places.refuse_links(self.target, change.name)
        path = self.target / change.name
        if _stands(change.was, path):
            return
        if change.was is None and change.now is not None and change.now.kind == "directory":
            # It is no matter whether an empty directory stays.
            with suppress(OSError):
                if not dry_run:
                    path.rmdir()
        elif not _stands(change.now, path) and (not force or (path.is_dir() and not path.is_symlink())):
            plan.changed.append(change.name)
        elif change.was is None:
            plan.removed.append(change.name)
            if not dry_run:
                places.remove(self.target, change.name)
        elif dry_run:
            (plan.restored if self._is_kept(change) else plan.lost).append(change.name)
        else:
            self._restore(change, change.was, plan, repository)

    def _is_kept(self, change: Change) -> bool:
        """Tell whether the old content is to be had, as far as that can be told without reading it."""
        is_link = change.was is not None and change.was.kind == "link"
        return is_link or change.place is not None or os.path.lexists(self.directory / _FILES_NAME / change.name)

    def _restore(self, change: Change, was: State, plan: UndoPlan, repository: Repository) -> None:
        fetched = self.directory / "restored"
        try:
            if not self._fetch(change, was, fetched, repository):
                plan.lost.append(change.name)
                return
            places.put(fetched, self.target / change.name)
            plan.restored.append(change.name)
        finally:
            fetched.unlink(missing_ok=True)

    def _fetch(self, change: Change, was: State, fetched: Path, repository: Repository) -> bool:
        """Put the old content into a file of our own; return False where it is not to be had."""
        fetched.unlink(missing_ok=True)
        backup = self.directory / _FILES_NAME / change.name
        if was.kind == "link":
            fetched.symlink_to(was.link_target or "")
        elif os.path.lexists(backup):
            places.copy_durably(backup, fetched)
        elif change.place is None or not self._read_back(change, change.place, fetched, repository):
            return False
        if was.kind == "file":
            mode = fetched.stat().st_mode
            fetched.chmod(mode | 0o100 if was.is_executable else mode & ~0o111)
        return was.fits(fetched)

    def _read_back(self, change: Change, place: Place, fetched: Path, repository: Repository) -> bool:
        if place.git is not None:
            content = read_git(self.target, place.git)
            if content is None:
                return False
            fetched.write_bytes(content)
            return True
        try:
            with repository.archives.open_file(place.archive or "", change.name) as file, fetched.open("xb") as copy:
                shutil.copyfileobj(file, copy)
        except (DoesNotExist, ObjectNotFound, ReadError):
            return False
        return True


def _all_in(place: Path) -> Iterator[Undo]:
    for record in place.glob(f"*/{_RECORD_NAME}"):
        # One that is damaged cannot be undone.
        with suppress(OSError, ValueError, KeyError, TypeError):
            yield Undo(record.parent, json.loads(record.read_bytes()))


def _change_of(raw: dict[str, Any]) -> Change:
    was, now, place = raw["was"], raw["now"], raw["place"]
    return Change(
        raw["name"],
        _state_of(was) if was is not None else None,
        _state_of(now) if now is not None else None,
        Place(**place) if place is not None else None,
    )


def _state_of(raw: dict[str, Any]) -> State:
    digests, stamp = raw["digests"], raw["stamp"]
    return State(
        raw["kind"],
        raw["is_executable"],
        Digests(tuple(digests["sha256"]), digests["section_bytes"]) if digests is not None else None,
        raw["link_target"],
        tuple(stamp) if stamp is not None else None,
    )


def _stands(state: State | None, path: Path) -> bool:
    return not os.path.lexists(path) if state is None else state.fits(path)


def _make(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    ignore = directory.parent / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="ascii")
    directory.mkdir()


def _forget_old(place: Path) -> None:
    old = sorted((undo for undo in _all_in(place) if not undo.has_backup), key=lambda undo: undo.created)[:-KEPT]
    for directory in [*(undo.directory for undo in old), *_unfinished(place)]:
        shutil.rmtree(directory, ignore_errors=True)


def _unfinished(place: Path) -> Iterator[Path]:
    """Yield backups that broke off before they were whole, and so before anything was overwritten."""
    for directory in place.iterdir():
        with suppress(OSError):
            is_unfinished = directory.is_dir() and not (directory / _RECORD_NAME).exists()
            if is_unfinished and time.time() - directory.stat().st_mtime > LEFT_BEHIND_S:
                yield directory
