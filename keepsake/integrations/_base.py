"""What every callback shares: start or adopt an experiment, merge params and metrics, checkpoint, finish; never harm the training.

No framework is imported here. Each framework's file turns its hooks into calls of `Run`.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from keepsake import messages, resuming
from keepsake.exceptions import DoesNotExist, WriteError
from keepsake.integrations._calls import CallWatch
from keepsake.project import Project
from keepsake.values import convert_metrics, convert_params

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from keepsake.checkpoint import PrimaryMetric
    from keepsake.experiment import Experiment
    from keepsake.repository.status import Outcome
    from keepsake.values import Value

P = ParamSpec("P")
R = TypeVar("R")

STAGING_DIRECTORY = Path(".keepsake") / "staging"
"""Where a framework saves what we then record, below the project directory: never among the user's own files."""

STALE_AFTER_S = 24 * 3600
"""Age from which on what lies there is taken for that of a dead process, in seconds.

Only age tells. The number of a process that is not to be seen may be that of a live one in another container, or on another machine.
No file of a live one grows so old, because it is recorded as soon as it is saved.
"""


def guarded(hook: Callable[P, R]) -> Callable[P, R | None]:
    """Keep our own mistakes out of a training: an exception of a hook becomes one warning for each hook and type."""

    @functools.wraps(hook)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return hook(*args, **kwargs)
        except Exception as err:  # noqa: BLE001 - after the start nothing of ours may stop a training
            warn_of(hook.__qualname__, f"{hook.__name__} failed", err)
            return None

    return run


def warn_of(key: str, what: str, err: Exception) -> None:
    """Say that something failed, once for each key and type of error."""
    messages.warn_once(f"{key} {type(err).__name__}", f"{what} and the training goes on: {type(err).__name__}: {err}")
    messages.debug_exception(err)


class Run:
    """One experiment on behalf of a callback.

    Args:
        params: What the user says, a mapping or whatever else `keepsake.init` takes; outweighs what the framework knows.
        primary_metric: Name and goal, or None.
        path: What of the project is saved as code; None for nothing.
        experiment: The user's own experiment, which is used and never ended; None to make one.
        resume: Which experiment to go on with, as for `keepsake.init`; None also for the one that the framework's checkpoint names.
        quiet: Say nothing at the start and the end.

    Attributes:
        experiment: The experiment, from the start of the training on; None before.
        is_recorded: Whether this process records: it is rank zero, and recording is not disabled.

    Raises:
        ValueError: ``primary_metric`` is not a name and a goal, or ``resume`` makes no sense; raised before any time is spent on a
            training.
    """

    def __init__(
        self,
        params: object,
        primary_metric: tuple[str, str] | PrimaryMetric | None,
        path: str | os.PathLike[str] | None,
        experiment: Experiment | None,
        *,
        resume: str | bool | None = None,
        quiet: bool,
    ) -> None:
        resuming.wanted(resume)
        # Converted here, so that a copy for another process needs no more than plain values.
        self._params, self._problems = convert_params(params)
        self._primary_metric = self._users_primary_metric = metric_pair(primary_metric)
        self._path = path
        self._resume = resume
        self._quiet = quiet
        self._is_ours = experiment is None
        self._pid = os.getpid()
        self._staging: Path | None = None
        self._seen_metrics: set[str] = set()
        self._earlier: dict[int, list[dict[str, Any]]] = {}
        self._call: CallWatch | None = None
        self._is_shared = False
        self.experiment = experiment
        self.is_recorded = False

    @property
    def params(self) -> dict[str, Value]:
        """What the user says."""
        return self._params

    @property
    def experiment_id(self) -> str | None:
        """The ID of the experiment that this process records."""
        return self.experiment.id if self.experiment is not None and self.is_recorded else None

    @property
    def is_within_call(self) -> bool:
        """Whether the call of ``fit`` that the experiment was started in has not been left."""
        return self._call is not None and self._call.is_running

    def start(
        self,
        framework_params: Iterable[object],
        *,
        goes_on: bool,
        exclude: Collection[str | os.PathLike[str]],
        is_rank_zero: bool,
        from_checkpoint: bool = False,
        restored_id: str | None = None,
        primary_metric: tuple[str, str] | None = None,
        fit: tuple[str, str] | None = None,
    ) -> None:
        """Begin to record, at the start of a training. Raises as `keepsake.init` does: nothing is lost yet.

        Args:
            framework_params: What the framework knows of the hyperparameters; each outweighs those before it.
            goes_on: Whether this training continues the one before it, which then stays the same experiment.
            exclude: Files and directories that are the framework's output and no code.
            is_rank_zero: Whether this process of a distributed job records.
            from_checkpoint: Whether the training goes on from a checkpoint that the framework has saved.
            restored_id: The experiment that this checkpoint names.
            primary_metric: What the framework itself calls the best; what the user says outweighs it.
            fit: For a framework that does not tell of exceptions: its package and the function that trains. Where that has been left
                without an end, the experiment ends by itself.
        """
        self._let_go_of_another_process()
        self._is_shared = False
        self._primary_metric = self._users_primary_metric or primary_metric
        if not self._is_ours and self.experiment is not None:
            self.is_recorded = is_rank_zero
        elif self.experiment is not None and goes_on:
            self.experiment.reopen()
        else:
            if self.experiment is not None:
                # Does nothing unless the end of that training was never told to us.
                self.experiment.finish("failed", "the framework did not say how it ended")
            self._create(framework_params, exclude, restored_id, is_rank_zero=is_rank_zero)
            if from_checkpoint and restored_id is None:
                self._warn_of_a_nameless_checkpoint()
        if self.experiment is not None and self.is_recorded:
            self._earlier = _by_step(self.experiment) if self.experiment.record.resumed else {}
            if fit is not None and self._is_ours:
                self._call = CallWatch(*fit)
                self.experiment.watch(self._call)

    def _warn_of_a_nameless_checkpoint(self) -> None:
        is_new = self.experiment is not None and self.is_recorded and not self.experiment.record.resumed
        if is_new and self._resume is not False:
            messages.warning(
                "the checkpoint that this training goes on from names no experiment, so this is a new one;"
                " resume= or KEEPSAKE_EXPERIMENT tells which one to go on with, resume=False that a new one is meant"
            )

    def share(self, other: Run) -> None:
        """Record into the experiment of another one, until the next start; it begins and ends there."""
        self.experiment, self.is_recorded = other.experiment, other.is_recorded
        self._earlier = other._earlier
        self._primary_metric = self._users_primary_metric or other._primary_metric
        self._is_shared = True

    def _let_go_of_another_process(self) -> None:
        """Forget an experiment that this process has from the one that forked it, and that only that one can record."""
        if os.getpid() != self._pid:
            self.experiment = None
            self._pid = os.getpid()

    def _create(
        self,
        framework_params: Iterable[object],
        exclude: Collection[str | os.PathLike[str]],
        restored_id: str | None,
        *,
        is_rank_zero: bool,
    ) -> None:
        params, problems = self._merged_params(framework_params)
        project = Project()
        create = functools.partial(
            project.experiments.create,
            self._path,
            params,
            quiet=self._quiet,
            exclude=[path for path in exclude if not _holds(path, project.directory)],
            is_rank_zero=is_rank_zero,
        )
        if self._resume is None and restored_id is not None and not resuming.is_asked_for():
            self.experiment = _restored(create, restored_id)
        else:
            self.experiment = create(resume=self._resume)
        # Where recording is disabled, an experiment has ended before it begins.
        self.is_recorded = is_rank_zero and self.experiment.outcome is None
        if not self._is_ours:
            self._is_ours = True
            problems.append(
                "only the process that made experiment= can record into it; this training is an experiment of its own"
            )
        for problem in problems if self.is_recorded else ():
            messages.warning(problem)

    def _merged_params(self, framework_params: Iterable[object]) -> tuple[dict[str, Value], list[str]]:
        params: dict[str, Value] = {}
        problems: list[str] = []
        sources = [*map(convert_params, framework_params), (self._params, self._problems)]
        for values, found in sources:
            params = merged(params, values)
            problems += found
        # What people have chosen themselves comes first in tables, and stays where not all columns fit.
        names = dict.fromkeys(name for values, _ in reversed(sources) for name in values)
        return _said_once({name: params[name] for name in names}), problems

    def log(self, metrics: Mapping[str, Any], *, step: int) -> None:
        """Record a point of the history.

        Args:
            metrics: Values by name; those that are no numbers are left out, with one warning each.
            step: The framework's count of optimizer steps.
        """
        if self.experiment is None or not self.is_recorded:
            return
        plain = numbers(metrics)
        self._seen_metrics.update(plain)
        if plain:
            self.experiment.log(plain, step)

    def checkpoint(
        self, file: Path | None, saved_as: str | None, *, step: int, metrics: Mapping[str, Any], move: bool = True
    ) -> None:
        """Record a checkpoint.

        A training that goes on from an earlier checkpoint than the last comes by the later ones once more. One of the same step and
        metrics is the same, and is not recorded again; one that has come out differently is.

        Args:
            file: The file or directory that the framework has saved; None for metrics only.
            saved_as: The name that it is recorded under.
            step: The framework's count of optimizer steps.
            metrics: Values by name; those that are no numbers are left out, with one warning each.
            move: Whether to take the file away; else it stays where it is.
        """
        if self.experiment is None or not self.is_recorded:
            return
        plain = numbers(metrics)
        self._seen_metrics.update(plain)
        if any(_same(plain, earlier) for earlier in self._earlier.get(step, ())):
            messages.debug(f"the checkpoint of step {step} is recorded already")
            return
        primary = self._primary_metric if self._primary_metric is not None and self._primary_metric[0] in plain else None
        self.experiment.checkpoint(
            file, step, plain, primary_metric=primary, saved_as=saved_as if file is not None else None, move=move
        )

    def finish(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """End the experiment, if it is ours."""
        self._call = None
        if self._is_ours and not self._is_shared and self.experiment is not None:
            self.experiment.finish(outcome, error)
        self._remove_staging()
        self._warn_of_an_absent_primary_metric()

    def _warn_of_an_absent_primary_metric(self) -> None:
        # Once at the end and not at each checkpoint: epochs without validation are nothing unusual.
        if self._primary_metric is not None and self._seen_metrics and self._primary_metric[0] not in self._seen_metrics:
            messages.warning(
                f'the primary metric "{self._primary_metric[0]}" was never logged, so no checkpoint is the best'
                f" (logged: {', '.join(sorted(self._seen_metrics))})"
            )
        self._seen_metrics = set()

    # --- staging ----------------------------------------------------------------------------------------------------

    def staging_path(self, name: str) -> Path:
        """Return a path of our own that a framework can save to, in a directory that exists."""
        if self._staging is None:
            self._staging = self._new_staging()
        # Between two saves that lie far apart another process may have swept it.
        self._staging.mkdir(parents=True, exist_ok=True)
        return self._staging / Path(name).name

    def _new_staging(self) -> Path:
        try:
            parent = (self.experiment.project if self.experiment is not None else Project()).directory / STAGING_DIRECTORY
            parent.mkdir(parents=True, exist_ok=True)
            _sweep(parent)
            return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        except OSError:
            # The project is not writable; the repository may be all the same.
            return Path(tempfile.mkdtemp(prefix="keepsake-"))

    def clear_staging(self) -> None:
        """Remove what was saved there: it has been recorded, or is a part of what could not be saved."""
        for path in list(self._staging.iterdir()) if self._staging is not None and self._staging.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _remove_staging(self) -> None:
        if self._staging is None:
            return
        shutil.rmtree(self._staging, ignore_errors=True)
        if self._staging.parent.name == STAGING_DIRECTORY.name:
            # Only what is empty: another process may use it, and .keepsake may be the repository.
            with suppress(OSError):
                self._staging.parent.rmdir()
                self._staging.parent.parent.rmdir()
        self._staging = None

    # --- copies -----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Leave the live part behind: a copy in another process records an experiment of its own."""
        return self.__dict__ | {
            "experiment": None,
            "is_recorded": False,
            "_staging": None,
            "_seen_metrics": set(),
            "_earlier": {},
            "_call": None,
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__getstate__())
        if not self._is_ours:
            # The user's own, in this same process.
            copy.experiment = self.experiment
        return copy


def _restored(create: Callable[..., Experiment], id: str) -> Experiment:
    """Go on with the experiment that a framework's checkpoint names; a new one where that is not to be had."""
    try:
        return create(resume=id)
    except (DoesNotExist, WriteError) as err:
        messages.warning(
            f"the checkpoint that this training goes on from is of experiment {id[:7]}: {err.message}; this is a new one"
        )
        return create(resume=False)


def _by_step(experiment: Experiment) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for checkpoint in experiment.checkpoints:
        found.setdefault(checkpoint.step, []).append(checkpoint.metrics)
    return found


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether metrics are the same; NaN is the same as NaN."""
    return one.keys() == other.keys() and all(value == other[name] or value != value for name, value in one.items())


def merged(known: Mapping[str, Value], outweighing: Mapping[str, Value]) -> dict[str, Value]:
    """Return both, nested dicts merged likewise; of two values for one name the outweighing one.

    Example:
        >>> merged({"lr": 1, "trainer": {"devices": 1}}, {"lr": 2, "trainer": {"name": "a"}})
        {'lr': 2, 'trainer': {'devices': 1, 'name': 'a'}}
    """
    result = dict(known)
    for name, value in outweighing.items():
        present = result.get(name)
        result[name] = merged(present, value) if isinstance(present, dict) and isinstance(value, dict) else value
    return result


def numbers(metrics: Mapping[str, Any]) -> dict[str, float | int]:
    """Return those metrics that are numbers, as plain Python numbers; warn once for each name that is not."""
    converted, _ = convert_metrics(metrics)
    plain: dict[str, float | int] = {}
    for name, value in converted.items():
        if isinstance(value, int | float):
            plain[name] = value
        else:
            messages.warn_once(f"metric {name}", f'metric "{name}" is no single number and is not recorded')
    return plain


def metric_pair(primary_metric: Any) -> tuple[str, str] | None:
    """Return a primary metric as a pair; raises `ValueError` where it is none."""
    if primary_metric is None:
        return None
    try:
        name, goal = primary_metric
        if isinstance(name, str) and goal.lower() in ("maximize", "minimize") and not isinstance(primary_metric, dict):
            return name, goal
    except (TypeError, ValueError, AttributeError):
        pass
    raise ValueError(
        'primary_metric must be a metric\'s name and "maximize" or "minimize", such as ("val_loss", "minimize"), '
        f"not {primary_metric!r}"
    )


def _holds(path: str | os.PathLike[str], directory: Path) -> bool:
    """Tell whether leaving a path out would leave nothing of the directory."""
    real, path = Path(os.path.realpath(directory)), Path(os.path.realpath(directory / path))
    return path == real or path in real.parents


def _sweep(parent: Path) -> None:
    """Remove what processes have left that died while they saved."""
    for path in parent.iterdir():
        # Another process may sweep at the same time.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_AFTER_S:
                shutil.rmtree(path, ignore_errors=True)


def _said_once(params: dict[str, Value]) -> dict[str, Value]:
    """Leave out the optimizer's learning rate where somebody has named the same one: two columns would say the same."""
    optimizer = params.get("optimizer")
    if not isinstance(optimizer, dict):
        return params
    named = [params[name] for name in LEARNING_RATES if name in params]
    kept = {name: value for name, value in optimizer.items() if name not in LEARNING_RATES or value not in named}
    return params | {"optimizer": kept}


LEARNING_RATES = ("lr", "learning_rate")
"""What params call the learning rate."""
