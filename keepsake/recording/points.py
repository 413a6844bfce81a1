"""The points of a live experiment's history: which step they are of, and where they are appended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keepsake.repository.history import HistoryWriter, Point
from keepsake.repository.json_values import utc_now

if TYPE_CHECKING:
    from pathlib import Path

    from keepsake.recording.uploader import Uploader
    from keepsake.repository.repository import Repository


class PointLog:
    """Appends points, and has them uploaded. Not for several threads.

    Args:
        repository: Where to, on disk.
        root: Its directory.
        experiment_id: The experiment.
        uploader: Who moves them on, if the repository is an outbox.
    """

    def __init__(self, repository: Repository, root: Path, experiment_id: str, uploader: Uploader | None) -> None:
        self._repository = repository
        self._root = root
        self._id = experiment_id
        self._uploader = uploader
        self._writer: HistoryWriter | None = None
        self._next_step: int | None = None

    def append(self, values: dict[str, Any], step: int | None, *, at_least: int) -> None:
        """Add a point.

        Args:
            values: Its metrics.
            step: Its step; one more than that of the last point if not given.
            at_least: The first step that no checkpoint has reached, where there is no point yet.

        Raises:
            WriteError: There is no room, or the directory cannot be written.
        """
        if self._writer is None:
            elsewhere = self._uploader.last_segment() if self._uploader is not None else 0
            self._writer = HistoryWriter(self._root, self._id, after=elsewhere)
        if step is None:
            step = self._next_step if self._next_step is not None else max(self._last_step() + 1, at_least)
        self._writer.append(Point(step, utc_now(), values))
        self._next_step = step + 1

    def _last_step(self) -> int:
        """Return the highest step that an earlier process has logged, which may have been on another machine; -1 if none has."""
        here = max((point.step for point in self._repository.history(self._id)), default=-1)
        return max(here, self._uploader.last_logged_step() if self._uploader is not None else -1)

    def sync(self) -> None:
        """Make what was appended since the last time outlive the machine, and upload it."""
        if self._writer is not None and not self._writer.is_synced:
            self._writer.sync()
            if self._uploader is not None:
                self._uploader.notify()

    def close(self) -> None:
        """Let go of the file; a further point begins another one."""
        if self._writer is not None:
            self._writer.close()
