"""The logger for Lightning 2.x: every value that is logged, and the files that a ModelCheckpoint saves.

Observed with 2.6, and the reason for the arrangement below. Lightning asks for ``logger.experiment`` and logs hyperparameters also for a
mere ``test()`` and for its tuners, so the experiment begins with the first metrics of a fit. It calls most methods on every rank, and
``after_save_checkpoint`` on rank zero only. A file is saved before the epoch's own metrics are logged, but they stand in the Trainer's
``callback_metrics`` by then, beside those of earlier epochs. A logger that was finalized goes on to be used, by ``test()`` or a second fit.
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keepsake import messages
from keepsake.integrations._base import Run, guarded, merged, numbers
from keepsake.integrations.lightning._trainer import base_class, ending, monitored_by, outputs_of, params_of
from keepsake.repository.layout import new_id, short_id
from keepsake.values import convert_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keepsake.checkpoint import PrimaryMetric
    from keepsake.experiment import Experiment

__all__ = ["KeepsakeLogger"]

VERSION_VARIABLE = "KEEPSAKE_LIGHTNING_VERSION"
"""Tells processes that Lightning launches the name of the directory that belongs to this training."""


class KeepsakeLogger(base_class("loggers", "Logger")):  # type: ignore[misc]
    """Records a Lightning training: code, params, all that is logged, and the files of its ModelCheckpoints.

    Rank zero records. With a `KeepsakeCallback` in the same Trainer both record one experiment, and one checkpoint at a step.

    Args:
        params: Hyperparameters, of any type that `keepsake.init` takes; they outweigh those of the module and the data module
            (``save_hyperparameters``), which are recorded by themselves, with the Trainer's under ``trainer``.
        primary_metric: Name and goal of the metric to choose the best checkpoint by, such as ``("val_loss", "minimize")``; what the
            Trainer's ModelCheckpoint monitors if not given.
        log_model: ``"all"`` records each file that a ModelCheckpoint saves, at once; True the best and the last one at the end; False
            none.
        prefix: Put before the name of each metric, with ``-`` between.
        name: Of the directory in ``save_dir`` where Lightning itself puts the files of this and other trainings.
        save_dir: Where that directory lies.
        path: What of the project is saved as code; None for nothing. Lightning's own output is left out.
        experiment: An experiment of yours to record into; it is not ended. None makes one with the first metrics of a fit.
        resume: An experiment to go on with, as for `keepsake.init`.
        quiet: Say nothing at the start and the end.

    Raises:
        ValueError: An argument makes no sense.

    Example:
        >>> logger = KeepsakeLogger(log_model="all")
        >>> trainer = Trainer(logger=logger, callbacks=[ModelCheckpoint(monitor="val_loss")])  # doctest: +SKIP
    """

    def __init__(
        self,
        params: object = None,
        primary_metric: tuple[str, str] | PrimaryMetric | None = None,
        *,
        log_model: Literal["all"] | bool = False,
        prefix: str = "",
        name: str = "keepsake",
        save_dir: str | os.PathLike[str] = "lightning_logs",
        path: str | os.PathLike[str] | None = ".",
        experiment: Experiment | None = None,
        resume: str | bool | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        if log_model not in ("all", True, False):
            raise ValueError(f'log_model must be "all", True or False, not {log_model!r}')
        self.run = Run(params, primary_metric, path, experiment, resume=resume, quiet=quiet)
        self.recorded_steps: set[int] = set()
        self._log_model = log_model
        self._prefix = prefix
        self._name = name
        self._save_dir = os.fspath(save_dir)
        self._version = _version()
        self._hparams: dict[str, Any] = {}
        self._forget_training()

    def _forget_training(self) -> None:
        self._trainer: weakref.ref[Any] | None = None
        self._fitted: weakref.ref[Any] | None = None
        self._stale: dict[str, Any] = {}
        self._saved: dict[str, tuple[int, dict[str, Any]]] = {}
        self._savers: dict[int, Any] = {}
        self._awaited: list[tuple[str, int, dict[str, Any]]] = []

    # --- what Lightning asks ----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self._name

    @property
    def version(self) -> str:
        """The name of the directory in there that belongs to this logger."""
        return self._version

    @property
    def save_dir(self) -> str:
        """Where the directory lies."""
        return self._save_dir

    @property
    def root_dir(self) -> str:
        """The directory."""
        return str(Path(self._save_dir, self._name))

    @property
    def log_dir(self) -> str:
        """The directory that belongs to this logger."""
        return str(Path(self.root_dir, self._version))

    @property
    def experiment(self) -> Experiment | None:
        """The experiment, from the first metrics of a fit on; None before. On ranks other than zero it records nothing."""
        return self.run.experiment

    # --- the start --------------------------------------------------------------------------------------------------

    @guarded
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Remember hyperparameters until the experiment begins; later ones change nothing, since it has begun with others."""
        values, problems = convert_params(params)
        self._hparams = merged(self._hparams, values)
        for problem in problems:
            messages.warn_once(problem, problem)

    @guarded
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Remember the Trainer of a model; no graph is recorded."""
        self._trainer = weakref.ref(model.trainer)

    def begin(
        self,
        trainer: Any,
        *,
        restored_id: str | None = None,
        params: object = None,
        primary_metric: tuple[str, str] | None = None,
    ) -> None:
        """Begin the experiment; called by a `KeepsakeCallback` in the same Trainer, which knows more.

        Args:
            trainer: The Trainer; None where it is not known.
            restored_id: The experiment of the checkpoint that the training goes on from.
            params: Hyperparameters that outweigh those found.
            primary_metric: Name and goal, if the logger was given none.
        """
        self._trainer = weakref.ref(trainer) if trainer is not None else None
        fitted = self._fitted() if self._fitted is not None else None
        known = params_of(trainer, trainer.lightning_module) if trainer is not None else []
        self.run.start(
            [*known, self._hparams, *([params] if params is not None else [])],
            goes_on=fitted is not None and fitted is trainer,
            exclude=[self._save_dir, *(outputs_of(trainer, None) or [] if trainer is not None else [])],
            is_rank_zero=trainer.is_global_zero if trainer is not None else _rank() == 0,
            from_checkpoint=trainer is not None and trainer.global_step > 0 and trainer.ckpt_path is not None,
            restored_id=restored_id,
            primary_metric=primary_metric or (monitored_by(trainer) if trainer is not None else None),
        )
        if fitted is not trainer:
            self.recorded_steps, self._stale = set(), {}
        self._fitted = weakref.ref(trainer) if trainer is not None else None

    def _begun(self) -> bool:
        """Begin if that has not been done; tell whether this is a fit, and not ``validate`` or ``test``."""
        trainer = self._trainer() if self._trainer is not None else None
        if trainer is not None and _stage(trainer) != "fit":
            return False
        if self.run.experiment is None or not self._is_live or (trainer is not None and self._fitted is None):
            self.begin(trainer)
        return True

    @property
    def _is_live(self) -> bool:
        return self.run.experiment is not None and self.run.experiment.outcome is None

    # --- metrics ----------------------------------------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a point to the history.

        Args:
            metrics: Values by name.
            step: Lightning's number of the batch; the Trainer's own count of optimizer steps is recorded where it is known, unless the
                module has logged a ``step`` of its own.
        """
        # The first one may raise, as `keepsake.init` does: the training has not got anywhere yet.
        if self._begun():
            self._log(metrics, step)
        else:
            self._attach(metrics)

    @guarded
    def _log(self, metrics: Mapping[str, Any], step: int | None) -> None:
        trainer = self._trainer() if self._trainer is not None else None
        # Lightning adds the epoch unless the module has given a step.
        is_own = "epoch" not in metrics and step is not None
        number = trainer.global_step if trainer is not None and not is_own else (step or 0) + (not is_own)
        self.run.log(self._named(metrics), step=number)

    @guarded
    def _attach(self, metrics: Mapping[str, Any]) -> None:
        """Record what ``test()`` or ``validate()`` has measured with the experiment of the fit before, if there was one."""
        experiment = self.run.experiment
        if experiment is not None and self.run.is_recorded:
            latest = experiment.latest()
            experiment.checkpoint(None, latest.step if latest is not None else None, numbers(self._named(metrics)))

    def _named(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        return {f"{self._prefix}-{name}" if self._prefix else name: value for name, value in metrics.items()}

    # --- files ------------------------------------------------------------------------------------------------------

    @guarded
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Record what a ModelCheckpoint has saved, or remember it until the end."""
        path = _last_saved(checkpoint_callback)
        trainer = self._trainer() if self._trainer is not None else None
        if self._log_model is False or not path or (trainer is not None and trainer.sanity_checking) or not self._begun():
            return
        step, metrics = self._moment(trainer, checkpoint_callback)
        if self._log_model == "all":
            self._record_awaited()
            self._record(path, step, metrics)
        else:
            self._saved[path] = step, metrics
            # A weak proxy, and a new one each time.
            self._savers[id(checkpoint_callback.__repr__.__self__)] = checkpoint_callback

    def _moment(self, trainer: Any, checkpoint_callback: Any) -> tuple[int, dict[str, Any]]:
        """Return the step and what was logged since the last time: a value that was there before, the very same object, is an old one."""
        if trainer is None:
            return int(getattr(checkpoint_callback, "_last_global_step_saved", 0) or 0), {}
        present = dict(trainer.callback_metrics)
        step = trainer.global_step
        earlier = next((metrics for known, metrics in self._saved.values() if known == step), {})
        fresh = {name: value for name, value in present.items() if self._stale.get(name) is not value}
        self._stale = present
        return step, {**earlier, **numbers(self._named(fresh)), "epoch": trainer.current_epoch}

    def _record(self, path: str, step: int, metrics: Mapping[str, Any]) -> None:
        if step in self.recorded_steps:
            # One save may be written under two names.
            return
        file = None if "://" in path else Path(path)
        if file is None:
            messages.warn_once(f"far {path}", f"{path} lies where keepsake does not copy from; its metrics are recorded")
        elif not file.exists():
            # It is still being written, by another thread.
            self._awaited.append((path, step, dict(metrics)))
            return
        self.recorded_steps.add(step)
        # ModelCheckpoint goes on using its file.
        self.run.checkpoint(file, file.name if file is not None else None, step=step, metrics=metrics, move=False)

    def _record_awaited(self) -> None:
        awaited, self._awaited = self._awaited, []
        for path, step, metrics in awaited:
            self._record(path, step, metrics)

    # --- the end ----------------------------------------------------------------------------------------------------

    @guarded
    def finalize(self, status: str) -> None:
        """Record what is left, and end the experiment; what comes after begins it again."""
        if not self._is_live or not self.run.is_recorded:
            return
        self._record_awaited()
        for path in self._chosen():
            self._record(path, *self._saved[path])
        missing = [path for path, _, _ in self._awaited]
        if missing:
            messages.warning(f"{', '.join(missing)} did not appear, and so is not recorded")
        self._awaited, self._saved, self._savers = [], {}, {}
        error = sys.exc_info()[1]
        self.run.finish(*(("finished", None) if status == "success" or error is None else ending(error)))

    def _chosen(self) -> list[str]:
        """Return the best and the last file of each ModelCheckpoint, in the order in which they were saved."""
        names = ("best_model_path", "last_model_path")
        wanted = {getattr(saver, name, "") for saver in self._savers.values() for name in names}
        return [path for path in self._saved if path in wanted]

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process and this training."""
        state = self.__dict__ | {"_trainer": None, "_fitted": None, "recorded_steps": set()}
        return state | {"_stale": {}, "_saved": {}, "_savers": {}, "_awaited": []}


def _version() -> str:
    """Return a name that this process and those that Lightning launches from it agree on."""
    launched = os.environ.get(VERSION_VARIABLE) if os.environ.get("LOCAL_RANK", "0") != "0" else None
    version = launched or short_id(new_id())
    os.environ[VERSION_VARIABLE] = version
    return version


def _stage(trainer: Any) -> str:
    function = getattr(trainer.state, "fn", None)
    return str(getattr(function, "value", function))


def _rank() -> int:
    from lightning_utilities.core.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0)


def _last_saved(checkpoint_callback: Any) -> str:
    """Return the path that was just saved: also one that the Trainer's own bookkeeping leaves out, as after an exception."""
    last = getattr(checkpoint_callback, "_last_checkpoint_saved", "")
    return str(last or getattr(checkpoint_callback, "last_model_path", "") or getattr(checkpoint_callback, "best_model_path", ""))
