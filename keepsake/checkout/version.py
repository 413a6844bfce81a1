"""What is to be brought back: the files of an experiment's code and of a checkpoint, told by the indexes of their archives."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keepsake.checkout.places import Kind, State, file_stamp, is_executable, kind_of, parents_of
from keepsake.checkout.staging import walk
from keepsake.exceptions import DoesNotExist, ReadError
from keepsake.repository import layout
from keepsake.storage.disk import no_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from keepsake.checkout.staging import Staging
    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment
    from keepsake.repository.archive import Digests
    from keepsake.repository.records import ArchiveInfo, CheckpointRecord, ExperimentRecord
    from keepsake.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Source:
    """An archive that files come from.

    Args:
        id: Of the experiment or the checkpoint.
        key: Where the archive lies.
        label: What it is called, such as ``checkpoint da0f8f6``.
        announced: What the record says of it.
    """

    id: str
    key: str
    label: str
    announced: ArchiveInfo | None

    @classmethod
    def code(cls, record: ExperimentRecord) -> Source:
        """Return where an experiment's code lies."""
        return cls(
            record.id, layout.experiment_archive_key(record.id), f"experiment {layout.short_id(record.id)}", record.archive
        )

    @classmethod
    def weights(cls, record: CheckpointRecord) -> Source:
        """Return where a checkpoint's files lie."""
        return cls(
            record.id, layout.checkpoint_archive_key(record.id), f"checkpoint {layout.short_id(record.id)}", record.archive
        )

    @property
    def has_index(self) -> bool:
        """Whether it can be listed without reading all of it; keepsake 0.4.2 wrote no indexes."""
        return self.announced is not None and self.announced.index_sha256 is not None


@dataclass(frozen=True, slots=True)
class VersionFile:
    """One thing that is to be brought back.

    Args:
        name: Its name, relative to the directory that it goes to.
        source: The archive that holds it.
        kind: What it is.
        size_bytes: Its length; 0 for links and directories.
        is_executable: Whether the owner may execute it.
        digests: Of its content; None where the archive has no index.
        link_target: Where a link points to.
        staged: Where it lies, if it had to be fetched to be known.
    """

    name: str
    source: Source
    kind: Kind
    size_bytes: int
    is_executable: bool
    digests: Digests | None
    link_target: str | None
    staged: Path | None = None

    def state(self) -> State:
        """Return what will stand where it goes to."""
        if self.kind != "file":
            return State(self.kind, link_target=self.link_target)
        # To read it only for a digest would take as long as fetching it did.
        stamp = file_stamp(self.staged) if self.digests is None and self.staged is not None else None
        return State("file", self.is_executable, self.digests, stamp=stamp)


class Version:
    """The files of an experiment's code and a checkpoint; where both hold one of a name, it is the checkpoint's.

    Args:
        repository: Where they lie.
        files: By name.
    """

    def __init__(self, repository: Repository, files: dict[str, VersionFile]) -> None:
        self._repository = repository
        self.files = dict(sorted(files.items()))

    @classmethod
    def of(
        cls, experiment: Experiment, checkpoint: Checkpoint | None, staging: Staging, *, only: str | None, code: bool
    ) -> Version:
        """List what is to be brought back.

        Args:
            experiment: Whose code to take.
            checkpoint: Whose files to take; None for none.
            staging: Where to fetch files that cannot be listed otherwise.
            only: The one file or directory wanted.
            code: Whether to take the experiment's code.

        Raises:
            DoesNotExist: Nothing was saved, or not this path.
            ReadError: An archive is missing, damaged or not stored yet.
        """
        sources = list(_sources(experiment, checkpoint, code=code))
        if not sources:
            raise DoesNotExist(
                f"experiment {experiment.short_id()} has no saved files: neither init() nor checkpoint() was given a path"
            )
        files: dict[str, VersionFile] = {}
        missing: list[DoesNotExist] = []
        for source in sources:
            try:
                files = _laid_over(files, _files_of(experiment.repository, source, staging, only))
            except DoesNotExist as err:
                missing.append(err)
        if len(missing) == len(sources):
            raise missing[-1]
        return cls(experiment.repository, files)

    def fetch(
        self, names: Iterable[str], staging: Staging, progress: Callable[[int], Callable[[int], None]] | None
    ) -> dict[str, Path]:
        """Fetch files, and return where they lie now.

        Args:
            names: Which.
            staging: Where to.
            progress: Called with the number of bytes that will be fetched; what it returns is called with how many more have been.

        Raises:
            ReadError: An archive is missing or damaged.
            WriteError: There is no room for them.
        """
        wanted = [self.files[name] for name in names]
        there = {file.name: file.staged for file in wanted if file.staged is not None}
        missing = [file for file in wanted if file.staged is None]
        size_bytes = sum(file.size_bytes for file in missing)
        _require_room(staging.place, size_bytes)
        fetched = progress(size_bytes) if progress is not None and size_bytes else None
        for source in dict.fromkeys(file.source for file in missing):
            part = staging.part(source.id)
            among = {file.name for file in missing if file.source == source}
            self._repository.archives.extract(source.key, part, among=among, announced=source.announced, on_progress=fetched)
            for name in among:
                there[name] = part / name
        return there


def _sources(experiment: Experiment, checkpoint: Checkpoint | None, *, code: bool) -> Iterator[Source]:
    if code and experiment.path is not None:
        _require_stored(experiment, experiment.record)
        yield Source.code(experiment.record)
    if checkpoint is not None and checkpoint.record.has_files:
        _require_stored(experiment, checkpoint.record)
        yield Source.weights(checkpoint.record)


def _require_stored(experiment: Experiment, record: ExperimentRecord | CheckpointRecord) -> None:
    experiment.wait_for_files(record)
    if record.archive_pending:
        raise ReadError(
            f"the files of {layout.short_id(record.id)} are not stored yet, or the process that saved them died before they were"
        )


def _files_of(repository: Repository, source: Source, staging: Staging, only: str | None) -> Iterable[VersionFile]:
    if source.has_index:
        return [
            VersionFile(
                entry.path, source, entry.kind, entry.size_bytes, is_executable(entry.mode), entry.digests, entry.link_target
            )
            for entry in repository.archives.files(source.key, only=only)
        ]
    part = staging.part(source.id)
    repository.archives.extract(source.key, part, only=only, announced=source.announced)
    return [_staged_file(name, source, part / name) for name in walk(part)]


def _staged_file(name: str, source: Source, path: Path) -> VersionFile:
    status = path.lstat()
    kind = kind_of(status.st_mode)
    size_bytes = status.st_size if kind == "file" else 0
    link_target = str(path.readlink()) if kind == "link" else None
    return VersionFile(name, source, kind, size_bytes, is_executable(status.st_mode), None, link_target, path)


def _laid_over(files: dict[str, VersionFile], upper: Iterable[VersionFile]) -> dict[str, VersionFile]:
    """Put what one archive holds over what another one does; nothing stays below a file or above a directory's content."""
    above = {file.name: file for file in upper}
    directories = {parent for name in above for parent in parents_of(name)}
    hidden = {name for name, file in above.items() if file.kind != "directory"}
    left = {
        name: file
        for name, file in files.items()
        if name not in directories and name not in above and not any(parent in hidden for parent in parents_of(name))
    }
    occupied = directories | {parent for name in left for parent in parents_of(name)}
    return left | {name: file for name, file in above.items() if file.kind != "directory" or name not in occupied}


def _require_room(place: Path, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(place).free
    if size_bytes > free_bytes:
        raise no_space(place, size_bytes, free_bytes)
