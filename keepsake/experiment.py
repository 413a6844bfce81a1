"""Experiment and ExperimentList: an experiment's record and its verbs, as people use them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

from keepsake import annotating
from keepsake.checkpoint import Checkpoint, CheckpointList, PrimaryMetric
from keepsake.display import text
from keepsake.display.page import Displayed
from keepsake.exceptions import DoesNotExist, KeepsakeError
from keepsake.experiment_list import ExperimentList
from keepsake.history import History
from keepsake.query.compare import SECTIONS
from keepsake.recorded import Recorded
from keepsake.recording.disabled import DisabledRecorder
from keepsake.recording.live import live_recorder
from keepsake.repository import annotations as said
from keepsake.repository import history, layout
from keepsake.repository.annotations import Annotation, check_label
from keepsake.repository.history import Point
from keepsake.repository.json_values import utc_now
from keepsake.repository.status import Heartbeat, Outcome, Status
from keepsake.repository.summary import Summary

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType

    from keepsake.comparing import Difference
    from keepsake.display.page import Page
    from keepsake.display.plots import Along, Curve
    from keepsake.project import Project
    from keepsake.query.listed import Listed
    from keepsake.recording.recording import Ending, Recording
    from keepsake.repository.archive import ArchivedFile
    from keepsake.repository.primary_metric import Goal
    from keepsake.repository.records import CheckpointRecord, ExperimentRecord
    from keepsake.repository.repository import Repository

__all__ = ["Experiment", "ExperimentList"]


class Experiment(Recorded, Displayed):
    """One run of a training: its code, params, packages and checkpoints.

    Made by `keepsake.init`, and found by ``keepsake.experiments``. Fields are as of the moment when it was loaded; `refresh`
    loads them anew.

    Args:
        project: The project that it belongs to.
        record: What is recorded of it, or what a listing has found.
        recording: Who records it in this process, if somebody does.

    Example:
        >>> import keepsake
        >>> with keepsake.init(params={"lr": 0.1}) as experiment:  # doctest: +SKIP
        ...     experiment.checkpoint(metrics={"loss": 0.3}, primary_metric=("loss", "minimize"))
    """

    def __init__(self, project: Project, record: ExperimentRecord | Listed, recording: Recording | None = None) -> None:
        super().__init__(record)
        self.project = project
        self._recording = recording
        self._annotation: Annotation | None = None

    @property
    def checkpoints(self) -> CheckpointList:
        """All checkpoints, oldest first."""
        return CheckpointList(Checkpoint(checkpoint, self) for checkpoint in self.record.checkpoints)

    @property
    def repository(self) -> Repository:
        """The repository that it lies in."""
        return self.project.repository_at_hand()

    # --- what people say of it --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What people call it; empty if nobody has given it a name."""
        return self._said().name

    @property
    def tags(self) -> tuple[str, ...]:
        """Words that group experiments, sorted."""
        return self._said().tags

    @property
    def notes(self) -> str:
        """What people have written about it."""
        return self._said().notes

    def tag(self, *tags: str) -> None:
        """Add tags, and remove those that a minus stands before.

        Never raises where this process records the experiment, nor do `rename` and `note`.

        Args:
            tags: Such as ``"prod"`` and ``"-old"``: letters, digits and ``. _ - /``, a letter or a digit first.

        Raises:
            InvalidName: Something cannot be a tag.
            DoesNotExist: The experiment was deleted.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("4591273").tag("prod", "-old")  # doctest: +SKIP
        """

        def tagged(before: Annotation) -> Annotation:
            removed = [tag[1:] for tag in tags if tag.startswith("-")]
            return before.tagged([check_label(tag, "tag") for tag in tags if not tag.startswith("-")], removed)

        self._say(tagged, "tags")

    def rename(self, name: str) -> None:
        """Give it a name that no other experiment has, under which it can be found; an empty one takes its name away.

        Args:
            name: Letters, digits and ``. _ - /``, a letter or a digit first; nothing that looks like the start of an ID.

        Raises:
            InvalidName: It cannot be a name, or another experiment has it.
            DoesNotExist: The experiment was deleted.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("4591273").rename("warm-up")  # doctest: +SKIP
        """

        def renamed(before: Annotation) -> Annotation:
            return replace(before, name=name)

        def check() -> None:
            if name and self._is_stored:
                annotating.require_free(self.project, name, self.id)

        self._say(renamed, "name", check)

    def note(self, text: str) -> None:
        """Write notes about it, in place of those that there are.

        Args:
            text: Any text; an empty one takes them away.

        Raises:
            DoesNotExist: The experiment was deleted.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("4591273").note("lower dropout after sweep 3")  # doctest: +SKIP
        """

        def noted(before: Annotation) -> Annotation:
            if not isinstance(text, str):
                raise TypeError(f"notes must be a text, not {type(text).__name__}")
            return replace(before, notes=text)

        self._say(noted, "notes")

    def give_alias(self, name: str, checkpoint_id: str) -> None:
        """Give one of its checkpoints an alias; see `Checkpoint.alias`."""
        with self._unless_recorded(f"alias {name}"):
            if self._is_stored:
                said.set_alias(self.repository, name, said.Alias(checkpoint_id, self.id))

    def _said(self) -> Annotation:
        if self._annotation is None:
            self._annotation = Annotation()
            if self._listed is not None:
                self._annotation = self._listed.summary.annotation or self._annotation
            elif self._is_stored:
                with self._unless_recorded("name, tags and notes"):
                    self._annotation = said.read(self.repository, self.id)
        return self._annotation

    def _say(self, changed: Callable[[Annotation], Annotation], what: str, check: Callable[[], None] = lambda: None) -> None:
        with self._unless_recorded(what):
            # Looks at all experiments, so not while this one is locked.
            check()
            if self._is_stored:
                self._annotation = said.change(self.repository, self.id, changed)
            else:
                self._annotation = changed(self._said())

    @contextmanager
    def _unless_recorded(self, what: str) -> Iterator[None]:
        """Let errors pass, unless this process records the experiment: its training must go on."""
        try:
            yield
        except Exception as err:
            if self._recording is None:
                raise
            annotating.guarded(err, f"{what} of experiment {self.short_id()}")

    # --- what follows from them -------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """Whether it runs, and why not; as of the moment when it was loaded."""
        if self._recording is not None and self._recording.is_live:
            return Status("running", "running", utc_now())
        return self._known.status

    @property
    def summary(self) -> Summary:
        """What tables show of it, as data."""
        if self._listed is not None:
            return self._listed.summary
        summary = Summary.of(self.record)
        summary.annotation = self._said()
        if self.status.word == "running" and summary.heartbeat is None:
            # By this process, which need not ask the repository.
            summary.heartbeat = Heartbeat(0.0, utc_now())
        return summary

    def is_running(self) -> bool:
        """Tell whether it runs now, anywhere: its heartbeat in the repository decides."""
        if self._recording is not None and self._recording.is_live:
            return True
        try:
            return self._is_stored and self.repository.load(self.id).status.word == "running"
        except DoesNotExist:
            return False

    @property
    def duration(self) -> timedelta | None:
        """From the start to the end; for one that has no end, to now if it runs, else to its last sign of life.

        None where there is no such sign.
        """
        if self.status.word == "running":
            return utc_now() - self.created
        latest = self._known.latest()
        end = self.ended or self.status.last_heartbeat or (latest.created if latest is not None else None)
        return end - self.created if end is not None else None

    def best(self, metric: str | None = None, *, goal: Goal | None = None) -> Checkpoint | None:
        """Return the checkpoint with the best primary metric, or of another one; None if no checkpoint has a value of it.

        NaN never wins, and checkpoints without the metric are left out. Of equals the earliest is returned.

        Args:
            metric: The metric; the primary one if not given.
            goal: ``"minimize"`` or ``"maximize"``; what is recorded of this metric if not given.

        Raises:
            ValueError: Nothing says what is better of the metric.
        """
        if metric is not None or goal is not None:
            return self.checkpoints.best(metric, goal=goal)
        best = self._known.best()
        return Checkpoint(best, self) if best is not None else None

    def latest(self) -> Checkpoint | None:
        """Return the checkpoint made last; None if there are none."""
        latest = self._known.latest()
        return Checkpoint(latest, self) if latest is not None else None

    def primary_metric(self) -> str:
        """Return the name of the primary metric.

        Raises:
            ValueError: No checkpoint has one.
        """
        metric = self.metric_in_force
        if metric is None:
            raise ValueError(f"experiment {self.short_id()} has no primary metric")
        return metric.name

    # --- recording --------------------------------------------------------------------------------------------------

    def checkpoint(
        self,
        path: str | os.PathLike[str] | None = None,
        step: int | None = None,
        metrics: dict[str, Any] | None = None,
        primary_metric: tuple[str, str] | PrimaryMetric | None = None,
        quiet: bool = False,
        *,
        saved_as: str | None = None,
        move: bool = False,
    ) -> Checkpoint:
        """Save files and metrics of this moment.

        When it returns, the files may be changed or removed, and the checkpoint outlives the process, however it ends. It is stored in
        the background; `flush` waits for that. Never raises: what goes wrong is reported on standard error, what can be kept is kept,
        and the training goes on.

        Args:
            path: File or directory to save, relative to the project directory or absolute. What lies outside of the project
                is saved under its base name. None saves no files.
            step: Number of the step, not negative; one more than the highest so far if it is not given.
            metrics: Values by name: numbers of any library, also zero-dimensional arrays and tensors; NaN and infinities are
                kept. Arrays become lists up to 1,000 elements.
            primary_metric: The metric by which the best checkpoint is chosen, and ``"maximize"`` or ``"minimize"``. It holds
                for the checkpoints that follow until another is given; what the configuration says under ``primary_metric`` if none is.
            quiet: Accepted for compatibility; a checkpoint says nothing unless something is wrong.
            saved_as: Relative path that ``path`` is saved under, such as ``out/model.pth`` for a file that lies elsewhere now; its
                own if not given.
            move: Take the file or directory itself, which is gone afterwards: in constant time, for whoever saved it only for this. It
                is copied and stays where it lies on another file system, is a link or holds files that are left out.

        Returns:
            The checkpoint, also if it could not be stored.

        Example:
            >>> import keepsake
            >>> experiment = keepsake.init(params={"lr": 0.1})  # doctest: +SKIP
            >>> experiment.checkpoint("model.pth", step=1, metrics={"loss": 0.3})  # doctest: +SKIP
        """
        record = self._recorder().checkpoint(path, step, metrics, primary_metric, saved_as=saved_as, move=move)
        return Checkpoint(record, self)

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics between checkpoints, as one point of the history.

        As cheap as a line appended to a file, so that it can be called at each step. When it returns, the point outlives the process.
        Never raises, as `checkpoint`.

        Args:
            metrics: Values by name, as for `checkpoint`.
            step: Number of the step, not negative; one more than that of the point before if it is not given. Several points may
                have the same step.

        Example:
            >>> import keepsake
            >>> experiment = keepsake.init(params={"lr": 0.1})  # doctest: +SKIP
            >>> experiment.log({"loss": 0.3}, step=1)  # doctest: +SKIP
        """
        self._recorder().log(metrics, step)

    def _recorder(self) -> Recording:
        """Return who records it: who does so already in this process, else somebody new."""
        if self._recording is None:
            live = live_recorder(self.repository, self.id)
            # From now on it changes, so what a listing has found is outdated.
            self.record = live.record if live is not None else self.record
            self._recording = live or self.project.recorder(self.record, quiet=True)
        return self._recording

    def flush(self) -> bool:
        """Wait until all checkpoints that this process has made of it are stored in the repository.

        Not needed to be safe, nor before the end: an experiment that ends waits by itself.

        Returns:
            Whether they are; what could not be stored has been reported.

        Example:
            >>> import keepsake
            >>> experiment = keepsake.init(params={"lr": 0.1})  # doctest: +SKIP
            >>> experiment.checkpoint("model.pth")  # doctest: +SKIP
            >>> experiment.flush()  # doctest: +SKIP
            True
        """
        recording = self._recording or live_recorder(self.repository, self.id)
        return recording is None or recording.flush()

    def stop(self) -> None:
        """End the experiment as finished.

        At the end of a script this happens by itself; in a notebook call it when you are done.
        """
        self.finish("finished")

    def reopen(self) -> None:
        """Go on with an experiment that this process has ended, as after a second call of a framework's fit.

        Does nothing if it runs still, or is not recorded by this process.
        """
        if self._recording is not None:
            self._recording.reopen()

    def watch(self, ending: Ending) -> None:
        """Let the experiment end by itself where nobody will say that it has: for frameworks that do not tell of exceptions.

        Does nothing if it is not recorded by this process.

        Args:
            ending: Called every few seconds, from another thread: returns None while the training goes on, then outcome and error as
                `finish` takes them.
        """
        if self._recording is not None:
            self._recording.watch(ending)

    def finish(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """End the experiment with an outcome; does nothing if it has ended, or was not started by this process.

        Args:
            outcome: ``"finished"``, ``"failed"`` or ``"interrupted"``.
            error: What made it fail, an exception or a text.
        """
        if self._recording is not None:
            self._recording.finish(outcome, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.finish(*_ending(error))
        return False

    # --- reading ----------------------------------------------------------------------------------------------------

    def history(self) -> History:
        """Return the metrics of all steps: those that were logged and those of the checkpoints.

        Example:
            >>> import keepsake
            >>> history = keepsake.experiments.get("4591273").history()  # doctest: +SKIP
            >>> history["loss"][-1]  # doctest: +SKIP
            0.3
        """
        points = self.repository.history(self.id) if self._is_stored else []
        return History.merged([*points, *(Point(one.step, one.created, one.metrics) for one in self.record.checkpoints)])

    def diff(
        self,
        other: Experiment | Checkpoint | str | None = None,
        *,
        only: Collection[str] | str = SECTIONS,
        path: Sequence[str] | str = (),
    ) -> Difference:
        """Compare it with another one, as ``keepsake diff`` does, its best checkpoint or else its latest.

        Args:
            other: An experiment or a checkpoint, or a reference to one such as ``"best"``; None is the working directory.
            only: Which of ``params``, ``metrics``, ``env``, ``code`` and ``files`` to compare; all if not given.
            path: Patterns of the files that are compared; all if not given.

        Returns:
            What differs, as data; printed it is what the command prints.

        Raises:
            DoesNotExist: The reference names nothing.
            ValueError: There is no such section, or both lie in different repositories.
            ReadError: What was saved cannot be read.

        Example:
            >>> import keepsake
            >>> print(keepsake.experiments.get("4591273").diff("eb96def"))  # doctest: +SKIP
        """
        from keepsake.comparing import difference

        return difference(self.project, self, other, only, path)

    def plot(
        self,
        metric: str | None = None,
        logy: bool = False,
        plot_only: bool = False,
        *,
        x: Along = "step",
        logx: bool = False,
        smooth: float = 0.0,
        ax: Any = None,
    ) -> Any:
        """Draw a metric over the steps, as it was logged and at the checkpoints, with the best checkpoint marked.

        Args:
            metric: Its name; the primary metric if not given.
            logy: Give its axis a logarithmic scale.
            plot_only: Draw the curve and nothing around it, into the present axes of ``matplotlib.pyplot`` if no axes are given.
            x: What to draw it along: ``"step"``, ``"time"`` (the moment when it was recorded) or ``"elapsed"`` (since the beginning).
            logx: Give that axis a logarithmic scale.
            smooth: How much of each value is taken from those before it, from 0 (nothing) to below 1; the line as it was recorded
                stays visible behind.
            ax: Axes of matplotlib to draw into; those of a new figure if not given.

        Returns:
            The axes.

        Raises:
            ValueError: No metric is given, and there is no primary one; it has no numbers; another argument makes no sense.
            KeyError: The metric was never recorded.
            MissingDependency: matplotlib is not installed.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("4591273").plot("loss", logy=True)  # doctest: +SKIP
        """
        from keepsake.display.plots import plot_curves

        name = metric if metric is not None else self.primary_metric()
        curve = self.curve(name)
        return plot_curves([curve], name, x=x, logx=logx, logy=logy, smooth=smooth, plot_only=plot_only, ax=ax)

    def curve(self, metric: str) -> Curve:
        """Return the course of a metric, as plots draw it.

        Raises:
            KeyError: The metric was never recorded.
        """
        from keepsake.display.plots import Curve

        return Curve.of(self.record, metric, self.history().points(metric), self.name)

    def refresh(self) -> None:
        """Load all fields anew from the repository.

        Raises:
            DoesNotExist: It was deleted.
        """
        self._annotation = None if self._is_stored else self._annotation
        if self._recording is not None and self._recording.is_live:
            self._recording.refresh()
        elif self._is_stored:
            fresh = self.repository.load(self.id)
            if self._record is None:
                self.record = fresh
            else:
                # In place, for whoever else holds it.
                self._record.__dict__.update(fresh.__dict__)
                self._listed = None

    def wait_for_files(self, record: ExperimentRecord | CheckpointRecord) -> None:
        """Make sure that files which this process has saved are stored, before they are read.

        Args:
            record: The experiment's record or one of its checkpoints'; brought up to date.
        """
        if not record.archive_pending or not self.flush():
            return
        fresh = self.repository.load(self.id)
        owners: list[ExperimentRecord | CheckpointRecord] = [fresh, *fresh.checkpoints]
        for found in owners:
            if found.id == record.id:
                record.archive, record.archive_pending = found.archive, found.archive_pending

    def delete(self) -> None:
        """Delete the experiment with all its checkpoints and files."""
        record = self.let_go()
        if record is not None:
            self.repository.delete_experiment(record)

    def let_go(self) -> ExperimentRecord | None:
        """Record it no more, because it is about to be deleted; return what is to be deleted, if there is anything."""
        if self._recording is not None:
            self._recording.abandon()
        with suppress(DoesNotExist):
            # Of one that was listed, and that somebody else has deleted since, nothing is left.
            return self.record if self._is_stored else None
        return None

    @property
    def _is_stored(self) -> bool:
        return not isinstance(self._recording, DisabledRecorder)

    def open(self, path: str | os.PathLike[str]) -> BinaryIO:
        """Open one file of the saved code for reading; the files of a checkpoint are opened by `Checkpoint.open`.

        Args:
            path: Its path relative to the project directory.

        Returns:
            A readable, seekable binary stream.

        Raises:
            DoesNotExist: No code was saved, or not this file.
            ReadError: The archive is missing or damaged.
        """
        self._require_code()
        return self.repository.archives.open_file(layout.experiment_archive_key(self.id), PurePath(path).as_posix())

    def files(self) -> list[ArchivedFile]:
        """Return what was saved as code: paths, sizes and digests, from the archive's index alone where it has one.

        The files of a checkpoint are returned by `Checkpoint.files`.

        Raises:
            DoesNotExist: No code was saved.
            ReadError: The archive is missing or damaged.

        Example:
            >>> import keepsake
            >>> [file.path for file in keepsake.experiments.get("4591273").files()]  # doctest: +SKIP
            ['train.py']
        """
        self._require_code()
        return self.repository.archives.files(layout.experiment_archive_key(self.id))

    def _require_code(self) -> None:
        if self.path is None:
            raise DoesNotExist(f"experiment {self.short_id()} has no saved code: init() was not given a path")
        self.wait_for_files(self.record)

    def checkout(
        self,
        output_directory: str | os.PathLike[str] | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        quiet: bool = False,
        code_only: bool = False,
        weights_only: bool = False,
    ) -> None:
        """Copy the code and the files of the best checkpoint, else of the latest, into a directory, over what is there.

        A keepsake.yaml that is there stays as it is.

        Args:
            output_directory: Where to, made if it does not exist; the project directory if not given.
            path: Only this file or directory.
            quiet: Do not say what was done.
            code_only: Leave out the files of the checkpoint.
            weights_only: Leave out the code.

        Raises:
            ValueError: Both are to be left out.
            DoesNotExist: Nothing was saved, or not this path.
            ReadError: An archive is missing, damaged or unsafe.
        """
        from keepsake.checkout import checkout

        target = Path(output_directory) if output_directory is not None else self.project.directory
        if code_only and weights_only:
            raise ValueError("code_only and weights_only leave nothing to copy")
        checkpoint = None if code_only else self.best() or self.latest()
        checkout(self, checkpoint, target, path=path, code=not weights_only, quiet=quiet)

    def _page(self) -> Page:
        from keepsake.display import notebook

        record, annotation, problem = self.outline(), None, ""
        courses = history.courses((), record.checkpoints)
        try:
            annotation = self.summary
            record = self.record
            if self.status.word == "running" and record.heartbeat is None:
                record = replace(record, heartbeat=Heartbeat(0.0, utc_now()))
            courses = history.courses((), record.checkpoints)
            if self._is_stored:
                courses = self.repository.courses(record)
                own = {checkpoint.id for checkpoint in record.checkpoints}
                given = {name: alias.checkpoint for name, alias in said.aliases(self.repository).items()}
                annotation.aliases = {name: id for name, id in given.items() if id in own}
        except KeepsakeError as err:
            # A notebook shows what it has, also where the store cannot be reached.
            problem = err.message
        return notebook.experiment_page(record, courses, annotation, problem)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the live part behind: a copy in another process reads, and does not record."""
        whole = {
            "_record": self.record,
            "_listed": None,
            "_annotation": self._annotation if self._listed is None else self._said(),
        }
        return self.__dict__ | whole | ({} if isinstance(self._recording, DisabledRecorder) else {"_recording": None})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        params = ", ".join(f"{text.safe(name)}={value!r}" for name, value in self.params.items())
        return f"<Experiment {self.short_id()} {self.status.word}, {self.num_checkpoints} checkpoints{': ' if params else ''}{params}>"


def _ending(error: BaseException | None) -> tuple[Outcome, BaseException | None]:
    """Return outcome and error for what left a ``with`` block."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "finished", None
    return ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed"), error
