"""Recording that is turned off: an experiment that is kept in memory only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord

if TYPE_CHECKING:
    import os

    from keepsake.recording.recording import Ending
    from keepsake.repository.records import ExperimentRecord
    from keepsake.repository.status import Outcome


class DisabledRecorder:
    """Keeps an experiment in memory only: for ranks other than zero and ``KEEPSAKE_MODE=disabled``.

    Args:
        record: The experiment's record.
    """

    is_live = False

    def __init__(self, record: ExperimentRecord) -> None:
        self.record = record

    def checkpoint(
        self,
        path: str | os.PathLike[str] | None,
        step: object,
        metrics: object,
        primary_metric: object,
        *,
        saved_as: str | None = None,
        move: bool = False,
    ) -> CheckpointRecord:
        """Return a checkpoint that is stored nowhere; a path that is to be moved stays."""
        following = self.record.checkpoints[-1].step + 1 if self.record.checkpoints else 0
        checkpoint = CheckpointRecord(id=layout.new_id(), created=utc_now(), step=step if isinstance(step, int) else following)
        # Only the last one is kept: a long training must not grow for what nobody will read.
        self.record.checkpoints = [checkpoint]
        return checkpoint

    def log(self, metrics: object, step: object) -> None:
        """Do nothing."""

    def watch(self, ending: Ending) -> None:
        """Do nothing."""

    def flush(self) -> bool:
        """Do nothing."""
        return True

    def refresh(self) -> None:
        """Do nothing."""

    def reopen(self) -> None:
        """Do nothing."""

    def finish(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""
