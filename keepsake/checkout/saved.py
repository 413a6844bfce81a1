"""Where else the content of a file lies: in Git's HEAD, or in an archive of this repository. What lies nowhere else is unsaved work.

Only a few archives are asked, by their indexes, so that the question stays cheap in a repository of any size: see `_archives`.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keepsake.capture.git import Git
from keepsake.checkout.version import Source
from keepsake.exceptions import KeepsakeError
from keepsake.repository import layout
from keepsake.repository.archive import Digests

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from keepsake.experiment import Experiment
    from keepsake.repository.archive import ArchivedFile
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord
    from keepsake.repository.repository import Repository

GIT_TIMEOUT_S = 30.0
"""Longest time that Git may take; what it has not answered by then counts as not saved there."""

OWN_CHECKPOINTS = 10
"""How many of the latest checkpoints of the experiment itself are looked into."""

RECENT_EXPERIMENTS = 5
"""How many of the latest experiments of this machine are looked into: code, best and latest checkpoint of each."""

RECORDS_READ = 20
"""How many of the latest records are read to find those of this machine."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a content lies.

    Args:
        git: ID of Git's object.
        archive: Key of the archive that holds it under the same name.
        label: What to call it, such as ``Git HEAD``.
    """

    label: str
    git: str | None = None
    archive: str | None = None


def places_of(names: Iterable[str], directory: Path, experiment: Experiment) -> dict[str, Place]:
    """Return where else the contents of files lie, under the same names; what lies nowhere is left out.

    Args:
        names: The files, relative to the directory.
        directory: The directory.
        experiment: The experiment that is about to be brought back.
    """
    wanted = list(names)
    found = _in_git(wanted, directory)
    missing = [name for name in wanted if name not in found]
    return found | (_in_archives(missing, directory, experiment) if missing else {})


# --- Git --------------------------------------------------------------------------------------------------------------


def _in_git(names: list[str], directory: Path) -> dict[str, Place]:
    git = Git.at(directory, timeout_s=GIT_TIMEOUT_S)
    # Git reads one name a line.
    asked = [name for name in names if "\n" not in name]
    if git is None or not asked:
        return {}
    lines = b"".join(b"HEAD:./%s\n" % os.fsencode(name) for name in asked)
    status, answers = git.exchange("cat-file", "--batch-check=%(objectname) %(objecttype)", input=lines)
    if status != 0:
        return {}
    found = {}
    for name, answer in zip(asked, answers.decode(errors="replace").splitlines(), strict=False):
        id, _, kind = answer.partition(" ")
        if kind == "blob" and _has_git_id(directory / name, id):
            found[name] = Place("Git HEAD", git=id)
    return found


def _has_git_id(path: Path, id: str) -> bool:
    """Tell whether Git would give a content this ID, to the byte: without the conversions that a repository may ask for."""
    digest = hashlib.sha1(usedforsecurity=False) if len(id) == 40 else hashlib.sha256()
    if path.is_symlink():
        target = os.fsencode(path.readlink())
        digest.update(b"blob %d\0%s" % (len(target), target))
    else:
        with path.open("rb") as file:
            digest.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    return digest.hexdigest() == id


def read_git(directory: Path, id: str) -> bytes | None:
    """Return an object of Git's; None where it is not there any more."""
    git = Git.at(directory, timeout_s=GIT_TIMEOUT_S)
    status, content = git.exchange("cat-file", "blob", id) if git is not None else (None, b"")
    return content if status == 0 else None


# --- keepsake ---------------------------------------------------------------------------------------------------------


def _in_archives(names: list[str], directory: Path, experiment: Experiment) -> dict[str, Place]:
    found: dict[str, Place] = {}
    known: dict[tuple[str, int | None], Digests] = {}
    for source in _archives(experiment):
        if len(found) == len(names):
            break
        # Whether something is saved must not depend on an archive that was deleted meanwhile, or that is damaged.
        with suppress(KeepsakeError):
            held = {entry.path: entry for entry in experiment.repository.archives.files(source.key)}
            for name in names:
                if name not in found and name in held and _is_same(held[name], name, directory, known):
                    found[name] = Place(source.label, archive=source.key)
    return found


def _is_same(entry: ArchivedFile, name: str, directory: Path, known: dict[tuple[str, int | None], Digests]) -> bool:
    path = directory / name
    if path.is_symlink() or entry.kind != "file":
        return path.is_symlink() and entry.kind == "link" and str(path.readlink()) == entry.link_target
    if entry.digests is None or path.stat().st_size != entry.size_bytes:
        return False
    asked = name, entry.digests.section_bytes
    if asked not in known:
        known[asked] = Digests.of(path, entry.digests.section_bytes)
    return known[asked] == entry.digests


def _archives(experiment: Experiment) -> Iterator[Source]:
    """Yield the archives that a file in a project may well come from, the likely ones first, each once."""
    seen: set[str] = set()
    for source in _likely(experiment):
        # Without an index all of it would have to be read.
        if source.has_index and source.key not in seen:
            seen.add(source.key)
            yield source


def _likely(experiment: Experiment) -> Iterator[Source]:
    yield from _sources_of(experiment.record, experiment.record.checkpoints[: -OWN_CHECKPOINTS - 1 : -1])
    for record in _recent(experiment.repository):
        yield from _sources_of(record, [record.latest()])


def _sources_of(record: ExperimentRecord, checkpoints: Iterable[CheckpointRecord | None]) -> Iterator[Source]:
    yield Source.code(record)
    yield from (Source.weights(checkpoint) for checkpoint in [record.best(), *checkpoints] if checkpoint is not None)


def _recent(repository: Repository) -> Iterator[ExperimentRecord]:
    """Yield the experiments of this machine whose records were written last, told by one listing."""
    here = os.environ.get("KEEPSAKE_HOST") or platform.node()
    ages = {info.key: info.age_s for info in repository.storage.list(layout.RECORDS_PREFIX)}
    left = RECENT_EXPERIMENTS
    for key in heapq.nsmallest(RECORDS_READ, ages, key=lambda key: ages[key]):
        id = layout.id_of_json_key(key)
        if id is None or not left:
            continue
        with suppress(KeepsakeError):
            record = repository.load(id)
            if record.host in (here, ""):
                left -= 1
                yield record
