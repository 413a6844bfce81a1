"""Who records which experiment in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keepsake.recording.recorder import Recorder
    from keepsake.repository.repository import Repository

_recorders: dict[tuple[Path, str], Recorder] = {}
"""The recorders that are live in this process, by the repository's directory and the experiment."""


def live_recorder(repository: Repository, experiment_id: str) -> Recorder | None:
    """Return who records an experiment in this process, if somebody does."""
    found = _recorders.get(_place(repository, experiment_id))
    return found if found is not None and found.is_live else None


def add(repository: Repository, recorder: Recorder) -> None:
    """Say who records an experiment from now on."""
    _recorders[_place(repository, recorder.record.id)] = recorder


def remove(repository: Repository, recorder: Recorder) -> None:
    """Say that nobody records an experiment any more."""
    _recorders.pop(_place(repository, recorder.record.id), None)


def _place(repository: Repository, experiment_id: str) -> tuple[Path, str]:
    # One directory may have several names.
    return (repository.local_root or Path()).resolve(), experiment_id
