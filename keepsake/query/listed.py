"""Experiments as one listing has found them: a summary of each, and its whole record for whoever asks for more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from keepsake.repository import fast_json, layout
from keepsake.repository.records import ExperimentRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keepsake.repository.repository import Listing, Repository
    from keepsake.repository.summary import Summary


class Listed(NamedTuple):
    """An experiment that was listed.

    Args:
        summary: What the listing knows of it.
        records: Where its record comes from.
    """

    summary: Summary
    records: ListedRecords

    def load(self) -> ExperimentRecord:
        """Return its whole record.

        Raises:
            DoesNotExist: It was deleted meanwhile.
            CorruptedRecord: Its record is damaged where the listing did not look.
        """
        return self.records.load(self.summary)


class ListedRecords:
    """Reads the records of experiments that were listed: those of a bucket as they were then, from what is kept here of them.

    Args:
        repository: Where they lie.
        listing: Says which they are.
        live: Those that this machine is recording, with what they have accepted since.
    """

    def __init__(self, repository: Repository, listing: Listing, live: Mapping[str, ExperimentRecord]) -> None:
        self._repository = repository
        self._infos = {info.key: info for info in listing.records}
        self._keys = list(self._infos)
        self._live = live

    def load(self, summary: Summary) -> ExperimentRecord:
        """Return the whole record of an experiment; see `Listed.load`."""
        live = self._live.get(summary.id)
        if live is not None:
            return live
        for key, content in self._contents([summary.id]):
            record = ExperimentRecord.from_bytes(content, key=key)
            record.heartbeat, record.is_uploaded = summary.heartbeat, summary.is_uploaded
            return record
        # Deleted, which this says; or made after the listing, and another process has put it into the index.
        return self._repository.load(summary.id)

    def raw(self, experiment_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield records as JSON, read many at a time, in any order; those that are deleted meanwhile are left out."""
        yield from (fast_json.loads(content) for _, content in self._contents(experiment_ids))
        yield from (self._live[id].to_json() for id in experiment_ids if id in self._live)

    def _contents(self, experiment_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        keys = [layout.record_key(id) for id in experiment_ids if id not in self._live]
        return self._repository.contents([self._infos[key] for key in keys if key in self._infos], self._keys)
