"""The index of a repository: what is known of all its experiments without reading their records.

One listing of the repository says which records have changed since they were summarized; only those are read. The tables that keep the
summaries are never the truth and always safe to delete: whatever is wrong with their file (damaged, of another version, not writable,
locked for too long) is as if it were empty, and nothing is said of it.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from keepsake import messages
from keepsake.exceptions import CorruptedRecord, DoesNotExist, KeepsakeError
from keepsake.query.changes import Changes
from keepsake.query.index_tables import BATCH, IndexTables, id_range, read_part, table_of
from keepsake.query.listed_json import text as listed_text
from keepsake.query.listed_json import text_of
from keepsake.repository import fast_json, layout
from keepsake.repository.cache import cache_file
from keepsake.repository.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from keepsake.query.listed import ListedRecords
    from keepsake.repository.annotations import Alias, Annotation
    from keepsake.repository.records import ExperimentRecord
    from keepsake.repository.repository import Listing, Repository
    from keepsake.storage import ObjectInfo

R = TypeVar("R")
T = TypeVar("T")

Part: TypeAlias = Literal["details", "ranges"]
"""What is kept apart of a summary."""

FEW_SPECIAL = 200
"""Of so many experiments more than their records is read one by one; of more, that of all together takes less time."""

_Row: TypeAlias = "tuple[tuple[str, int], Summary]"
"""Key and number of an experiment, and what the tables keep of it."""


class _ReadBefore(NamedTuple, Generic[T]):
    """What tables had of all experiments before it was known that nothing has changed.

    Args:
        tables: The tables.
        state: Theirs, just before.
        rows: What they had.
    """

    tables: IndexTables
    state: int
    rows: list[T]


class _Said(NamedTuple):
    """What people say of the experiments that there are.

    Args:
        annotations: By experiment.
        aliases: What they stand for, by name.
        by_experiment: The aliases of each experiment's checkpoints: the checkpoint of each.
    """

    annotations: dict[str, Annotation]
    aliases: dict[str, Alias]
    by_experiment: dict[str, dict[str, str]]


class Index:
    """All experiments of a repository, as they were at the first question; `forget` lets the next question look anew.

    The constructor does no input or output. Not for several threads.

    Args:
        repository: The repository.
        path: The file of the tables, made if it does not exist; None keeps them in memory.

    Attributes:
        helpers: How many processes may read records for this one where thousands have changed.

    Example:
        >>> from keepsake.repository.repository import Repository
        >>> from keepsake.storage import MemoryStorage
        >>> Index(Repository(MemoryStorage()), None).summaries()
        []
    """

    def __init__(self, repository: Repository, path: Path | None) -> None:
        self.repository = repository
        self.helpers = 0
        self._path = path
        self._tables: IndexTables | None = None
        self._listing: Listing | None = None
        self._is_partial = False
        self._live: dict[str, ExperimentRecord] = {}
        self._said: _Said | None = None
        self._is_renewed = False

    @classmethod
    def of(cls, repository: Repository) -> Index:
        """Return the index of a repository with its tables in the user's cache directory."""
        return cls(repository, cache_file(repository.storage.url, "index"))

    # --- questions --------------------------------------------------------------------------------------------------

    def summaries(self, newest: int | None = None, part: Part | None = None) -> list[Summary]:
        """Return the experiments, oldest first.

        A record that is deleted meanwhile is left out. One that is damaged is left out with a warning that names it.

        Args:
            newest: Return only so many of the newest; all if not given.
            part: What each will be asked for besides, so that it is better read together.
        """
        wanted = partial(_summaries, newest=newest, part=part)
        return self._answer_with(wanted, newest, lambda tables, rows: list(self._completed(tables, rows)))

    def listed_json(self, newest: int | None = None) -> list[str]:
        """Return the text of each experiment in ``ls --json``, oldest first.

        Args:
            newest: Return only so many of the newest; all if not given.
        """
        return self._answer_with(partial(_texts, newest=newest), newest, self._with_what_is_known_besides)

    def listed_json_of(self, summaries: Sequence[Summary]) -> list[str]:
        """Return the text of each of these experiments in ``ls --json``, in their order."""
        keys = [layout.record_key(summary.id) for summary in summaries]

        def question(tables: IndexTables) -> list[str]:
            special, kept = self._special(tables), tables.listed_json(keys)
            return [
                text_of(kept[key]) if key in kept and key not in special else listed_text(summary)
                for key, summary in zip(keys, summaries, strict=True)
            ]

        return self._answer(question)

    def summary(self, experiment_id: str) -> Summary | None:
        """Return one experiment by its whole ID; None if there is none."""
        key = layout.record_key(experiment_id)

        return self._answer(lambda tables: self._one(tables, key))

    def records(self) -> ListedRecords:
        """Return what reads the whole records of these experiments, also after the index has looked anew."""
        from keepsake.query.listed import ListedRecords

        if self._is_partial:
            self.forget()
        return ListedRecords(self.repository, self._refreshed(), self._live)

    def count(self) -> int:
        """Return how many experiments there are."""
        return self._answer(lambda tables: int(tables.rows("SELECT count(*) FROM experiments")[0][0]))

    def running(self) -> int:
        """Return how many experiments run now."""
        summaries = (self.summary(experiment_id) for experiment_id in self._refreshed().heartbeats)
        return sum(summary is not None and summary.status.word == "running" for summary in summaries)

    def owners(self, prefix: str) -> list[str]:
        """Return the experiments whose own ID, or one of whose checkpoints' IDs, starts with a prefix.

        Of a prefix longer than the digits that are kept, some of what is returned may differ further on.

        Args:
            prefix: Hexadecimal digits in lower case, at least one.
        """
        return self._answer(lambda tables: self._owners(prefix, tables))

    def _owners(self, prefix: str, tables: IndexTables) -> list[str]:
        stored = {layout.id_of_json_key(key) or "" for key in tables.owners(prefix)}
        live = {record.id for record in self._live.values() if any(id.startswith(prefix) for id in _ids(record))}
        return sorted(stored | live)

    def aliases(self) -> dict[str, Alias]:
        """Return the aliases of checkpoints, by name, with the experiment of each; those of experiments that are gone are left out."""
        return self._answer(lambda tables: self._what_is_said(tables).aliases)

    def ids_by_name(self) -> dict[str, list[str]]:
        """Return the experiments that have a name, by name.

        A name is given to one experiment only, but two people who give it at the same moment do not see each other.
        """
        found: dict[str, list[str]] = {}
        for experiment_id, annotation in self._answer(lambda tables: self._what_is_said(tables).annotations).items():
            if annotation.name:
                found.setdefault(annotation.name, []).append(experiment_id)
        return found

    def short_length(self) -> int:
        """Return how many characters of an ID tell all experiments and checkpoints apart: 7, and more only where that is not enough.

        It may be more than that after something was deleted.
        """
        return self._answer(lambda tables: tables.short_length(self._live_ids()))

    def _live_ids(self) -> Iterator[int]:
        return (id_range(id)[0] for record in self._live.values() for id in _ids(record))

    def forget(self) -> None:
        """Look at the repository anew at the next question."""
        self._listing = None
        self._is_partial = False

    # --- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, question: Callable[[IndexTables], T]) -> T:
        self._refreshed()
        try:
            return question(self._opened())
        except (sqlite3.Error, ValueError):
            # What is damaged in the middle of the file shows only when it is read.
            self._do_without_the_file(damaged=True)
            self.forget()
            self._refreshed()
            return question(self._opened())

    def _answer_with(
        self, read: Callable[[IndexTables], list[R]], newest: int | None, question: Callable[[IndexTables, list[R]], T]
    ) -> T:
        """Answer a question about what is read of all experiments, or of the newest."""
        before = self._read_meanwhile(read) if newest is None else None

        def answer(tables: IndexTables) -> T:
            return question(tables, before.rows if before is not None and before.tables is tables else read(tables))

        return self._answer(answer)

    def _with_what_is_known_besides(self, tables: IndexTables, texts: list[tuple[str, str]]) -> list[str]:
        special = self._special(tables)
        found: dict[str, Summary | None] = {}
        if len(special) > FEW_SPECIAL:
            rows = self._completed(tables, _summaries(tables, newest=None, part="details"))
            found = {layout.record_key(summary.id): summary for summary in rows}
        elif special:
            found = {key: self._one(tables, key) for key, _ in texts if key in special}
        return [
            text if (summary := found.get(key)) is None or key not in special else listed_text(summary) for key, text in texts
        ]

    def _special(self, tables: IndexTables) -> set[str]:
        """Return the keys of the experiments of which more is known than their records say."""
        listing, said = self._refreshed(), self._what_is_said(tables)
        ids = (*self._live, *listing.heartbeats, *said.annotations, *said.by_experiment)
        return {*map(layout.record_key, ids), *listing.waiting}

    def _one(self, tables: IndexTables, key: str) -> Summary | None:
        found = tables.one(key)
        return self._summary(tables, key, *found) if found is not None else None

    def _summary(self, tables: IndexTables, key: str, number: int, content: bytes) -> Summary:
        [summary] = self._completed(tables, _decoded([(key, number, content)]))
        return summary

    def _completed(self, tables: IndexTables, rows: Iterable[_Row]) -> Iterator[Summary]:
        """Yield the summaries of rows with what is known besides."""
        listing, said, live = self._refreshed(), self._what_is_said(tables), self._live
        for (key, number), summary in rows:
            experiment_id = summary.id
            if experiment_id in live:
                summary = Summary.of(live[experiment_id])
            else:
                summary.is_uploaded = key not in listing.waiting
                summary.load = partial(self._rest, tables, number, experiment_id)
                summary.heartbeat = listing.heartbeats.get(experiment_id)
            if experiment_id in said.annotations:
                summary.annotation = said.annotations[experiment_id]
            if experiment_id in said.by_experiment:
                summary.aliases = said.by_experiment[experiment_id]
            yield summary

    def _what_is_said(self, tables: IndexTables) -> _Said:
        if self._said is None:
            self._said = self._read_what_is_said(tables) if self._refreshed().others else _Said({}, {}, {})
        return self._said

    def _read_what_is_said(self, tables: IndexTables) -> _Said:
        from keepsake.repository.annotations import Alias, Annotation

        said = _Said({}, {}, {})
        for key, content in tables.others(layout.ANNOTATIONS_PREFIX):
            experiment_id = layout.id_of_json_key(key)
            # What a crash has left of an experiment that was being deleted says nothing of anything.
            if experiment_id is not None and tables.number(layout.record_key(experiment_id)) is not None:
                with _warning():
                    said.annotations[experiment_id] = Annotation.from_bytes(content, key=key)
        for key, content in tables.others(layout.ALIASES_PREFIX):
            name = layout.alias_of_key(key)
            if name is None:
                continue
            with _warning():
                alias = Alias.from_bytes(content, key=key)
                owner = alias.experiment or next(iter(self._owners(alias.checkpoint, tables)), "")
                if tables.number(layout.record_key(owner)) is not None:
                    said.aliases[name] = Alias(alias.checkpoint, owner)
                    said.by_experiment.setdefault(owner, {})[name] = alias.checkpoint
        return said

    def _rest(self, tables: IndexTables, number: int, experiment_id: str, what: str) -> Mapping[str, Any]:
        with suppress(sqlite3.Error, ValueError):
            found: Mapping[str, Any] | None = tables.rest(what, number)
            if found is not None:
                return found
        # Damaged, or deleted meanwhile.
        try:
            return Summary.of(self.repository.load(experiment_id)).kept_apart(what)
        except DoesNotExist:
            return {}

    # --- being up to date -------------------------------------------------------------------------------------------

    def _refreshed(self) -> Listing:
        if self._listing is None:
            self._prepare()
            self._listing = self._updated()
        return self._listing

    def _read_meanwhile(self, read: Callable[[IndexTables], list[R]]) -> _ReadBefore[R] | None:
        """Read the tables while a child looks what has changed, where that is worth it; return what is in them if nothing has."""
        path = self._path
        if self._listing is not None or self.helpers < 2 or path is None:
            return None
        from keepsake.query.ahead import Look

        if not Look.is_worth_it(self.repository, path):
            return None
        self._close()
        self._prepare()
        try:
            look = Look(self.repository, path)
        except OSError:
            return None
        tables = self._opened()
        before: _ReadBefore[R] | None = None
        # Where they are damaged, whoever asks now finds the same, and mends it.
        with suppress(sqlite3.Error, ValueError):
            before = _ReadBefore(tables, tables.state(), read(tables))
        changes = look.changes()
        if changes is None:
            return None
        self._listing, self._is_partial = self._updated(changes), True
        return before if before is not None and self._still_holds(before, changes) else None

    def _still_holds(self, before: _ReadBefore[Any], changes: Changes) -> bool:
        if changes.changed or changes.gone or self._tables is not before.tables:
            return False
        # The child may have compared with what another process has written after these were read.
        with suppress(sqlite3.Error):
            return before.tables.state() == before.state
        return False

    def _prepare(self) -> None:
        self.repository.check()
        self._said = None
        # Where an experiment is being recorded, its journal is read before its record: an entry leaves it when the record holds it.
        self._live = dict(self._read_live())

    def _read_live(self) -> Iterator[tuple[str, ExperimentRecord]]:
        for experiment_id in self.repository.live_ids():
            with suppress(KeepsakeError):
                yield experiment_id, self.repository.load(experiment_id)

    def _updated(self, changes: Changes | None = None) -> Listing:
        """Bring the tables up to date and return the listing that they follow.

        Args:
            changes: What they lack; looked for if not given.
        """
        try:
            return self._update(changes)
        except sqlite3.Error as err:
            self._do_without_the_file(damaged=not isinstance(err, sqlite3.OperationalError))
            # The new ones lack all.
            return self._update(None)

    def _update(self, changes: Changes | None) -> Listing:
        tables = self._opened()
        if changes is None:
            known: dict[str, str] = dict(tables.rows("SELECT key, etag FROM experiments"))
            changes = Changes.between(known, self.repository.listing())
        listing = changes.listing
        if changes.changed:
            from keepsake.query.entries import entries

            etags = {info.key: info.etag for info in changes.changed}
            for batch in _batches(entries(self.repository, changes.changed, listing.records, self.helpers)):
                tables.put_experiments([(etags[entry.key], entry) for entry in batch], listing.at_s)
            tables.widen()
        if changes.gone:
            tables.remove_experiments(changes.gone, listing.at_s)
        self._update_others(tables, listing.others)
        return listing

    def _update_others(self, tables: IndexTables, present: Sequence[ObjectInfo]) -> None:
        known: dict[str, str] = dict(tables.rows("SELECT key, etag FROM others"))
        etags = {info.key: info.etag for info in present}
        if known != etags:
            changed = [info for info in present if known.get(info.key) != info.etag]
            contents = self.repository.small_objects(changed)
            tables.put_others([(key, etags[key], content) for key, content in contents], known.keys() - etags.keys())

    def _opened(self) -> IndexTables:
        if self._tables is None:
            try:
                self._tables = IndexTables(self._path)
            except (sqlite3.Error, OSError) as err:
                self._do_without_the_file(damaged=not isinstance(err, sqlite3.OperationalError | OSError))
        return self._tables or self._opened()

    def _close(self) -> None:
        if self._tables is not None:
            self._tables.close()
            self._tables = None

    def _do_without_the_file(self, *, damaged: bool) -> None:
        """Begin anew: with a new file where the old one was damaged, in memory where it cannot be used or is damaged again."""
        self._close()
        path, self._path = self._path, None
        if damaged and path is not None and not self._is_renewed:
            self._is_renewed = True
            with suppress(OSError):
                path.unlink()
                self._path = path


@contextmanager
def _warning() -> Iterator[None]:
    """Ignore what is damaged, and say so."""
    try:
        yield
    except CorruptedRecord as err:
        messages.warning(f"{err.message}; it is ignored")


def _summaries(tables: IndexTables, newest: int | None, part: Part | None) -> list[_Row]:
    """Return the newest experiments, oldest first."""
    return list(_decoded(tables.newest(newest, "summaries", *([table_of(part)] if part else [])), part))


def _texts(tables: IndexTables, newest: int | None) -> list[tuple[str, str]]:
    """Return key and text of the newest experiments, oldest first."""
    return [(key, text_of(kept)) for key, _, kept in tables.newest(newest, "listed_json")]


def _decoded(rows: Iterable[tuple[Any, ...]], part: Part | None = None) -> Iterator[_Row]:
    """Yield the key and the number of each row with the summary that it holds, and with this part of it."""
    for batch in _batches(rows):
        contents = fast_json.loads_all([row[2] for row in batch])
        if part is None:
            yield from ((row[:2], Summary(content)) for row, content in zip(batch, contents, strict=True))
        else:
            for row, content in zip(batch, contents, strict=True):
                yield row[:2], Summary(content, {part: read_part(part, row[3])})


def _ids(record: ExperimentRecord) -> Iterator[str]:
    yield record.id
    yield from (checkpoint.id for checkpoint in record.checkpoints)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    return iter(lambda: list(islice(rest, BATCH)), [])
