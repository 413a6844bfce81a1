"""Project and init(): binds a directory to the repository that its experiments are recorded in."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepsake import config, messages
from keepsake.exceptions import ConfigInvalid, DoesNotExist, KeepsakeError, StorageUnavailable
from keepsake.query.index import Index
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.repository import Repository
from keepsake.storage import OverlayStorage, from_url
from keepsake.storage.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from keepsake.capture.files import FileEntry
    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment, ExperimentList
    from keepsake.query.references import Match
    from keepsake.recording.outbox import Outbox
    from keepsake.recording.recorder import Recorder
    from keepsake.recording.uploader import Sync
    from keepsake.repository.primary_metric import Goal
    from keepsake.repository.records import ExperimentRecord
    from keepsake.repository.summary import Summary

__all__ = ["CheckpointCollection", "ExperimentCollection", "Project", "init"]

MODES = ("online", "offline", "disabled")
"""Values of ``KEEPSAKE_MODE``. A repository on disk needs no network, so "offline" changes nothing there; what is recorded for a store
stays in the outbox."""


class Project:
    """A directory with code, and the repository that its experiments are recorded in.

    The constructor does no input or output: keepsake.yaml is looked for at the first use.

    Args:
        repository: URL of the repository; what keepsake.yaml says if not given.
        directory: The project directory; where keepsake.yaml is found, from the working directory upwards, if not given.
        debug: Accepted for compatibility; ``KEEPSAKE_DEBUG=1`` is its successor.

    Attributes:
        helpers: How many processes may help this one where thousands of records have to be read; default: 0. Starting some is for a
            program of its own, as the command line is: within somebody's training it would be a surprise.
        uses_index: Whether what is known of experiments is kept in the user's cache directory, and used from there; default: True.

    Example:
        >>> project = Project(repository="file:///data/experiments")
        >>> project.experiments.list()  # doctest: +SKIP
    """

    def __init__(
        self,
        repository: str | None = None,
        directory: str | os.PathLike[str] | None = None,
        debug: bool = False,
    ) -> None:
        self._repository_argument = repository
        self._directory_argument = directory
        self._config: config.Config | None = None
        self._repository: Repository | None = None
        self._store: Repository | None = None
        self._outbox: Outbox | None = None
        self._index: Index | None = None
        self._index_owner = (0, 0)
        self.helpers = 0
        self.uses_index = True

    @property
    def directory(self) -> Path:
        """The project directory, absolute."""
        return self._config.directory if self._config is not None else config.find_directory(self._directory_argument)

    @property
    def repository_url(self) -> str:
        """The repository as the user wrote it.

        Raises:
            ConfigNotFound: Nobody said which.
            ConfigInvalid: A configuration file cannot be understood.
        """
        return self._loaded_config().repository

    @property
    def experiments(self) -> ExperimentCollection:
        """The experiments of this project."""
        return ExperimentCollection(self)

    def settings(self) -> config.Settings:
        """Return what keepsake.yaml, the other files and the environment set for this project, as they are now."""
        return config.Settings(self.directory)

    @property
    def checkpoints(self) -> CheckpointCollection:
        """The checkpoints of this project."""
        return CheckpointCollection(self)

    def repository_at_hand(self) -> Repository:
        """Return the repository, the same object at every call.

        Raises:
            ConfigNotFound: Nobody said which.
            ConfigInvalid: A configuration file cannot be understood.
            RepositoryConfigurationError: Its URL is malformed or of an unknown scheme.
        """
        if self._repository is None:
            loaded = self._loaded_config()
            found = Repository.at(loaded.url, label=_without_secrets(loaded.repository))
            if found.local is None:
                from keepsake.recording.outbox import Outbox

                messages.logger()  # which the libraries of stores use by themselves
                self._store = found
                self._outbox = Outbox.of(self.directory, found.storage.url)
                found = Repository(OverlayStorage(self._outbox.storage, found.storage), label=found.label)
                _say_what_waits(self._outbox)
            self._repository = found
        return self._repository

    def index(self) -> Index:
        """Return what is known of all its experiments without reading their records, the same object at every call of a thread."""
        # It belongs to the thread that made it, and a forked child must not touch it.
        owner = (os.getpid(), threading.get_ident())
        if self._index is None or self._index_owner != owner:
            repository = self.repository_at_hand()
            self._index = Index.of(repository) if self.uses_index else Index(repository, None)
            self._index.helpers = self.helpers
            self._index_owner = owner
        return self._index

    def find(self, reference: str) -> Match:
        """Return the records that a reference names, as they are now; see `find_all`."""
        return self.find_all([reference])[0]

    def find_all(self, references: Iterable[str]) -> list[Match]:
        """Return the records that references name, as they are now, by one look; see `keepsake.query.references`.

        Raises:
            DoesNotExist: One names nothing.
            AmbiguousID: One could mean several.
            InvalidQuery: One is no reference.
        """
        from keepsake.query.references import resolve

        index = self.index()
        index.forget()
        return [resolve(reference, index) for reference in references]

    def recorder(self, record: ExperimentRecord, *, quiet: bool) -> Recorder:
        """Return who records an experiment: into the repository on disk, or through the outbox of the store that it lies in.

        Args:
            record: The experiment's record.
            quiet: Say nothing at the start and the end.
        """
        from keepsake.recording.recorder import Recorder
        from keepsake.recording.uploader import Uploader

        repository, metric = self.repository_at_hand(), self._primary_metric()
        if self._outbox is None or self._store is None:
            return Recorder(repository, record, self.directory, quiet=quiet, primary_metric=metric)
        uploader = None if _mode() == "offline" else Uploader(self._outbox, self._store, record.id)
        store = self._outbox.repository
        return Recorder(store, record, self.directory, quiet=quiet, uploader=uploader, primary_metric=metric)

    def _primary_metric(self) -> PrimaryMetric | None:
        """Return the primary metric of checkpoints that are given none."""
        try:
            said = self.settings().get("primary_metric").value
        except KeepsakeError as err:
            # keepsake.init() raises this; here somebody adds a checkpoint to an experiment in the middle of their work.
            messages.warning(f"{err.message}; no primary metric is set")
            return None
        return PrimaryMetric(*said) if said is not None else None

    def prepare(self) -> None:
        """Make sure, before a training begins, that its experiment can be recorded.

        A store that cannot be reached for the moment is no reason not to begin; one that will never take anything is.

        Raises:
            KeepsakeError: The repository cannot be written, or is of a format that we must not write.
        """
        # Not at the moment of the first line, which may come from the handler of a signal.
        messages.logger()
        repository = self.repository_at_hand()
        if self._outbox is None:
            repository.prepare()
            return
        self._outbox.prepare()
        if _mode() == "offline":
            return
        try:
            repository.prepare()
        except StorageUnavailable as err:
            messages.warning(f"{err.message}; recording into {self._outbox.directory} until it can be reached")

    def reachable_repository(self) -> Repository:
        """Return the repository as far as it may be asked: offline, only what this machine has not uploaded yet."""
        repository = self.repository_at_hand()
        return repository.local or repository if _mode() == "offline" else repository

    def store_at_hand(self) -> Repository:
        """Return the repository itself, without what an outbox on this machine holds in front of it."""
        repository = self.repository_at_hand()
        return self._store or repository

    def copy_to(
        self,
        target: Project,
        ids: Sequence[str] = (),
        *,
        progress: Callable[[int], Callable[[int], None]] | None = None,
    ) -> tuple[int, int]:
        """Copy experiments into the repository of another project, with everything that belongs to them.

        What is there already is left out, so a copy that broke off goes on where it was.

        Args:
            target: The other project.
            ids: IDs, or beginnings of IDs, of experiments; all of them if not given.
            progress: Called with the number of bytes in all; what it returns is called with how many more have been copied.

        Returns:
            How many experiments were copied or completed, and how many were there already.

        Raises:
            DoesNotExist: An ID fits nothing; nothing was copied then.
            StorageError: Either store failed, or an archive is not what its record says.
        """
        from keepsake.repository import copying

        source, destination = self.repository_at_hand(), target.store_at_hand()
        records = [self.find(id).experiment for id in ids] if ids else source.list_experiments()
        destination.prepare()
        copied = progress(sum(map(copying.size_bytes, records))) if progress is not None else None
        count = copying.copy_experiments(source, destination, records, on_progress=copied)
        return count, len(records) - count

    def syncs(self) -> list[Sync]:
        """Return what uploads each outbox of this project: all that was recorded here for a store and has not arrived there yet.

        Where a repository was named, only that one's. It takes no configuration: the directory may have been copied from another machine.
        """
        from keepsake.recording.outbox import outboxes
        from keepsake.recording.uploader import Sync

        found = list(outboxes(self.directory))
        if self._repository_argument is not None:
            wanted = from_url(self._loaded_config().url).url
            found = [outbox for outbox in found if outbox.url == wanted]
        return [Sync(outbox, Repository.at(outbox.url)) for outbox in found if outbox.experiment_ids()]

    def _loaded_config(self) -> config.Config:
        if self._config is None:
            self._config = config.load(self._repository_argument, self._directory_argument)
        return self._config

    def __getstate__(self) -> dict[str, Any]:
        """Leave the index behind: its tables are a process's own."""
        return self.__dict__ | {"_index": None}

    def __repr__(self) -> str:
        return f"<Project {self.directory}>"


class ExperimentCollection:
    """The experiments of a project: makes, finds and lists them.

    Args:
        project: The project; None for the one that the working directory lies in, looked for anew at each call.
    """

    def __init__(self, project: Project | None = None) -> None:
        self._bound_project = project

    @property
    def project(self) -> Project:
        """The project that these experiments belong to."""
        return self._bound_project or Project()

    # --- recording --------------------------------------------------------------------------------------------------

    def create(
        self,
        path: str | os.PathLike[str] | None = None,
        params: object = None,
        quiet: bool = False,
        disable_heartbeat: bool = False,
        *,
        resume: str | bool | None = None,
        exclude: Collection[str | os.PathLike[str]] = (),
        is_rank_zero: bool | None = None,
        name: str | None = None,
        tags: Iterable[str] | str | None = None,
        notes: str | None = None,
    ) -> Experiment:
        """Start an experiment, or go on with one.

        Args:
            path: File or directory of the project to save, relative to its directory; None saves no code.
            params: Hyperparameters by name; see `keepsake.init`.
            quiet: Say nothing at the start and the end.
            disable_heartbeat: Do not say every few seconds that the process is alive; the experiment is then never running.
            resume: Which experiment to go on with; see `keepsake.init`.
            exclude: Further directories that are not saved, such as a framework's own output.
            is_rank_zero: Whether this process of a distributed job records; found out from the environment if not given.
            name: What to call it; see `keepsake.init`.
            tags: Its tags.
            notes: Its notes.

        Raises:
            KeepsakeError: No repository is configured, or it cannot be written; there is no such experiment to go on with, or another
                process records it.
            ValueError: ``path`` leaves the project directory, or ``resume`` makes no sense.
            FileNotFoundError: ``path`` does not exist.
        """
        # What reads experiments must not wait for what records them.
        from keepsake import annotating, resuming
        from keepsake.experiment import Experiment
        from keepsake.recording.disabled import DisabledRecorder
        from keepsake.repository.records import ExperimentRecord
        from keepsake.values import convert_params

        wanted = resuming.wanted(resume)
        said = annotating.wanted(name, tags, notes)
        values, problems = convert_params(params)
        reason = _why_disabled(is_rank_zero)
        if reason is not None:
            messages.debug(f"{reason}: nothing is recorded")
            record = ExperimentRecord(id=layout.new_id(), created=utc_now(), params=values, outcome="finished")
            return Experiment(self.project, record, DisabledRecorder(record))
        for problem in problems:
            messages.warning(problem)
        project = self.project
        settings = _settings_of_recording(project)
        project.prepare()
        record = _new_record(project, path, values, settings, beats=not disable_heartbeat)
        if wanted is not None:
            earlier = resuming.find(project.reachable_repository(), wanted, command=record.command, params=record.params)
            if earlier is not None:
                resumed = _resumed(project, earlier, record, quiet=quiet)
                annotating.say(project, resumed.id, said)
                return resumed
            if wanted == "auto" and not quiet:
                messages.info("no experiment of this command and these params waits to be gone on with, so this is a new one")
            record.id = wanted if layout.is_id(wanted) else record.id
        entries = _code_entries(project.directory, path, project.repository_at_hand(), exclude)
        recorder = project.recorder(record, quiet=quiet)
        recorder.start(entries, beats=not disable_heartbeat)
        annotating.say(project, record.id, said)
        return Experiment(project, record, recorder)

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, experiment_id_prefix: str) -> Experiment:
        """Return the experiment that a reference names, or to which the checkpoint belongs that it names.

        Args:
            experiment_id_prefix: The start of an ID, a name, ``@alias``, ``last``, ``last~2`` or ``best``; see `find`.

        Raises:
            DoesNotExist: It names nothing.
            AmbiguousID: It could mean several.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.get("@production").params["lr"]  # doctest: +SKIP
            0.1
        """
        return self.find(experiment_id_prefix)[0]

    def find(self, prefix: str) -> tuple[Experiment, Checkpoint | None]:
        """Return what a reference names: an experiment and None, or a checkpoint with its experiment.

        Args:
            prefix: The start of an ID, a name of an experiment, ``@alias`` of a checkpoint, ``last`` (the newest experiment), ``last~2``
                (the third newest) or ``best`` (the one with the best primary metric); behind what names an experiment may stand
                ``@best``, ``@latest`` or ``@step:4000``, which name one of its checkpoints.

        Raises:
            DoesNotExist: It names nothing.
            AmbiguousID: It could mean several.
            InvalidQuery: What stands behind the ``@`` names no checkpoint.

        Example:
            >>> import keepsake
            >>> experiment, checkpoint = keepsake.experiments.find("last@best")  # doctest: +SKIP
        """
        return self.find_all([prefix])[0]

    def find_all(self, prefixes: Iterable[str]) -> list[tuple[Experiment, Checkpoint | None]]:
        """Return what several references name, by one look at the repository; see `find`.

        Args:
            prefixes: The references.

        Raises:
            DoesNotExist: One names nothing.
            AmbiguousID: One could mean several.
            InvalidQuery: What stands behind an ``@`` names no checkpoint.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.find_all(["last", "last~1"])  # doctest: +SKIP
        """
        from keepsake.checkpoint import Checkpoint
        from keepsake.experiment import Experiment

        project = self.project
        found: list[tuple[Experiment, Checkpoint | None]] = []
        for match in project.find_all(prefixes):
            experiment = Experiment(project, match.experiment)
            found.append((experiment, Checkpoint(match.checkpoint, experiment) if match.checkpoint is not None else None))
        return found

    def list(
        self,
        filter: str | Callable[[Experiment], Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
    ) -> ExperimentList:
        """Return the experiments, oldest first.

        Args:
            filter: A filter as on the command line, such as ``"val_loss < 0.2 and optimizer = adam"``; or a function that is called with
                each experiment and says true for those wanted, and whose errors pass through.
            sort: One or several names to sort by, ``-name`` downwards; by the time of their beginning if not given.
            limit: Return only the last so many.

        Raises:
            InvalidQuery: The filter cannot be understood, or a name is in none of the experiments.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.list("val_loss < 0.2", sort="-val_loss")  # doctest: +SKIP
            >>> keepsake.experiments.list(filter=lambda e: e.params["lr"] < 0.01)  # doctest: +SKIP
        """
        from keepsake.experiment import Experiment, ExperimentList
        from keepsake.query.listed import Listed

        project = self.project
        index = project.index()
        index.forget()
        chosen = _chosen(index.summaries(), filter if isinstance(filter, str) else None, sort)
        records = index.records()
        found = ExperimentList(Experiment(project, Listed(summary, records)) for summary in chosen)
        if filter is not None and not isinstance(filter, str):
            found = ExperimentList(experiment for experiment in found if _fulfils(experiment, filter))
        return found if limit is None else found[max(len(found) - limit, 0) :]

    def best(self, metric: str | None = None, *, goal: Goal | None = None) -> Experiment | None:
        """Return the best of all experiments; see `ExperimentList.best`.

        Args:
            metric: The metric; the primary one that they share if not given.
            goal: ``"minimize"`` or ``"maximize"``; what is recorded of this metric if not given.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.best("val_loss")  # doctest: +SKIP
        """
        return self.list().best(metric, goal=goal)

    def remove_alias(self, name: str) -> None:
        """Forget an alias; its checkpoint stays. `Checkpoint.alias` gives one.

        Args:
            name: The alias, without ``@``.

        Raises:
            DoesNotExist: There is no such alias.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.remove_alias("production")  # doctest: +SKIP
        """
        from keepsake.repository import annotations

        repository = self.project.repository_at_hand()
        if name not in annotations.aliases(repository):
            raise DoesNotExist(f'no checkpoint has the alias "{name}"', hint="keepsake alias")
        annotations.remove_alias(repository, name)

    # --- deleting ---------------------------------------------------------------------------------------------------

    def delete(self, experiments: Sequence[Experiment] = (), checkpoints: Sequence[Checkpoint] = ()) -> None:
        """Delete experiments with all that belongs to them, and single checkpoints, many in one call of the store.

        Records go first: an interruption leaves files that no record names, which ``keepsake fsck --repair`` removes.

        Args:
            experiments: Whole experiments.
            checkpoints: Checkpoints of any experiments.

        Raises:
            StorageError: The store failed; what was deleted until then is.

        Example:
            >>> import keepsake
            >>> keepsake.experiments.delete(keepsake.experiments.list(lambda e: e.params["lr"] > 1))  # doctest: +SKIP
        """
        whole = set(experiments)
        partly: dict[Experiment, list[str]] = {}
        for checkpoint in checkpoints:
            if checkpoint.experiment not in whole:
                partly.setdefault(checkpoint.experiment, []).append(checkpoint.id)
        for experiment, ids in partly.items():
            experiment.flush()
            experiment.repository.delete_checkpoints(experiment.id, ids)
            experiment.refresh()
        doomed = (experiment.let_go() for experiment in dict.fromkeys(experiments))
        self.project.repository_at_hand().delete_experiments([record for record in doomed if record is not None])

    def __repr__(self) -> str:
        return f"<experiments of {self.project!r}>"


class CheckpointCollection:
    """The checkpoints of a project: finds them.

    Args:
        project: The project; None for the one that the working directory lies in, looked for anew at each call.
    """

    def __init__(self, project: Project | None = None) -> None:
        self._bound_project = project

    def get(self, reference: str) -> Checkpoint:
        """Return the checkpoint that a reference names.

        Args:
            reference: The start of its ID, ``@alias``, or an experiment and which of its checkpoints: ``last@best``,
                ``warm-up@step:4000``; see `ExperimentCollection.find`.

        Raises:
            DoesNotExist: It names nothing, or an experiment and none of its checkpoints.
            AmbiguousID: It could mean several.
            InvalidQuery: What stands behind the ``@`` names no checkpoint.

        Example:
            >>> import keepsake
            >>> keepsake.checkpoints.get("@production").metrics["val_loss"]  # doctest: +SKIP
            0.1484
        """
        _, checkpoint = (self._bound_project or Project()).experiments.find(reference)
        if checkpoint is None:
            raise DoesNotExist(
                f'"{reference}" is an experiment, not a checkpoint',
                hint=f"{reference}@best and {reference}@latest are checkpoints of it",
            )
        return checkpoint

    def __repr__(self) -> str:
        return f"<checkpoints of {self._bound_project or Project()!r}>"


def init(
    path: str | os.PathLike[str] | None = None,
    params: object = None,
    disable_heartbeat: bool = False,
    debug: bool = False,
    *,
    resume: str | bool | None = None,
    quiet: bool = False,
    name: str | None = None,
    tags: Iterable[str] | str | None = None,
    notes: str | None = None,
) -> Experiment:
    """Start an experiment in the project that the working directory lies in, or go on with one.

    Unlike everything that comes after it, this fails early and loudly: nothing is lost yet. In a distributed job only rank zero
    records; the other ranks get an experiment that does nothing, and so does everybody with ``KEEPSAKE_MODE=disabled``.

    In a notebook, what an earlier cell has begun with this and nobody has ended yet ends now.

    Args:
        path: File or directory of the project to save, relative to its directory, such as ``"."``; None saves no code.
        params: Hyperparameters by name: a dict, an ``argparse.Namespace`` or a dataclass. Values of any type are kept as well as
            JSON can: what it cannot hold becomes text, with a warning. Secrets are left out.
        disable_heartbeat: Do not say every few seconds that the process is alive; the experiment is then never running.
        debug: Accepted for compatibility; ``KEEPSAKE_DEBUG=1`` is its successor.
        resume: The experiment to go on with, named as for `ExperimentCollection.get`: the beginning of its ID, its name, ``"last"``, or
            ``@alias`` of one of its checkpoints. New checkpoints come after those that it has, and its code
            and params stay as they were recorded. ``"auto"``: the last one of the same command and params, unless it has finished or
            runs; a new one if there is none. None: the one that the variable ``KEEPSAKE_EXPERIMENT`` names, which comes first with
            ``"auto"`` too; where it is a whole ID of no experiment yet, a new one gets it. False: always a new one.
        quiet: Say nothing at the start and the end.
        name: What to call it, so that it can be found by this name; what ``KEEPSAKE_NAME`` says if not given. A name that another
            experiment has gets a number behind it.
        tags: Words that group experiments; what ``KEEPSAKE_TAGS`` says, separated by commas, if not given.
        notes: Free text; what ``KEEPSAKE_NOTES`` says if not given.

    Returns:
        The experiment, which can be used as a context manager.

    Raises:
        KeepsakeError: No repository is configured, or it cannot be written; there is no such experiment to go on with, or another process
            records it.
        ValueError: ``path`` leaves the project directory, ``resume`` makes no sense, or something cannot be a name or a tag.
        FileNotFoundError: ``path`` does not exist.

    Example:
        >>> import keepsake
        >>> experiment = keepsake.init(path=".", params={"lr": 0.01})  # doctest: +SKIP
    """
    experiment = Project(debug=debug).experiments.create(
        path, params, quiet, disable_heartbeat, resume=resume, name=name, tags=tags, notes=notes
    )
    if experiment.status.word == "running":
        from keepsake.recording import cells
        from keepsake.recording.live import live_recorder

        recorder = live_recorder(experiment.repository, experiment.id)
        if recorder is not None:
            cells.begin(recorder, quiet=quiet)
    return experiment


def _resumed(project: Project, record: ExperimentRecord, wanted: ExperimentRecord, *, quiet: bool) -> Experiment:
    """Go on with an experiment; its code and params stay as they were when it began.

    Args:
        project: The project.
        record: What is recorded of it.
        wanted: What would be recorded of a new one.
        quiet: Say nothing.
    """
    from keepsake.experiment import Experiment
    from keepsake.recording.live import live_recorder
    from keepsake.values import flatten

    live = live_recorder(project.repository_at_hand(), record.id)
    if live is not None:
        return Experiment(project, live.record, live)
    recorder = project.recorder(record, quiet=quiet)
    recorder.resume(beats=wanted.heartbeat_interval_s is not None)
    now, before = flatten(wanted.params), flatten(recorder.record.params)
    changed = [name for name, value in now.items() if before.get(name) != value]
    if changed:
        some = ", ".join(f"{name}={now[name]!r:.40} (recorded: {before.get(name)!r:.40})" for name in changed[:MAX_PARAMS_NAMED])
        more = ", …" if len(changed) > MAX_PARAMS_NAMED else ""
        messages.warning(f"params differ from those of experiment {layout.short_id(record.id)}, which stay: {some}{more}")
    return Experiment(project, recorder.record, recorder)


def _chosen(summaries: Sequence[Summary], text: str | None, keys: str | Sequence[str] | None) -> Sequence[Summary]:
    """Return the experiments that fulfil a filter, in an order."""
    if text is not None:
        from keepsake.query.filters import parse, select

        summaries = select(summaries, [parse(text)])
    if keys is not None and summaries:
        from keepsake.query.sorting import sort

        summaries = sort(summaries, keys)
    return summaries


def _fulfils(experiment: Experiment, condition: Callable[[Experiment], Any]) -> bool:
    """Tell whether a function says true of an experiment; one that is deleted meanwhile is none any more."""
    try:
        return bool(condition(experiment))
    except DoesNotExist:
        if experiment.repository.record_etag(experiment.id) is not None:
            raise
        return False


MAX_PARAMS_NAMED = 5
"""Most params that a message lists."""


def _say_what_waits(outbox: Outbox) -> None:
    """Tell people what earlier processes have left in an outbox."""
    ids = outbox.left_behind()
    if ids:
        waiting = outbox.waiting()
        checkpoints = f"{waiting.checkpoints} checkpoint{'' if waiting.checkpoints == 1 else 's'}"
        messages.info(
            f"{len(ids)} experiment{'' if len(ids) == 1 else 's'} ({checkpoints}, {size_text(waiting.size_bytes)}) of earlier processes"
            " not uploaded yet; run: keepsake sync"
        )


def _without_secrets(url: str) -> str:
    if url.startswith("file:"):
        return url
    from keepsake.capture import redaction

    return redaction.redact_url(url)


def _mode() -> str:
    mode = os.environ.get("KEEPSAKE_MODE", "").strip().lower() or "online"
    if mode not in MODES:
        raise ConfigInvalid(f'KEEPSAKE_MODE is "{mode}", it must be one of {", ".join(MODES)}')
    return mode


def _why_disabled(is_rank_zero: bool | None) -> str | None:
    if _mode() == "disabled":
        return "KEEPSAKE_MODE=disabled"
    if is_rank_zero is None:
        from keepsake.recording import ranks

        return ranks.other_rank()
    return None if is_rank_zero else "not rank zero"


def _code_entries(
    directory: Path,
    path: str | os.PathLike[str] | None,
    repository: Repository,
    exclude: Collection[str | os.PathLike[str]],
) -> list[FileEntry]:
    if path is None:
        return []
    if os.fspath(path) == "":
        raise ValueError('path is empty; leave it out to save no files, or write "." for the whole project')
    from keepsake.capture import files

    root = repository.local_root
    excluded = [directory / excluded_path for excluded_path in exclude] + ([root] if root is not None else [])
    return files.project_files(directory, path, exclude=excluded)


def _settings_of_recording(project: Project) -> dict[str, Any]:
    """Return what is set for recording, by dotted name.

    Raises:
        ConfigInvalid: Something is set to what it cannot be.
    """
    from keepsake.settings import SETTINGS

    settings = project.settings()
    names = [name for name in SETTINGS if name.startswith(("capture.", "redact.", "primary_metric"))]
    return {name: settings.get(name).value for name in names}


def _new_record(
    project: Project, path: str | os.PathLike[str] | None, params: dict[str, Any], settings: Mapping[str, Any], *, beats: bool
) -> ExperimentRecord:
    # Reading an experiment needs none of this, and a listing must not wait for it.
    from keepsake import __version__
    from keepsake.capture import environment, packages, redaction
    from keepsake.recording.heartbeat import INTERVAL_S
    from keepsake.repository.records import ExperimentRecord

    redaction.use_names(hidden=settings["redact.keys"], shown=settings["redact.allow"])
    params, hidden = redaction.redact_params(params)
    if hidden:
        messages.warning(f"{hidden} secret{'s' if hidden > 1 else ''} in params recorded as {redaction.REDACTED}")
    captured = environment.capture_environment(
        project.directory,
        **{name: settings[f"capture.{name}"] for name in ("git", "gpu", "argv", "env")},
    )
    return ExperimentRecord(
        id=layout.new_id(),
        created=utc_now(),
        params=params,
        host=captured.host,
        user=captured.user,
        config={"repository": redaction.redact_url(project.repository_url), "storage": ""},
        command=captured.command,
        path=Path(path).as_posix() if path is not None else None,
        python_version=captured.python_version,
        python_packages=packages.imported_packages() if settings["capture.packages"] == "imported" else {},
        keepsake_version=__version__,
        git=captured.git,
        system=captured.system,
        pid=captured.pid,
        heartbeat_interval_s=INTERVAL_S if beats else None,
    )
