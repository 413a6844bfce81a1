"""Two records of one experiment, which two machines have gone on with, as one. Where either is stored is others' business."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from keepsake.repository.records import CheckpointRecord, ExperimentRecord


def merge(own: ExperimentRecord, theirs: ExperimentRecord, *, known: Collection[str] = (), deleted: Collection[str] = ()) -> bool:
    """Bring into a record what another one has more of it or less; tell whether that changed anything.

    Args:
        own: The record; changed.
        theirs: The other one.
        known: Checkpoints that both have had: those that are missing here have been deleted here.
        deleted: Checkpoints that have been deleted there.
    """
    here = {checkpoint.id for checkpoint in own.checkpoints}
    added = [one for one in theirs.checkpoints if one.id not in here and one.id not in known]
    resumed = sorted({*own.resumed, *theirs.resumed})
    has_arrived = _take_over_archives(own, theirs)
    if not added and here.isdisjoint(deleted) and resumed == own.resumed:
        return has_arrived
    own.checkpoints = [one for one in own.checkpoints if one.id not in deleted]
    if added:
        own.checkpoints = sorted([*own.checkpoints, *added], key=lambda one: one.created)
    if theirs.resumed and max(theirs.resumed) == resumed[-1] and resumed != own.resumed:
        # It is another process now that records it, or was the last.
        own.ended, own.outcome, own.error = theirs.ended, theirs.outcome, theirs.error
        own.pid, own.host = theirs.pid, theirs.host
    own.resumed = resumed
    return True


def owners(record: ExperimentRecord) -> Iterator[ExperimentRecord | CheckpointRecord]:
    """Yield all of an experiment that may have an archive."""
    yield record
    yield from record.checkpoints


def _take_over_archives(own: ExperimentRecord, theirs: ExperimentRecord) -> bool:
    """Announce what another machine has brought; tell whether there was any."""
    pending = {owner.id: owner for owner in owners(own) if owner.archive_pending}
    arrived = [owner for owner in owners(theirs) if owner.archive is not None and owner.id in pending]
    for owner in arrived:
        pending[owner.id].archive, pending[owner.id].archive_pending = owner.archive, False
    return bool(arrived)
