"""What every callback shares: start or adopt an experiment, merge params and metrics, checkpoint, finish; never harm the training.

No framework is imported here. Each framework's file turns its hooks into calls of `Run`.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from keepsake import messages
from keepsake.project import Project
from keepsake.values import convert_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from keepsake.experiment import Experiment
    from keepsake.repository.status import Outcome

P = ParamSpec("P")
R = TypeVar("R")

STAGING_DIRECTORY = Path(".keepsake") / "staging"
"""Where a framework saves what we then record, below the project directory: never among the user's own files."""


def guarded(hook: Callable[P, R]) -> Callable[P, R | None]:
    """Keep our own mistakes out of a training: an exception of a hook becomes one warning for each hook and type."""

    @functools.wraps(hook)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return hook(*args, **kwargs)
        except Exception as err:  # noqa: BLE001 - after the start nothing of ours may stop a training
            text = f"{hook.__name__} failed and the training goes on: {type(err).__name__}: {err}"
            messages.warn_once(f"{hook.__qualname__} {type(err).__name__}", text)
            messages.debug_exception(err)
            return None

    return run


class Run:
    """One experiment on behalf of a callback.

    Args:
        params: What the user says; outweighs what the framework knows.
        primary_metric: Name and goal, or None.
        path: What of the project is saved as code; None for nothing.
        experiment: The user's own experiment, which is used and never ended; None to make one.
        quiet: Say nothing at the start and the end.

    Raises:
        ValueError: ``primary_metric`` is not a name and a goal; raised before any time is spent on a training.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None,
        primary_metric: tuple[str, str] | None,
        path: str | os.PathLike[str] | None,
        experiment: Experiment | None,
        *,
        quiet: bool,
    ) -> None:
        _check_primary_metric(primary_metric)
        self._params = params
        self._primary_metric = primary_metric
        self._path = path
        self._quiet = quiet
        self._is_ours = experiment is None
        self._staging: Path | None = None
        self.experiment = experiment

    def start(
        self,
        framework_params: Mapping[str, Any],
        *,
        goes_on: bool,
        exclude: Collection[str | os.PathLike[str]],
        is_rank_zero: bool,
    ) -> None:
        """Begin to record, at the start of a training. Raises as `keepsake.init` does: nothing is lost yet.

        Args:
            framework_params: What the framework knows of the hyperparameters.
            goes_on: Whether this training continues the one before it, which then stays the same experiment.
            exclude: Files and directories that are the framework's output and no code.
            is_rank_zero: Whether this process of a distributed job records.
        """
        if not self._is_ours:
            return
        if self.experiment is not None:
            if goes_on:
                self.experiment.reopen()
                return
            self.experiment.stop()
        project = Project()
        self.experiment = project.experiments.create(
            self._path,
            {**framework_params, **(self._params or {})},
            quiet=self._quiet,
            exclude=[path for path in exclude if _lies_strictly_below(path, project.directory)],
            is_rank_zero=is_rank_zero,
        )

    def checkpoint(self, file: Path | None, saved_as: str | None, *, step: int, metrics: Mapping[str, Any]) -> None:
        """Record a checkpoint.

        Args:
            file: The file or directory that the framework has saved; None for metrics only.
            saved_as: The name that it is recorded under.
            step: The framework's count of optimizer steps.
            metrics: Values by name; those that are no numbers are left out, with one warning each.
        """
        if self.experiment is not None:
            primary = self._primary_metric if self._primary_metric and self._primary_metric[0] in metrics else None
            self.experiment.checkpoint(
                file, step=step, metrics=numbers(metrics), primary_metric=primary, saved_as=saved_as if file is not None else None
            )

    def finish(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """End the experiment, if it is ours."""
        self._remove_staging()
        if self._is_ours and self.experiment is not None:
            self.experiment.finish(outcome, error)

    # --- staging ----------------------------------------------------------------------------------------------------

    def staging_path(self, name: str) -> Path:
        """Return a path of our own that a framework can save to, in an empty directory that exists."""
        if self._staging is None:
            self._staging = self._new_staging()
        return self._staging / Path(name).name

    def _new_staging(self) -> Path:
        try:
            parent = (self.experiment.project if self.experiment is not None else Project()).directory / STAGING_DIRECTORY
            parent.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        except OSError:
            # The project is not writable; the repository may be all the same.
            return Path(tempfile.mkdtemp(prefix="keepsake-"))

    def clear_staging(self) -> None:
        """Remove what was saved there and has been recorded."""
        for path in self._staging.iterdir() if self._staging is not None and self._staging.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _remove_staging(self) -> None:
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
            for parent in (self._staging.parent, self._staging.parent.parent):
                # Only what we made and nobody else uses: directories that are empty.
                if parent.name in STAGING_DIRECTORY.parts and parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
            self._staging = None

    # --- copies -----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Leave the live part behind: a copy in another process records an experiment of its own."""
        return self.__dict__ | {"experiment": None, "_staging": None, "_is_ours": True}

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__getstate__())
        return copy


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


def _check_primary_metric(primary_metric: Any) -> None:
    if primary_metric is None:
        return
    if isinstance(primary_metric, str) or str(tuple(primary_metric)[-1]).lower() not in ("maximize", "minimize"):
        raise ValueError(
            'primary_metric must be a metric\'s name and "maximize" or "minimize", such as ("val_loss", "minimize"), '
            f"not {primary_metric!r}"
        )


def _lies_strictly_below(path: str | os.PathLike[str], directory: Path) -> bool:
    """Tell whether leaving a path out leaves anything of the directory."""
    absolute = Path(os.path.normpath(Path.cwd() / path))
    return directory in absolute.parents
