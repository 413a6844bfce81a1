"""The live side of one experiment: accepts checkpoints, orders the writes, and guards the training against all of it.

From ``start()`` on no exception of ours leaves this module: it is reported once, clearly, and the training goes on. A checkpoint is
accepted when its entry stands in the journal and its files are staged; both outlive the process. The rest is done in the background: a
worker puts the files into their place, and then the record is rewritten, so a reader never finds a record of nothing.
"""

from __future__ import annotations

import copy
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from keepsake import messages
from keepsake.exceptions import DoesNotExist, KeepsakeError, ReadError, StorageError
from keepsake.recording import exits, live
from keepsake.recording.heartbeat import INTERVAL_S, HeartbeatThread
from keepsake.recording.points import PointLog
from keepsake.recording.publisher import Publisher
from keepsake.recording.reports import Reports, duration_text, error_text, progress
from keepsake.recording.uploader import EXIT_PATIENCE_S
from keepsake.recording.worker import INTERRUPTIBLE_S, Worker
from keepsake.repository import journal, layout
from keepsake.repository.json_values import is_comparable, utc_now
from keepsake.repository.primary_metric import Goal, PrimaryMetric
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.staging import Staging
from keepsake.storage import DiskStorage
from keepsake.storage.disk import JOURNAL_DIRECTORY, size_text
from keepsake.values import convert, convert_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keepsake.capture.files import FileEntry
    from keepsake.recording.recording import Ending
    from keepsake.recording.uploader import Uploader
    from keepsake.repository.records import ArchiveInfo
    from keepsake.repository.repository import Repository
    from keepsake.repository.status import Outcome


PATIENCE_S = 1.0
"""How long the end may take before people are told what it waits for."""


MAX_STEPS_NAMED = 10
"""Most steps that a message lists."""

WORTH_ANNOUNCING_BYTES = 1_000_000
"""How much is left to upload at the end where people are told what that waits for."""


class Recorder:
    """Records one experiment into its repository, which is on disk.

    Args:
        repository: Where to.
        record: The experiment's record; kept up to date here.
        directory: The project directory, which relative paths are relative to.
        quiet: Say nothing at the start and the end.
        uploader: Who moves it from there to the store where it belongs, if the repository is an outbox.
        primary_metric: The one that holds until a checkpoint gives another.

    Attributes:
        calls: How often something was recorded.

    Raises:
        ValueError: The repository is not on disk.
    """

    def __init__(
        self,
        repository: Repository,
        record: ExperimentRecord,
        directory: Path,
        *,
        quiet: bool = False,
        uploader: Uploader | None = None,
        primary_metric: PrimaryMetric | None = None,
    ) -> None:
        # What goes wrong later has to be said where nothing can be loaded any more, such as without a file descriptor left.
        messages.logger()
        if repository.local_root is None or not isinstance(repository.storage, DiskStorage):
            raise ValueError(f"experiments are recorded on disk, not in {repository.label}")
        self.record = record
        self._repository = repository
        self._root = repository.local_root
        self._directory = directory
        self._quiet = quiet
        self._uploader = uploader
        self._pid = os.getpid()
        # Whoever needs several of these takes them in this order.
        self._alone = threading.RLock()
        self._publishing = threading.RLock()
        self._lock = threading.RLock()
        self._calls = threading.Condition()
        self._calls_in_flight = 0
        self._live = False
        self._over = False
        self._journal: journal.Journal | None = None
        self._staging = Staging(journal.JournalDirectory(self._root, record.id))
        self._unpublished: list[dict[str, Any]] = []
        self._etag: str | None = None
        self._fragments: dict[str, str] = {}
        self._worker = Worker("keepsake-storing")
        self._cleaner = Worker("keepsake-cleaning")
        self._unstored: list[str] = []
        self._lost_steps: list[int] = []
        self._publisher = Publisher(self._publish, self._sync)
        self._heartbeat: HeartbeatThread | None = None
        self._ending: Ending | None = None
        self._points = PointLog(repository, self._root, record.id, uploader)
        self._primary_metric = record.primary_metric or primary_metric
        self._next_step = _next_step(record)
        self._reports = Reports()
        self.calls = 0

    @property
    def is_live(self) -> bool:
        """Whether the experiment runs in this process."""
        return self._live and os.getpid() == self._pid

    # --- the start --------------------------------------------------------------------------------------------------

    def start(self, entries: Sequence[FileEntry], *, beats: bool) -> None:
        """Create the experiment: its first beat, its record, then its code in the background.

        Unlike everything after it this may raise: the training has not begun, and nothing is lost yet.

        Args:
            entries: The files of the project to keep.
            beats: Whether to keep a heartbeat.
        """
        if self.record.path is not None:
            self.record.archive_pending = True
        self._journal = journal.Journal.open(self._root, self.record.id)
        try:
            if beats:
                # Before the record, so that nobody ever sees the experiment without a sign of life.
                self._repository.beat(self.record.id)
            self._repository.save(self.record, self._fragments)
            self._etag = self._repository.record_etag(self.record.id)
        except BaseException:
            # A write may have had its effect all the same; an experiment that never began must not be listed.
            with suppress(StorageError):
                self._repository.delete_experiment(self.record)
            self._journal.close(remove=True)
            raise
        self._go_live(beats=beats)
        if self.record.path is not None:
            self._worker.submit(partial(self._store_code, entries))
        if not self._quiet:
            count = sum(entry.kind != "directory" for entry in entries)
            code = f"code {count:,} file{'' if count == 1 else 's'}, " if self.record.path is not None else ""
            messages.info(f"experiment {layout.short_id(self.record.id)} started ({code}saving to {self._label})")

    def resume(self, *, beats: bool) -> None:
        """Go on with an experiment that another process has recorded, or this one. As `start` this may raise.

        Args:
            beats: Whether to keep a heartbeat.

        Raises:
            WriteError: Another process records it.
            DoesNotExist: It was deleted.
        """
        with exits.Uninterrupted(), self._alone:
            self._open_journal()
            self._continue(beats=beats)
        if not self._quiet:
            count, latest = len(self.record.checkpoints), self.record.latest()
            what = f"{count:,} checkpoint{'' if count == 1 else 's'}"
            after = f"after step {latest.step}, " if latest is not None else ""
            messages.info(f"experiment {layout.short_id(self.record.id)} resumed ({after}{what}, saving to {self._label})")

    @property
    def _label(self) -> str:
        return self._uploader.label if self._uploader is not None else self._repository.label

    def _go_live(self, *, beats: bool) -> None:
        self._live = True
        live.add(self._repository, self)
        if beats:
            self._heartbeat = HeartbeatThread(self._beat, self.record.heartbeat_interval_s or INTERVAL_S)
            self._heartbeat.start()
        exits.register(self)
        if self._uploader is not None:
            self._uploader.beats = beats
            self._uploader.notify()

    def watch(self, ending: Ending) -> None:
        """Ask with each beat whether the experiment has ended without anybody saying so."""
        self._ending = ending

    def _beat(self) -> bool:
        if self._ending is not None and (ended := self._ending()) is not None:
            self.finish(*ended)
            return False
        try:
            self._present_etag()
        except DoesNotExist:
            # Deleted by somebody else: a further beat would be an orphan.
            return False
        self._repository.beat(self.record.id)
        self._sync_history()
        if self._uploader is not None:
            self._uploader.beat()
        return True

    # --- checkpoints ------------------------------------------------------------------------------------------------

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
        """Take files and metrics as a checkpoint, to be stored in the background.

        Whatever goes wrong is reported and not raised; what can be kept is kept: where the files cannot be taken, the
        metrics still are. The checkpoint is returned in any case, so that the caller's code works on.
        """
        checkpoint = CheckpointRecord(id=layout.new_id(), created=utc_now(), step=0)
        if os.getpid() != self._pid:
            messages.debug("checkpoint() in a forked process does nothing")
            return checkpoint
        try:
            with exits.Uninterrupted(), self._turn_of_a_call() as is_live:
                if self._over:
                    return checkpoint
                self._open_journal()
                with self._lock:
                    self._fill(checkpoint, step, metrics, primary_metric)
                if path is None:
                    self._add(checkpoint)
                else:
                    self._add_with_files(checkpoint, path, saved_as, move=move)
                if not is_live:
                    self._let_go()
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("checkpoint()", err, "this checkpoint is not saved, earlier ones are intact")
        return checkpoint

    @contextmanager
    def _turn_of_a_call(self) -> Iterator[bool]:
        """Let threads in together while the experiment is live, and one after the other when it is not; yield whether it is.

        Who is in holds staged files, which its end would remove with the journal.
        """
        with self._calls:
            self.calls += 1
            is_live = self._live
            self._calls_in_flight += is_live
        if not is_live:
            with self._alone:
                yield False
            return
        try:
            yield True
        finally:
            with self._calls:
                self._calls_in_flight -= 1
                if not self._live:
                    self._calls.notify_all()

    def _end_calls(self) -> None:
        """Let no further call in as live, and wait for those that are in."""
        with self._calls:
            self._live = False
            while self._calls_in_flight:
                # A signal that comes just before a wait begins is handled only when it is over.
                self._calls.wait(INTERRUPTIBLE_S)

    def _open_journal(self) -> None:
        """Become the one who records the experiment, where it is not live; what others have written becomes our copy."""
        # Without a lock, since this is asked at each step of a training: it is closed only where no call is in.
        if self._journal is None:
            self._open_journal_anew()

    def _open_journal_anew(self) -> None:
        with self._publishing, self._lock:
            if self._journal is not None:
                return
            if self._uploader is not None:
                self._uploader.bring()
            if self._staging.directory.exists():
                # Somebody has died since the repository was opened.
                from keepsake.repository import recovery

                recovery.recover(self._repository)
            opened = journal.Journal.open(self._root, self.record.id)
            try:
                self.refresh()
            except BaseException:
                opened.close(remove=False)
                raise
            self._journal = opened

    def _add(self, checkpoint: CheckpointRecord) -> None:
        with self._lock:
            self.record.checkpoints.append(checkpoint)
            self._accept(journal.accepted(checkpoint))

    def _add_with_files(
        self, checkpoint: CheckpointRecord, path: str | os.PathLike[str], saved_as: str | None, *, move: bool
    ) -> None:
        """Accept a checkpoint before its files are taken, so that files which are moved away are never without one."""
        try:
            checkpoint.path, source, entries = self._selected(path, saved_as)
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report_lost_files(checkpoint, saved_as or path, err)
            self._add(checkpoint)
            return
        checkpoint.archive_pending = True
        self._add(checkpoint)
        try:
            self._stage(checkpoint.id, source, entries, move=move)
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report_lost_files(checkpoint, saved_as or path, err)
        finally:
            # Ctrl-C may come at any moment, and with what was moved there is no other copy.
            if self._staging.is_whole(checkpoint.id):
                self._worker.submit(partial(self._store_files, checkpoint.id))
            else:
                checkpoint.path, checkpoint.archive_pending = None, False
                self._accept(journal.unsaved(checkpoint.id))

    def _report_lost_files(self, checkpoint: CheckpointRecord, path: object, err: Exception) -> None:
        self._lost_steps.append(checkpoint.step)
        consequence = f"its files are not saved (step {checkpoint.step}), its metrics and earlier checkpoints are"
        self._report(f'checkpoint(path="{path}")', err, consequence)

    def _stage(self, id: str, path: Path, entries: Sequence[FileEntry], *, move: bool) -> None:
        from keepsake.recording import snapshot

        if move and snapshot.may_be_moved(path, entries, self._directory) and snapshot.move(id, path, entries, self._staging):
            return
        if not snapshot.clone(id, entries, self._staging):
            self._staging.pack(id, entries)

    def _accept(self, entry: dict[str, Any]) -> None:
        """Write an entry down, and have the record rewritten some time."""
        with self._lock:
            self._unpublished.append(entry)
            try:
                if self._journal is not None:
                    self._journal.append(entry)
            except StorageError as err:
                self._report("the journal", err, "what follows is kept in memory until it can be stored")
        self._publisher.notify()

    def _fill(self, checkpoint: CheckpointRecord, step: object, metrics: object, primary_metric: object) -> None:
        checkpoint.step = self._step(step)
        self._next_step = max(self._next_step, checkpoint.step + 1)
        checkpoint.metrics, problems = convert_metrics(metrics)
        for problem in problems:
            self._reports.warning(problem, problem)
        for name, value in checkpoint.metrics.items():
            if isinstance(value, float) and not is_comparable(value):
                self._reports.warning(f"nan {name}", f"{name} is NaN at step {checkpoint.step}")
        if primary_metric is not None:
            self._primary_metric = self._parsed(primary_metric) or self._primary_metric
        metric = self._primary_metric
        # keepsake 0.4.2 looks up the primary metric at every checkpoint and fails where it is absent, so it is written
        # wherever it has a value and nowhere else.
        if metric is not None and metric.name in checkpoint.metrics:
            checkpoint.primary_metric = metric
        elif metric is not None and primary_metric is not None:
            self._reports.warning(
                f"absent {metric.name}",
                f'the primary metric "{metric.name}" is not among the metrics at step {checkpoint.step}'
                f" ({', '.join(checkpoint.metrics) or 'there are none'})",
            )

    def _step(self, step: object) -> int:
        number = self._whole(step, "checkpoint()") if step is not None else None
        return self._next_step if number is None else number

    def _whole(self, step: object, call: str) -> int | None:
        if type(step) is int and 0 <= step < 2**63:
            # At each step of a training: all that is left out here counts.
            return step
        number = convert(step)
        if isinstance(number, int | float) and number >= 0 and number == int(number):
            return int(number)
        self._reports.warning(
            "step", f"{call}: step must be a whole number that is not negative, not {step!r:.80}; the next one is used instead"
        )
        return None

    def _parsed(self, primary_metric: object) -> PrimaryMetric | None:
        try:
            name, goal = (
                (primary_metric["name"], primary_metric["goal"])
                if isinstance(primary_metric, dict)
                else cast("tuple[Any, Any]", primary_metric)
            )
            if goal.lower() in ("maximize", "minimize"):
                return PrimaryMetric(str(name), cast("Goal", goal.lower()))
        except (TypeError, ValueError, KeyError, AttributeError):
            pass
        self._reports.warning(
            "primary_metric",
            'primary_metric must be a pair of a metric\'s name and "maximize" or "minimize", such as ("val_loss", "minimize"),'
            f" not {primary_metric!r:.80}; it is not set",
        )
        return None

    def _selected(self, path: str | os.PathLike[str], saved_as: str | None) -> tuple[str, Path, list[FileEntry]]:
        """Return the name that a path is saved under, where it lies, and what of it is saved."""
        from keepsake.capture import files

        if saved_as is None:
            name, entries = files.checkpoint_files(self._directory, path, exclude=[self._root])
            return name, self._directory / path, entries
        source = Path(path).absolute()
        name, entries = files.checkpoint_files(source.parent, source.name, exclude=[self._root])
        return saved_as, source, [replace(entry, name=saved_as + entry.name.removeprefix(name)) for entry in entries]

    # --- history ----------------------------------------------------------------------------------------------------

    def log(self, metrics: object, step: object) -> None:
        """Append a point to the history; whatever goes wrong is reported and not raised."""
        if os.getpid() != self._pid:
            messages.debug("log() in a forked process does nothing")
            return
        try:
            with exits.Uninterrupted(), self._turn_of_a_call() as is_live:
                if self._over:
                    return
                self._open_journal()
                with self._lock:
                    self._append(metrics, step)
                if not is_live:
                    self._let_go()
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("log()", err, "these metrics are not saved, earlier ones are intact")

    def _append(self, metrics: object, step: object) -> None:
        values, problems = convert_metrics(metrics)
        for problem in problems:
            self._reports.warning(problem, problem)
        number = self._whole(step, "log()") if step is not None else None
        self._points.append(values, number, at_least=self._next_step)

    def _sync_history(self) -> None:
        with self._lock:
            self._points.sync()

    # --- in the background ------------------------------------------------------------------------------------------

    def _store_code(self, entries: Sequence[FileEntry]) -> None:
        id = self.record.id
        try:
            self._staging.pack(id, entries)
            self._store(id, layout.experiment_archive_key(id))
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("the code", err, "the code of this experiment is not saved")

    def _store_files(self, id: str) -> None:
        try:
            self._store(id, layout.checkpoint_archive_key(id))
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            if self._is_deleted():
                return
            self._unstored.append(id)
            self._report(
                "storing a checkpoint", err, f"its files wait in {self._root / JOURNAL_DIRECTORY} until they can be stored"
            )

    def _store(self, id: str, key: str) -> None:
        # What was set aside last takes room that is needed now.
        self._cleaner.drain()
        self._announce(id, self._staging.store(id, self._repository, key))
        if self._staging.is_set_aside(id):
            # Nobody who waits for what is stored waits for that.
            self._cleaner.submit(partial(self._staging.sweep, id))

    def _is_deleted(self) -> bool:
        if not self._over:
            with suppress(KeepsakeError, OSError):
                self._present_etag()
        return self._over

    def _announce(self, id: str, archive: ArchiveInfo) -> None:
        with self._lock:
            entry = journal.stored(id, archive)
            journal.replay(self.record, [entry])
            self._accept(entry)

    def _publish(self) -> bool:
        """Rewrite the record with all that was accepted; tell whether that is done."""
        try:
            # A signal in the middle of it might end the experiment, which rewrites the record too.
            with exits.Uninterrupted(), self._publishing:
                return self._over or not self._unpublished or self._rewrite()
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("the record", err, "what it lacks stands in the journal and is tried again")
            return False

    def _rewrite(self) -> bool:
        """Write the record as it stands, over what others have changed of it meanwhile.

        Its etag tells: the same as after our last write, and our copy is the truth; another, and it is read anew; none, and
        the experiment was deleted, which ends the recording.
        """
        with self._lock:
            entries = list(self._unpublished)
            segment = self._rotated()
            changed = copy.copy(self.record)
            changed.checkpoints = list(self.record.checkpoints)
        with self._repository.rewriting(self.record.id):
            if self._present_etag() != self._etag:
                changed = self._repository.load_stored(self.record.id)
                self._fragments.clear()
                journal.replay(changed, entries)
                self._adopt(changed, published=len(entries))
            self._repository.save(changed, self._fragments)
            self._etag = self._repository.record_etag(self.record.id)
        self._remove_files_of_deleted(entries, changed)
        with self._lock:
            del self._unpublished[: len(entries)]
            if self._journal is not None and segment is not None:
                self._journal.drop_through(segment)
        if self._uploader is not None:
            self._uploader.notify()
        return True

    def _remove_files_of_deleted(self, entries: list[dict[str, Any]], record: ExperimentRecord) -> None:
        """Remove the files of checkpoints that somebody has deleted before they were stored."""
        present = {record.id, *(checkpoint.id for checkpoint in record.checkpoints)}
        stored = [entry["stored"]["id"] for entry in entries if "stored" in entry]
        orphans = [layout.checkpoint_archive_key(id) for id in stored if id not in present]
        if orphans:
            self._repository.storage.delete(orphans)

    def _rotated(self) -> int | None:
        with suppress(StorageError):
            return self._journal.rotate() if self._journal is not None else None
        # Its entries are dropped the next time.
        return None

    def _adopt(self, record: ExperimentRecord, *, published: int) -> None:
        """Make a record that was read anew our copy, with what was accepted since."""
        with self._lock:
            own = copy.copy(record)
            known = {checkpoint.id: checkpoint for checkpoint in self.record.checkpoints}
            own.checkpoints = [_brought_up_to_date(known.get(found.id), found) for found in record.checkpoints]
            journal.replay(own, self._unpublished[published:])
            self.record.__dict__.update(own.__dict__)
            self._next_step = max(self._next_step, _next_step(own))

    def _sync(self) -> None:
        opened = self._journal
        if opened is not None:
            opened.sync()

    def _present_etag(self) -> str:
        """Return the record's etag; without a record, tell an experiment that was deleted from a repository that is gone."""
        etag = self._repository.record_etag(self.record.id)
        if etag is not None:
            return etag
        if not self._repository.is_deleted(self.record.id):
            raise ReadError(f"the repository {self._repository.label} is not there", url=self._repository.storage.url)
        self._over = True
        with suppress(StorageError):
            self._repository.end_beat(self.record.id)
        raise DoesNotExist(f"experiment {layout.short_id(self.record.id)} was deleted meanwhile")

    # --- waiting and reading anew -----------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Wait until all that was accepted is stored, and tell whether it is; what could not be stored is tried once more."""
        if os.getpid() != self._pid:
            return False
        return self._flush_locally() and (self._uploader is None or self._uploader.flush())

    def _flush_locally(self) -> bool:
        unstored, self._unstored = self._unstored, []
        for id in unstored:
            self._worker.submit(partial(self._store_files, id))
        self._worker.drain()
        self._sync_history()
        return self._publish() and not self._unstored

    def refresh(self) -> None:
        """Load the record anew, with what others have changed.

        Raises:
            DoesNotExist: The experiment was deleted.
        """
        with self._publishing:
            self._etag = self._repository.record_etag(self.record.id)
            self._fragments.clear()
            self._adopt(self._repository.load(self.record.id), published=0)

    def _settle(self) -> None:
        """Store all that was accepted and let go of the experiment; what cannot be stored stays in the journal."""
        is_stored = self._flush_locally()
        self._worker.close()
        self._cleaner.drain()
        self._cleaner.close()
        self._publisher.close()
        with self._lock:
            self._points.close()
            if self._journal is not None:
                self._journal.close(remove=self._over or (is_stored and not self._staging.ids()))
                self._journal = None

    def _let_go(self) -> None:
        """Store and upload what was added to an experiment that is not live."""
        self._settle()
        if self._uploader is not None:
            self._uploader.close()
            self._uploader.flush()

    # --- the end ----------------------------------------------------------------------------------------------------

    def finish(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """Record how the experiment ended, once, and wait until all is stored.

        Raises:
            KeyboardInterrupt: The person does not want to wait. What is not stored yet waits in the journal.
        """
        if not self.is_live:
            return
        try:
            with exits.Uninterrupted():
                self._finish(outcome, error_text(error))
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("the end of the experiment", err, "it will be shown as stopped for lack of a heartbeat")

    def _finish(self, outcome: Outcome, error: str | None) -> None:
        with self._alone:
            self._end(outcome, error)

    def _end(self, outcome: Outcome, error: str | None) -> None:
        try:
            self._end_calls()
            if not self._over:
                with self._lock:
                    # Later than the last time it went on, whatever the clock says: entries are told apart by their times.
                    ended = max([utc_now(), *(at + timedelta(microseconds=1) for at in self.record.resumed)])
                    self.record.ended, self.record.outcome, self.record.error = ended, outcome, error
                    self._accept(journal.ended(ended, outcome, error))
                self._wait_for_files()
            self._settle()
            self._upload_rest()
        except KeyboardInterrupt:
            # Only the files take long; the outcome is shown at once.
            self._publish()
            raise
        finally:
            self._retire()
            if not self._over:
                self._say_what_is_left()
                with suppress(StorageError):
                    # The outcome outweighs a heartbeat that stays.
                    self._repository.end_beat(self.record.id)
                if self._uploader is not None:
                    self._uploader.end_beat()
        if not self._quiet and not self._over:
            messages.info(self._closing_line(outcome))

    def _upload_rest(self) -> None:
        """Move what is left to the store, for as long as that can be reached."""
        if self._uploader is None or self._over:
            return
        # A further beat would look for a record that is about to leave the outbox.
        self._stop_beating()
        waiting = self._uploader.waiting()
        if waiting.size_bytes > WORTH_ANNOUNCING_BYTES and not self._quiet:
            left = size_text(waiting.size_bytes)
            messages.info(f"uploading {left} to {self._uploader.label}; Ctrl-C leaves that to keepsake sync")
            self._uploader.on_progress = progress(waiting.size_bytes)
        try:
            self._uploader.close()
            self._uploader.flush(patience_s=EXIT_PATIENCE_S)
        finally:
            self._say_what_is_not_uploaded(self._uploader)

    def _say_what_is_not_uploaded(self, uploader: Uploader) -> None:
        if not uploader.is_done:
            messages.warning(
                f"experiment {layout.short_id(self.record.id)} is not uploaded to {uploader.label} yet; run: keepsake sync"
            )

    def _stop_beating(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def _wait_for_files(self) -> None:
        if self._worker.drain(PATIENCE_S) or self._quiet:
            return
        messages.info(f"storing {self._staged_text()}; Ctrl-C leaves that to the next keepsake command")

    def _say_what_is_left(self) -> None:
        if len(self._lost_steps) > 1:
            # Said once when it began, and here how much it was in all.
            first = ", ".join(map(str, self._lost_steps[:MAX_STEPS_NAMED]))
            more = ", …" if len(self._lost_steps) > MAX_STEPS_NAMED else ""
            messages.warning(f"the files of {len(self._lost_steps)} checkpoints are not saved (steps {first}{more})")
        if self._staging.ids():
            messages.warning(
                f"{self._staged_text()} not stored yet, safe in {self._root / JOURNAL_DIRECTORY}; the next keepsake command stores it"
            )

    def _staged_text(self) -> str:
        ids = self._staging.ids()
        size = size_text(sum(self._staging.size_bytes(id) for id in ids))
        count = len(ids - {self.record.id})
        return f"the files of {count} checkpoint{'' if count == 1 else 's'} ({size})" if count else f"the code ({size})"

    def _retire(self) -> None:
        self._live = False
        self._ending = None
        live.remove(self._repository, self)
        self._stop_beating()
        exits.unregister(self)

    def reopen(self) -> None:
        """Go on with an experiment that this process has ended: its outcome is taken back and it beats again."""
        if self._live or os.getpid() != self._pid:
            return
        try:
            with exits.Uninterrupted(), self._alone:
                self._open_journal()
                self._continue(beats=self._heartbeat is not None)
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("going on with the experiment", err, "it is shown as ended, and takes checkpoints all the same")

    def _continue(self, *, beats: bool) -> None:
        with self._lock:
            if beats:
                self._repository.beat(self.record.id)
            before = self.record.ended or self.record.created
            entry = journal.resumed(max(utc_now(), before + timedelta(microseconds=1)))
            journal.replay(self.record, [entry])
            self._accept(entry)
        self._go_live(beats=beats)

    def abandon(self) -> None:
        """Stop without recording anything more: the experiment is being deleted."""
        if os.getpid() != self._pid:
            return
        self._over = True
        with self._alone:
            self._end_calls()
            self._worker.cancel()
            self._worker.close()
            self._cleaner.drain()
            self._cleaner.close()
            self._publisher.close()
            if self._uploader is not None:
                self._uploader.close()
            self._retire()
            with self._lock:
                self._points.close()
                if self._journal is not None:
                    self._journal.close(remove=True)
                    self._journal = None

    def _report(self, what: str, err: Exception, consequence: str) -> None:
        if self._over and isinstance(err, DoesNotExist):
            consequence = "nothing more of it is recorded"
        self._reports.error(what, err, consequence)

    def _closing_line(self, outcome: Outcome) -> str:
        ended = self.record.ended or utc_now()
        duration = duration_text((ended - self.record.created).total_seconds())
        line = f"{layout.short_id(self.record.id)} {outcome} after {duration}"
        best, metric = self.record.best(), self.record.primary_metric
        if best is not None and metric is not None:
            line += f", best {metric.name} {best.metrics[metric.name]:.4g} at step {best.step}"
        return line


def _next_step(record: ExperimentRecord) -> int:
    return max((checkpoint.step for checkpoint in record.checkpoints), default=-1) + 1


def _brought_up_to_date(own: CheckpointRecord | None, found: CheckpointRecord) -> CheckpointRecord:
    """Return the object that people hold in their hands already, if there is one, with what was found of it."""
    if own is None:
        return found
    own.__dict__.update(found.__dict__)
    return own
