"""What an experiment needs of the one who records it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord
    from keepsake.repository.status import Outcome

Ending: TypeAlias = "Callable[[], tuple[Outcome, BaseException | str | None] | None]"
"""Tells how an experiment has ended; None while it goes on."""


class Recording(Protocol):
    """What an experiment needs of the one who records it."""

    record: ExperimentRecord

    @property
    def is_live(self) -> bool:
        """Whether the experiment runs in this process."""
        ...

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
        """Accept a checkpoint; never raises."""
        ...

    def log(self, metrics: object, step: object) -> None:
        """Accept metrics between two checkpoints; never raises."""
        ...

    def watch(self, ending: Ending) -> None:
        """Ask with each beat whether the experiment has ended without anybody saying so."""
        ...

    def flush(self) -> bool:
        """Wait until all that was accepted is stored, and tell whether it is; never raises."""
        ...

    def refresh(self) -> None:
        """Load the record anew, with what others have changed."""
        ...

    def reopen(self) -> None:
        """Go on after the end; never raises, and does nothing while the experiment runs."""
        ...

    def finish(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """Record how the experiment ended; never raises, and does nothing the second time."""
        ...

    def abandon(self) -> None:
        """Stop without recording anything more: the experiment is being deleted."""
        ...
