"""Saved files as local ones: fetched into the user's cache directory once, for all processes, and kept while there is room."""

from __future__ import annotations

import math
import os
import posixpath
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from keepsake import messages
from keepsake.checkout.kept import WHOLE, KeptFiles, normal_name
from keepsake.checkout.staging import Staging
from keepsake.exceptions import ConfigInvalid, KeepsakeError, ReadError, WriteError
from keepsake.query.literals import size_bytes
from keepsake.repository import layout
from keepsake.repository.cache import cache_directory, cache_place
from keepsake.storage.disk import size_text, write_error
from keepsake.storage.locks import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keepsake.repository.records import CheckpointRecord
    from keepsake.repository.repository import Repository

DIRECTORY_SUFFIX = "files"
"""What the directory of a repository's files in the cache ends with."""

DEFAULT_SIZE = "10 GB"
"""How much is kept unless ``KEEPSAKE_CACHE_SIZE`` says otherwise: several checkpoints of a model of a few hundred million parameters, and
less than a tenth of a small laptop's disk."""

PATIENCE_S = 1.0
"""How long somebody else may fetch the same checkpoint before people are told what is waited for."""

GUARD_PATIENCE_S = 10.0
"""How long to wait for somebody who hands out a path or makes room, which takes milliseconds."""

WORTH_ANNOUNCING_BYTES = 100_000_000
"""Size of an archive from which on people are told that something of it is fetched."""

MAX_LINKS = 16
"""How many links one after the other are followed."""


def cached_path(repository: Repository, record: CheckpointRecord, path: str | os.PathLike[str]) -> Path:
    """Return a local copy of a saved file or directory, fetched and checked first where there is none.

    Args:
        repository: Where it was saved.
        record: The checkpoint, which has files.
        path: Its path as it was saved; ``"."`` is all that was.

    Returns:
        An absolute path. The file stays until the cache needs room; see `keepsake.checkout.kept` for what is never removed.

    Raises:
        DoesNotExist: No such file was saved.
        ReadError: The archive is missing, damaged, or not what the record says.
        WriteError: The cache cannot be written.
        ConfigInvalid: ``KEEPSAKE_CACHE_SIZE`` is no size.
    """
    limit_bytes = _limit_bytes()
    kept = KeptFiles(cache_place(repository.storage.url, DIRECTORY_SUFFIX).absolute() / record.id)
    name = normal_name(path)
    for _ in range(MAX_LINKS):
        found = _handed_out(kept, name) or _fetched(repository, record, kept, name, limit_bytes)
        if not found.is_symlink() or found.exists():
            return found
        # Only the link itself has been fetched.
        name = posixpath.normpath(posixpath.join(posixpath.dirname(name), found.readlink().as_posix()))
    raise ReadError(f'"{path}" of checkpoint {layout.short_id(record.id)} is a link that leads to no file')


def _handed_out(kept: KeptFiles, name: str) -> Path | None:
    """Return what is here already, and keep it from being removed."""
    with _guard():
        found = kept.find(name)
        if found is not None:
            kept.use()
    return found


def _fetched(repository: Repository, record: CheckpointRecord, kept: KeptFiles, name: str, limit_bytes: float) -> Path:
    with _explained(cache_directory()):
        kept.place.mkdir(parents=True, exist_ok=True)
        with _guard():
            # Before anything lies there, so that nobody removes it while it comes.
            kept.use()
        with _alone(kept, record):
            found = _handed_out(kept, name)
            if found is not None:
                return found
            _fetch(repository, record, kept, name)
            found = _handed_out(kept, name)
        _make_room(limit_bytes)
    if found is None:
        raise WriteError(f"what was fetched into {kept.place} has vanished", url=f"file://{kept.place}")
    return found


def _fetch(repository: Repository, record: CheckpointRecord, kept: KeptFiles, name: str) -> None:
    if record.archive is None or record.archive.size_bytes >= WORTH_ANNOUNCING_BYTES:
        what = "all files" if name == WHOLE else name
        messages.info(f"fetching {what} of checkpoint {layout.short_id(record.id)} into {cache_directory()}")
    key = layout.checkpoint_archive_key(record.id)
    only = None if name == WHOLE else name
    missing = None
    if kept.last_used() and record.archive is not None and record.archive.index_sha256 is not None:
        entries = repository.archives.files(key, only=only)
        missing = [entry.path for entry in entries if entry.kind == "directory" or not kept.holds([entry.path])]
    staging = Staging(cache_directory().absolute())
    try:
        staged = staging.part("fetched")
        names = repository.archives.extract(key, staged, only=only, among=missing, announced=record.archive)
        kept.add(staged, names, name)
    finally:
        staging.close()


@contextmanager
def _alone(kept: KeptFiles, record: CheckpointRecord) -> Iterator[None]:
    """Fetch a checkpoint while nobody else does: who waits finds what they want when it is their turn."""
    lock = ProcessLock(kept.place.with_name(f"{kept.place.name}.lock"))
    if not lock.acquire(wait_s=PATIENCE_S):
        messages.info(f"waiting for checkpoint {layout.short_id(record.id)}, which is being fetched already")
        lock.acquire(wait_s=math.inf)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _guard() -> Iterator[None]:
    """Keep apart, for a moment, who hands out a path and who removes files: what has just been handed out must not vanish."""
    lock = ProcessLock(cache_directory() / "files.lock")
    with suppress(OSError):
        # Where it cannot be made, nothing can be removed either.
        lock.acquire(wait_s=GUARD_PATIENCE_S)
    try:
        yield
    finally:
        lock.release(remove=False)


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Say of a cache that cannot be written what to do about it."""
    hint = "KEEPSAKE_CACHE_DIR names another directory for caches; checkpoint.open() needs none"
    try:
        yield
    except WriteError as err:
        err.hint = err.hint or hint
        raise
    except KeepsakeError:
        raise
    except OSError as err:
        raise write_error(err, place, hint=hint) from err


# --- room -------------------------------------------------------------------------------------------------------------


def _limit_bytes() -> float:
    text = os.environ.get("KEEPSAKE_CACHE_SIZE", "").strip() or DEFAULT_SIZE
    try:
        return size_bytes(text)
    except ValueError as err:
        raise ConfigInvalid(
            f'KEEPSAKE_CACHE_SIZE is "{text}", which is no size', hint=f'export KEEPSAKE_CACHE_SIZE="{DEFAULT_SIZE}"'
        ) from err


def _make_room(limit_bytes: float) -> None:
    """Remove what was used longest ago and nobody uses now, until the rest is small enough."""
    directory = cache_directory().absolute()
    staging = Staging(directory)
    try:
        with _guard():
            places = [place for place in directory.glob(f"*.{DIRECTORY_SUFFIX}/*") if layout.is_id(place.name)]
            copies = sorted(
                ((kept.last_used(), kept.size_bytes(), kept) for kept in map(KeptFiles, places)), key=lambda one: one[:2]
            )
            total_bytes = sum(size for _, size, _ in copies)
            for used, size, kept in copies:
                # Where nothing is whole, a process was killed while it fetched, or asked for what there is not.
                if (total_bytes > limit_bytes or not used) and not kept.is_used():
                    with suppress(OSError):
                        kept.place.replace(staging.part("removed") / kept.place.name)
                        total_bytes -= size
    finally:
        staging.close()
    if total_bytes > limit_bytes:
        messages.warn_once(
            "the size of the cache",
            f"{directory} holds {size_text(total_bytes)} of files in use, more than KEEPSAKE_CACHE_SIZE ({size_text(limit_bytes)});"
            " to pass over many checkpoints use checkpoint.open(), which keeps nothing",
        )
