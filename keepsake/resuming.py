"""Going on with an experiment after its process has ended: which one that is, and the files to go on from."""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from keepsake import messages
from keepsake.exceptions import DoesNotExist, ReadError, StorageUnavailable, WriteError
from keepsake.query import references
from keepsake.query.index import Index
from keepsake.recording.live import live_recorder
from keepsake.repository import layout
from keepsake.repository.status import tolerance_s

if TYPE_CHECKING:
    from keepsake.experiment import Experiment
    from keepsake.repository.records import ExperimentRecord
    from keepsake.repository.repository import Repository
    from keepsake.values import Value

__all__ = ["latest_checkpoint_path"]

VARIABLE = "KEEPSAKE_EXPERIMENT"
"""Names the experiment that a training goes on with, for jobs that are started again by a scheduler."""

POLL_S = 1.0
"""How often to look for a new heartbeat while it is not known whether an experiment's process is alive, in seconds."""


def wanted(resume: str | bool | None) -> str | None:
    """Return which experiment to go on with: what names it, ``"auto"``, or None for a new one.

    Args:
        resume: What the user says; False for a new one whatever `VARIABLE` says.

    Raises:
        ValueError: It makes no sense.
    """
    if resume is False:
        return None
    if resume is True:
        return "auto"
    if resume is None or resume == "auto":
        return os.environ.get(VARIABLE, "").strip() or resume
    word = resume.strip() if isinstance(resume, str) else ""  # type: ignore[redundant-expr]  # whoever does not check types
    if word and " " not in word and word != "latest":
        # Names have no spaces and are no such word, so it can be told without looking that these are none.
        return word.lower() if layout.is_id_prefix(word.lower()) else word
    raise ValueError(f'resume must name an experiment, or be "auto", False or None, not {resume!r}')


def is_asked_for() -> bool:
    """Tell whether the environment names an experiment to go on with."""
    return bool(os.environ.get(VARIABLE, "").strip())


def find(repository: Repository, wanted: str, *, command: str, params: dict[str, Value]) -> ExperimentRecord | None:
    """Return the experiment to go on with; None where that is to be a new one.

    Args:
        repository: Where to look.
        wanted: See `wanted`.
        command: Of this process, as a record says it.
        params: Of this training, as a record says them.

    Raises:
        DoesNotExist: No experiment is called so.
        WriteError: It is being recorded by another process.
        StorageUnavailable: The store cannot be reached, and this machine has no such experiment.
    """
    try:
        return _found(repository, wanted, command, params)
    except StorageUnavailable:
        # What this machine has recorded lately is still here, unless it was uploaded.
        local = repository.local
        found = _found(local, wanted, command, params) if local is not None and local is not repository else None
        if found is None:
            raise
        return found


def _found(repository: Repository, wanted: str, command: str, params: dict[str, Value]) -> ExperimentRecord | None:
    if wanted == "auto":
        return _last_unfinished(repository, command, params)
    try:
        record = references.resolve(wanted, Index.of(repository)).experiment
    except DoesNotExist as err:
        if wanted == os.environ.get(VARIABLE, "").strip():
            if layout.is_id(wanted):
                # Drawn by whoever starts the job, so that the second start finds what the first one has made.
                return None
            err.facts = (
                *err.facts,
                f"{VARIABLE} says so; a new experiment gets its name only if that is a whole ID of 64 characters",
            )
        raise
    if not has_ended(repository, record):
        raise WriteError(
            f"experiment {layout.short_id(record.id)} runs on {record.host or 'another machine'} (process {record.pid});"
            " one process records an experiment",
            url=repository.storage.url,
        )
    return record


def _last_unfinished(repository: Repository, command: str, params: dict[str, Value]) -> ExperimentRecord | None:
    same = (one for one in reversed(repository.list_experiments()) if one.command == command and one.params == params)
    record = next(same, None)
    if record is None or record.outcome == "finished":
        return None
    if not has_ended(repository, record):
        messages.info(f"experiment {layout.short_id(record.id)} of the same command runs, so this is another one")
        return None
    return record


def has_ended(repository: Repository, record: ExperimentRecord) -> bool:
    """Tell whether nobody else records an experiment any more, after waiting for as long as that is uncertain.

    Its outcome tells, and on the machine that recorded it whether there is such a process. Elsewhere only the heartbeat does, which a
    process that was killed a moment ago leaves behind young.
    """
    if live_recorder(repository, record.id) is not None:
        # By this process: it is the same experiment still.
        return True
    if repository.is_recorded_here(record.id):
        return False
    if record.outcome is not None or _ended_here(record):
        return True
    tolerance = tolerance_s(record.heartbeat_interval_s)
    beat = repository.heartbeat(record.id)
    if beat is not None and beat.age_s < tolerance:
        messages.info(
            f"waiting up to {tolerance - beat.age_s:.0f} s to see whether experiment {layout.short_id(record.id)}"
            f" still runs on {record.host or 'another machine'}"
        )
    while beat is not None and beat.age_s < tolerance:
        time.sleep(POLL_S)
        before, beat = beat, repository.heartbeat(record.id)
        if beat is not None and beat.age_s < before.age_s:
            return False
    return True


def _ended_here(record: ExperimentRecord) -> bool:
    """Tell whether this machine recorded it, and its process is gone."""
    if record.host != platform.node() or record.pid is None:
        return False
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    # The number may have gone to another process since, or it is our own, which has let go of the experiment.
    return record.pid == os.getpid()


def latest_checkpoint_path(experiment: Experiment, directory: str | os.PathLike[str]) -> Path | None:
    """Copy the files of an experiment's latest checkpoint into a directory, for a framework to go on from them.

    A checkpoint whose files are lost, or still wait on another machine, is passed over with a warning.

    Args:
        experiment: The experiment, such as ``keepsake.init(resume="auto")`` returns it.
        directory: Where to, made if it does not exist; leave it to this function alone. The files come into a directory of their own in
            there, and those of earlier calls are removed.

    Returns:
        The path of what was saved, a file or a directory; None where no checkpoint has files, which is what ``ckpt_path`` of Lightning and
        ``resume_from_checkpoint`` of Hugging Face take for a new training.

    Raises:
        WriteError: The directory cannot be written.
        StorageUnavailable: The store cannot be reached.

    Example:
        >>> import keepsake
        >>> experiment = keepsake.init(resume="auto")  # doctest: +SKIP
        >>> trainer.fit(model, ckpt_path=keepsake.latest_checkpoint_path(experiment, "resumed"))  # doctest: +SKIP
    """
    for checkpoint in reversed(experiment.checkpoints):
        if checkpoint.path is None:
            continue
        # A directory of its own: files of an earlier one would be taken for a part of it.
        target = Path(directory) / checkpoint.short_id()
        try:
            checkpoint.checkout(target, quiet=True)
        except (DoesNotExist, ReadError) as err:
            messages.warning(f"the files of checkpoint {checkpoint.short_id()} (step {checkpoint.step}) cannot be had: {err}")
            continue
        _remove_earlier(experiment, target)
        return target / checkpoint.path
    return None


def _remove_earlier(experiment: Experiment, target: Path) -> None:
    """Remove what earlier calls have copied beside: a job that is started again and again would fill the disk."""
    for checkpoint in experiment.checkpoints:
        earlier = target.parent / checkpoint.short_id()
        if earlier != target and earlier.is_dir():
            shutil.rmtree(earlier, ignore_errors=True)
