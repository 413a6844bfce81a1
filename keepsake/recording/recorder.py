"""The live side of one experiment: accepts checkpoints, orders the writes, and guards the training against all of it.

From ``start()`` on no exception of ours leaves this module: it is reported once, clearly, and the training goes on. Order:
an archive is stored before the record announces it, so a reader never finds a record of nothing.
"""

from __future__ import annotations

import copy
import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from keepsake import messages
from keepsake.capture.redaction import redact_text
from keepsake.exceptions import DoesNotExist, KeepsakeError, ReadError, StorageError
from keepsake.recording import exits
from keepsake.recording.heartbeat import INTERVAL_S, HeartbeatThread
from keepsake.repository import layout
from keepsake.repository.records import (
    ArchiveInfo,
    CheckpointRecord,
    ExperimentRecord,
    Goal,
    PrimaryMetric,
    is_comparable,
    utc_now,
)
from keepsake.values import convert, convert_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keepsake.capture.files import FileEntry
    from keepsake.repository.repository import Repository
    from keepsake.repository.status import Outcome


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
        saved_as: str | None = None,
    ) -> CheckpointRecord:
        """Accept a checkpoint; never raises."""
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


class Recorder:
    """Records one experiment into its repository.

    Args:
        repository: Where to.
        record: The experiment's record; kept up to date here.
        directory: The project directory, which relative paths are relative to.
        quiet: Say nothing at the start and the end.
    """

    def __init__(self, repository: Repository, record: ExperimentRecord, directory: Path, *, quiet: bool = False) -> None:
        self.record = record
        self._repository = repository
        self._directory = directory
        self._quiet = quiet
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._live = False
        self._over = False
        self._etag: str | None = None
        self._heartbeat: HeartbeatThread | None = None
        self._code_thread: threading.Thread | None = None
        self._primary_metric = record.primary_metric
        self._warned: set[str] = set()

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
        try:
            if beats:
                # Before the record, so that nobody ever sees the experiment without a sign of life.
                self._repository.beat(self.record.id)
            self._repository.save(self.record)
            self._etag = self._repository.record_etag(self.record.id)
        except BaseException:
            # A write may have had its effect all the same; an experiment that never began must not be listed.
            with suppress(StorageError):
                self._repository.delete_experiment(self.record)
            raise
        self._go_live(beats=beats)
        if self.record.path is not None:
            self._code_thread = threading.Thread(target=self._store_code, args=(entries,), name="keepsake-code", daemon=True)
            self._code_thread.start()
        if not self._quiet:
            count = sum(entry.kind != "directory" for entry in entries)
            code = f"code {count:,} file{'' if count == 1 else 's'}, " if self.record.path is not None else ""
            messages.info(f"experiment {layout.short_id(self.record.id)} started ({code}saving to {self._repository.label})")

    def _go_live(self, *, beats: bool) -> None:
        self._live = True
        if beats:
            self._heartbeat = HeartbeatThread(self._beat, self.record.heartbeat_interval_s or INTERVAL_S)
            self._heartbeat.start()
        exits.register(self)

    def _store_code(self, entries: Sequence[FileEntry]) -> None:
        id = self.record.id
        try:
            info = self._repository.store_archive(layout.experiment_archive_key(id), entries, id)
            self._update(lambda record: _announce(record, info))
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("the code", err, "the code of this experiment is not saved")

    def _beat(self) -> bool:
        try:
            self._present_etag()
        except DoesNotExist:
            # Deleted by somebody else: a further beat would be an orphan.
            return False
        self._repository.beat(self.record.id)
        return True

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def checkpoint(
        self,
        path: str | os.PathLike[str] | None,
        step: object,
        metrics: object,
        primary_metric: object,
        saved_as: str | None = None,
    ) -> CheckpointRecord:
        """Store files and metrics as a checkpoint.

        Whatever goes wrong is reported and not raised; what can be kept is kept: where the files cannot be stored, the
        metrics still are. The checkpoint is returned in any case, so that the caller's code works on.
        """
        checkpoint = CheckpointRecord(id=layout.new_id(), created=utc_now(), step=0)
        if os.getpid() != self._pid:
            messages.debug("checkpoint() in a forked process does nothing")
            return checkpoint
        try:
            with exits.uninterrupted(), self._lock:
                if self._over:
                    return checkpoint
                self._fill(checkpoint, step, metrics, primary_metric)
                self._present_etag()  # before files are written: they must not make a repository that has gone anew
                if path is not None:
                    self._store_files(checkpoint, path, saved_as)
                self._update(lambda record: record.checkpoints.append(checkpoint))
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("checkpoint()", err, "this checkpoint is not saved, earlier ones are intact")
        return checkpoint

    def _fill(self, checkpoint: CheckpointRecord, step: object, metrics: object, primary_metric: object) -> None:
        checkpoint.step = self._step(step)
        checkpoint.metrics, problems = convert_metrics(metrics)
        for problem in problems:
            self._warn(problem, problem)
        for name, value in checkpoint.metrics.items():
            if isinstance(value, float) and not is_comparable(value):
                self._warn(f"nan {name}", f"{name} is NaN at step {checkpoint.step}")
        if primary_metric is not None:
            self._primary_metric = self._parsed(primary_metric) or self._primary_metric
        metric = self._primary_metric
        # keepsake 0.4.2 looks up the primary metric at every checkpoint and fails where it is absent, so it is written
        # wherever it has a value and nowhere else.
        if metric is not None and metric.name in checkpoint.metrics:
            checkpoint.primary_metric = metric
        elif metric is not None and primary_metric is not None:
            self._warn(
                f"absent {metric.name}",
                f'the primary metric "{metric.name}" is not among the metrics at step {checkpoint.step}'
                f" ({', '.join(checkpoint.metrics) or 'there are none'})",
            )

    def _step(self, step: object) -> int:
        following = max((checkpoint.step for checkpoint in self.record.checkpoints), default=-1) + 1
        if step is None:
            return following
        number = convert(step)
        if isinstance(number, int | float) and number >= 0 and number == int(number):
            return int(number)
        self._warn("step", f"step must be a whole number that is not negative, not {step!r:.80}; {following} is used")
        return following

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
        self._warn(
            "primary_metric",
            'primary_metric must be a pair of a metric\'s name and "maximize" or "minimize", such as ("val_loss", "minimize"),'
            f" not {primary_metric!r:.80}; it is not set",
        )
        return None

    def _store_files(self, checkpoint: CheckpointRecord, path: str | os.PathLike[str], saved_as: str | None) -> None:
        try:
            name, entries = self._selected(path, saved_as)
            key = layout.checkpoint_archive_key(checkpoint.id)
            checkpoint.archive = self._repository.store_archive(key, entries, checkpoint.id)
            checkpoint.path = name
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report(
                f'checkpoint(path="{saved_as or path}")',
                err,
                f"its files are not saved (step {checkpoint.step}), its metrics and earlier checkpoints are",
            )

    def _selected(self, path: str | os.PathLike[str], saved_as: str | None) -> tuple[str, list[FileEntry]]:
        from keepsake.capture import files

        if saved_as is None:
            root = self._repository.local_root
            return files.checkpoint_files(self._directory, path, exclude=[root] if root is not None else [])
        source = Path(path)
        name, entries = files.checkpoint_files(source.parent, source.name)
        return saved_as, [replace(entry, name=saved_as + entry.name.removeprefix(name)) for entry in entries]

    # --- the end ----------------------------------------------------------------------------------------------------

    def finish(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """Record how the experiment ended, once."""
        if not self.is_live:
            return
        try:
            with exits.uninterrupted():
                self._finish(outcome, _error_text(error))
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("the end of the experiment", err, "it will be shown as stopped for lack of a heartbeat")

    def _finish(self, outcome: Outcome, error: str | None) -> None:
        self._retire()

        def end(record: ExperimentRecord) -> None:
            record.ended, record.outcome, record.error = utc_now(), outcome, error

        self._update(end)
        self._repository.end_beat(self.record.id)
        if not self._quiet and not self._over:
            messages.info(self._closing_line(outcome))

    def reopen(self) -> None:
        """Go on with an experiment that this process has ended: its outcome is taken back and it beats again."""
        if self._live or os.getpid() != self._pid:
            return
        try:
            with exits.uninterrupted():
                beats = self._heartbeat is not None
                if beats:
                    self._repository.beat(self.record.id)
                self._update(_take_back_the_end)
                self._go_live(beats=beats)
        except Exception as err:  # noqa: BLE001 - see the module's docstring
            self._report("going on with the experiment", err, "it is shown as ended, and takes checkpoints all the same")

    def abandon(self) -> None:
        """Stop without recording anything more: the experiment is being deleted."""
        if self.is_live:
            self._retire()
        self._over = True

    def _retire(self) -> None:
        self._live = False
        exits.unregister(self)
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._code_thread is not None and self._code_thread is not threading.current_thread():
            self._code_thread.join()

    def _closing_line(self, outcome: Outcome) -> str:
        ended = self.record.ended or utc_now()
        duration = _duration_text((ended - self.record.created).total_seconds())
        line = f"{layout.short_id(self.record.id)} {outcome} after {duration}"
        best, metric = self.record.best(), self.record.primary_metric
        if best is not None and metric is not None:
            line += f", best {metric.name} {best.metrics[metric.name]:.4g} at step {best.step}"
        return line

    # --- the record -------------------------------------------------------------------------------------------------

    def _update(self, change: Callable[[ExperimentRecord], None]) -> None:
        """Apply a change to the record as it stands in the repository, where somebody else may have changed it.

        Its etag tells: the same as after our last write, and our copy is the truth; another, and it is read anew; none, and
        the experiment was deleted, which ends the recording.
        """
        with self._lock:
            if self._over:
                return
            etag = self._present_etag()
            base = self.record if etag == self._etag else self._repository.load(self.record.id)
            changed = copy.copy(base)
            changed.checkpoints = list(base.checkpoints)
            change(changed)
            self._repository.save(changed)
            # Only what is written becomes our copy: a change that could not be saved has not happened.
            self.record.__dict__.update(changed.__dict__)
            self._etag = self._repository.record_etag(self.record.id)

    def _present_etag(self) -> str:
        """Return the record's etag; without a record, tell an experiment that was deleted from a repository that is gone."""
        etag = self._repository.record_etag(self.record.id)
        if etag is not None:
            return etag
        if not self._repository.exists():
            raise ReadError(f"the repository {self._repository.label} is not there", url=self._repository.storage.url)
        self._over = True
        with suppress(StorageError):
            self._repository.end_beat(self.record.id)
        raise DoesNotExist(f"experiment {layout.short_id(self.record.id)} was deleted meanwhile")

    # --- reports ----------------------------------------------------------------------------------------------------

    def _report(self, what: str, err: Exception, consequence: str) -> None:
        if self._over and isinstance(err, DoesNotExist):
            consequence = "nothing more of it is recorded"
        cause = err if isinstance(err, KeepsakeError | OSError | ValueError) else f"{type(err).__name__}: {err}"
        text = f"{what}: {redact_text(str(cause))}; {consequence}"
        if text.partition("(step")[0] not in self._warned:
            self._warned.add(text.partition("(step")[0])
            messages.error(text)
        messages.debug_exception(err)

    def _warn(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            messages.warning(text)


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
        saved_as: str | None = None,
    ) -> CheckpointRecord:
        """Return a checkpoint that is stored nowhere."""
        following = self.record.checkpoints[-1].step + 1 if self.record.checkpoints else 0
        checkpoint = CheckpointRecord(id=layout.new_id(), created=utc_now(), step=step if isinstance(step, int) else following)
        # Only the last one is kept: a long training must not grow for what nobody will read.
        self.record.checkpoints = [checkpoint]
        return checkpoint

    def reopen(self) -> None:
        """Do nothing."""

    def finish(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


def _take_back_the_end(record: ExperimentRecord) -> None:
    record.ended = record.outcome = record.error = None
    record.resumed = [*record.resumed, utc_now()]


def _announce(record: ExperimentRecord, info: ArchiveInfo) -> None:
    record.archive, record.archive_pending = info, False


def _error_text(error: BaseException | str | None) -> str | None:
    """Return type and message of an exception in one line, without secrets."""
    if error is None:
        return None
    try:
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:  # noqa: BLE001 - an exception whose own text fails still has a type
        text = type(error).__name__
    return redact_text(" ".join(text.split()))[:MAX_ERROR_LENGTH]


MAX_ERROR_LENGTH = 1000
"""Longest error text in a record, in characters: a message may hold a whole tensor."""


def _duration_text(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"
