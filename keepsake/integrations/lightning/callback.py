"""The callback for Lightning 2.x: ``lightning`` and ``pytorch_lightning``, whichever the Trainer at hand comes from.

Observed with 2.6, and the reason for the arrangement below. At a plain callback's ``on_validation_end`` the train metrics of the
epoch are not aggregated yet, and those in ``callback_metrics`` are the previous epoch's. At its ``on_train_epoch_end`` what the module
logs in its own hook of that name is missing, because plain callbacks run before the module. Only subclasses of the Trainer's
``Checkpoint`` run after it. But one that the user passes suppresses the Trainer's default ModelCheckpoint. So `KeepsakeCallback` is a
plain callback, which appends a small helper of that class to the Trainer's callbacks when the fit is set up.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keepsake.integrations._base import Run, guarded, metric_pair, warn_of
from keepsake.integrations._torch import learning_rate
from keepsake.integrations.lightning._trainer import base_class, ending, is_a, monitored_by, outputs_of, params_of
from keepsake.integrations.lightning.logger import KeepsakeLogger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from keepsake.checkpoint import PrimaryMetric
    from keepsake.experiment import Experiment
    from keepsake.repository.status import Outcome

__all__ = ["KeepsakeCallback"]


@dataclass(frozen=True, slots=True)
class _Pending:
    """A checkpoint that is saved but not recorded yet, because metrics of its step may still come in."""

    step: int
    epoch: int
    file: Path | None
    metrics: dict[str, Any]


class KeepsakeCallback(base_class("", "Callback")):  # type: ignore[misc]
    """Records a Lightning training: code, params, and at the end of each epoch its metrics and a checkpoint.

    Rank zero records; the other ranks only take part in saving. A training that goes on with the same Trainer is the same experiment.

    Args:
        filepath: Name that the checkpoint is recorded under, relative to the project directory; an absolute one, and one that
            leaves that directory, is recorded under its base name. Nothing is written there. None records metrics only.
        params: Hyperparameters, of any type that `keepsake.init` takes; they outweigh those of the module and the data module
            (``save_hyperparameters``), which are recorded by themselves, with the Trainer's under ``trainer``.
        primary_metric: Name and goal of the metric to choose the best checkpoint by, such as ``("val_loss", "minimize")``.
        period: Record each n-th epoch. Where the Trainer validates within an epoch, each validation of such an epoch is
            recorded as well, unless ``every_n_train_steps`` is given.
        save_weights_only: Save the model's weights and not the state of optimizers and callbacks.
        every_n_epochs: Lightning's own name for ``period``, which it outweighs.
        every_n_train_steps: Record each n optimizer steps as well.
        monitor: Lightning's own way to say the primary metric's name, which ``primary_metric`` outweighs. If neither is given, it is
            that of the Trainer's ModelCheckpoint.
        mode: Whether less (``"min"``) or more (``"max"``) of it is better.
        path: What of the project is saved as code; None for nothing.
        experiment: An experiment of your own to record into; it is not ended then. One is made where the training starts if not
            given.
        resume: An experiment to go on with, as for `keepsake.init`; None also for the one of the checkpoint that ``ckpt_path`` names.
        quiet: Say nothing at the start and the end.

    Attributes:
        experiment: The experiment, from the start of the training on; None before.

    Raises:
        ValueError: An argument is of no use, such as a period of 0.

    Example:
        >>> callback = KeepsakeCallback(primary_metric=("val_loss", "minimize"))
        >>> trainer = Trainer(callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str] | None = "model.ckpt",
        params: object = None,
        primary_metric: tuple[str, str] | PrimaryMetric | None = None,
        period: int = 1,
        save_weights_only: bool = False,
        *,
        every_n_epochs: int | None = None,
        every_n_train_steps: int | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        path: str | os.PathLike[str] | None = ".",
        experiment: Experiment | None = None,
        resume: str | bool | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", not {mode!r}')
        if primary_metric is None and monitor is not None:
            primary_metric = (monitor, "maximize" if mode == "max" else "minimize")
        period = period if every_n_epochs is None else every_n_epochs
        if period < 1 or (every_n_train_steps is not None and every_n_train_steps < 1):
            raise ValueError("period, every_n_epochs and every_n_train_steps count from 1")
        if filepath is not None and Path(filepath).name in ("", ".."):
            raise ValueError(f"filepath must be the name of a file, not {os.fspath(filepath)!r}; None saves no file")
        self.filepath = filepath
        self.period = period
        self.save_weights_only = save_weights_only
        self.every_n_train_steps = every_n_train_steps
        self._users_metric = metric_pair(primary_metric)
        self._run = Run(params, primary_metric, path, experiment, resume=resume, quiet=quiet)
        self._logger: KeepsakeLogger | None = None
        self._restored_id: str | None = None
        self._is_training = False
        self._multiples = 0
        self._saved_step = 0
        self._pending: _Pending | None = None
        self._stale: dict[str, Any] = {}
        self._has_validated = False
        self._learning_rate: float | None = None

    @property
    def experiment(self) -> Experiment | None:
        """The experiment, from the start of the training on; None before."""
        return self._run.experiment

    @property
    def state_key(self) -> str:
        """What tells the states of two such callbacks apart in a checkpoint."""
        return f"{type(self).__qualname__}{{'filepath': {str(self.filepath)!r}}}"

    def state_dict(self) -> dict[str, str]:
        """Return which experiment a checkpoint belongs to, in plain types: safe loading accepts no others."""
        experiment_id = self._run.experiment_id
        return {"experiment_id": experiment_id} if experiment_id is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember which experiment the checkpoint is of that a training goes on from."""
        restored = state_dict.get("experiment_id")
        self._restored_id = restored if isinstance(restored, str) else None

    # --- the start and the end --------------------------------------------------------------------------------------

    @guarded
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Append the helper that runs after the module, once."""
        helpers = [one for one in trainer.callbacks if isinstance(one, _AfterModule) and one.callback is self]
        if stage == "fit" and not helpers:
            # A new list: the Trainer is iterating over the present one.
            trainer.callbacks = [*trainer.callbacks, _helper_class(trainer)(self)]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the experiment: not earlier, because Lightning's tuners go through all earlier hooks without training.

        This may raise, as `keepsake.init` does: the training has not begun, and nothing is lost yet.
        """
        if trainer.fast_dev_run:
            return
        restored_id, self._restored_id = (self._restored_id if trainer.global_step > 0 else None), None
        self._logger = next((one for one in trainer.loggers if isinstance(one, KeepsakeLogger)), None)
        if self._logger is not None:
            self._logger.begin(trainer, restored_id=restored_id, params=self._run.params, primary_metric=self._users_metric)
            self._run.share(self._logger.run)
        else:
            self._run.start(
                params_of(trainer, pl_module),
                goes_on=trainer.global_step > 0,
                exclude=outputs_of(trainer, self.filepath) or [],
                is_rank_zero=trainer.is_global_zero,
                from_checkpoint=trainer.global_step > 0 and trainer.ckpt_path is not None,
                restored_id=restored_id,
                primary_metric=monitored_by(trainer),
            )
        # Where nothing is recorded nothing need be saved; but no rank can know that of the others, and they save together.
        self._is_training = self._run.is_recorded or trainer.world_size > 1
        self._multiples = trainer.global_step // (self.every_n_train_steps or 1)
        self._saved_step = trainer.global_step

    @guarded
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Record what ended the training."""
        self._finish(*ending(exception))

    @guarded
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """End the experiment."""
        if stage == "fit":
            self._finish("finished")

    def _finish(self, outcome: Outcome, error: BaseException | None = None) -> None:
        pending, self._pending = self._pending, None
        self._is_training = False
        if pending is not None:
            # With what was known when it was saved. Asking the Trainer might start a collective call that nobody joins.
            self._checkpoint(pending, pending.metrics)
        self._run.finish(outcome, error)

    # --- when to save and record ------------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember the metrics of earlier epochs, to tell them from those of this one."""
        self._mark_metrics_stale(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Record what was saved at the present step: the weights are about to change, no more metrics of it will come."""
        self._record(trainer)
        if self._has_validated:
            # What was measured belongs to those weights, and to no later checkpoint of this epoch.
            self._mark_metrics_stale(trainer)
        # By the end of the batch a scheduler may have put the next one in its place.
        self._learning_rate = learning_rate(trainer.optimizers)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save each n optimizer steps."""
        if self.every_n_train_steps is None:
            return
        # Several optimizers step several times in a batch, so a multiple may be passed without being met.
        multiples = trainer.global_step // self.every_n_train_steps
        if multiples > self._multiples:
            self._multiples = multiples
            self._save_within_epoch(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save after a validation within an epoch."""
        self._has_validated = True
        if self.every_n_train_steps is None and self._is_due(trainer):
            self._save_within_epoch(trainer)

    def on_epoch_complete(self, trainer: Any) -> None:
        """Save and record the epoch; called by the helper when everything of the epoch has been logged."""
        if self._is_training and self._is_due(trainer):
            # Also over what was saved at this step already, where the training stops within the epoch.
            self._save(trainer)
        self._record(trainer)

    def _is_due(self, trainer: Any) -> bool:
        return bool((trainer.current_epoch + 1) % self.period == 0)

    def _save_within_epoch(self, trainer: Any) -> None:
        # While gradients are accumulated, or before the first step, there is nothing new to save.
        is_new = trainer.global_step != self._saved_step
        # What runs at the end of an epoch may still change the weights.
        epoch_end_saves = trainer.is_last_batch and self._is_due(trainer)
        if self._is_training and is_new and not epoch_end_saves:
            self._save(trainer)

    # --- saving, on every rank --------------------------------------------------------------------------------------

    def _save(self, trainer: Any) -> None:
        # Every rank asks for the metrics: to aggregate them, they may need each other.
        metrics = self._fresh_metrics(trainer) or {}
        self._pending = _Pending(trainer.global_step, trainer.current_epoch, self._saved_file(trainer), metrics)
        self._saved_step = trainer.global_step

    def _saved_file(self, trainer: Any) -> Path | None:
        if self.filepath is None:
            return None
        if trainer.world_size > 1:
            # A failure must end the training here, as that of a ModelCheckpoint does: the other ranks wait in the save.
            return self._save_file(trainer)
        try:
            return self._save_file(trainer)
        except Exception as err:  # noqa: BLE001 - a full disk for instance costs this file, not the training
            warn_of("save", f"{self.filepath} of step {trainer.global_step} could not be saved", err)
            return None

    def _save_file(self, trainer: Any) -> Path:
        file = self._run.staging_path(str(self.filepath))
        with _at_once(trainer.strategy):
            trainer.save_checkpoint(file, weights_only=self.save_weights_only)
        return file

    # --- recording, on rank zero ------------------------------------------------------------------------------------

    def _record(self, trainer: Any) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            # As in `_save`, on every rank.
            self._checkpoint(pending, self._fresh_metrics(trainer) or pending.metrics)

    @guarded
    def _mark_metrics_stale(self, trainer: Any) -> None:
        self._stale = dict(trainer.callback_metrics)
        self._has_validated = False

    @guarded
    def _fresh_metrics(self, trainer: Any) -> dict[str, Any]:
        """Return what was logged in this epoch and measured with this step's weights.

        A value that was there before, the very same object, has not been logged since.
        """
        rate = {"learning_rate": self._learning_rate} if self._learning_rate is not None else {}
        fresh = {name: value for name, value in trainer.callback_metrics.items() if self._stale.get(name) is not value}
        # What the module itself calls so outweighs it.
        return rate | fresh

    @guarded
    def _checkpoint(self, pending: _Pending, metrics: dict[str, Any]) -> None:
        if self._logger is not None and pending.step in self._logger.recorded_steps:
            # What a ModelCheckpoint has saved at the same step.
            self._run.clear_staging()
            return
        try:
            self._run.checkpoint(pending.file, self._saved_as(), step=pending.step, metrics={**metrics, "epoch": pending.epoch})
        finally:
            self._run.clear_staging()

    def _saved_as(self) -> str | None:
        if self.filepath is None:
            return None
        path = Path(self.filepath)
        return path.name if path.is_absolute() or ".." in path.parts else path.as_posix()

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process and this training."""
        return _without_module(self.__dict__ | {"_is_training": False, "_pending": None, "_stale": {}})


class _AfterModule:
    """Runs at the end of an epoch after the module itself; made a ``Checkpoint`` of the Trainer's namespace by `_helper_class`."""

    # What Trainers ask of any Checkpoint, when they look for the best one.
    best_model_path = ""
    current_score = None

    def __init__(self, callback: KeepsakeCallback) -> None:
        super().__init__()
        self.callback = callback

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Pass the hook on, if the callback is still one of the Trainer's."""
        if self.callback in trainer.callbacks:
            self.callback.on_epoch_complete(trainer)

    def __getstate__(self) -> dict[str, Any]:
        return _without_module(self.__dict__)


def _without_module(state: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the module's logging functions, which Trainers attach to callbacks: a copy would carry the whole module."""
    return {name: value for name, value in state.items() if name not in ("log", "log_dict")}


def _helper_class(trainer: Any) -> type[_AfterModule]:
    """Return the helper's class for a Trainer: `_AfterModule` and the Checkpoint class of the Trainer's own namespace."""
    is_legacy = any(kind.__module__.startswith("pytorch_lightning") for kind in type(trainer).__mro__)
    name = "_PytorchLightningHelper" if is_legacy else "_LightningHelper"
    return getattr(sys.modules[__name__], name)  # type: ignore[no-any-return]


def __getattr__(name: str) -> Any:
    """Make a helper's class when it is first needed, also by the unpickling of one in another process."""
    namespaces = {"_LightningHelper": "lightning.pytorch", "_PytorchLightningHelper": "pytorch_lightning"}
    if name not in namespaces:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    checkpoint = import_module(f"{namespaces[name]}.callbacks").Checkpoint
    helper = type(name, (_AfterModule, checkpoint), {"__module__": __name__, "__qualname__": name})
    globals()[name] = helper
    return helper


@contextmanager
def _at_once(strategy: Any) -> Iterator[None]:
    """Save before returning: Lightning's AsyncCheckpointIO would write the file some time later."""
    checkpoint_io: Any = getattr(strategy, "checkpoint_io", None)
    if not is_a(checkpoint_io, "AsyncCheckpointIO"):
        yield
        return
    strategy.checkpoint_io = checkpoint_io.checkpoint_io
    try:
        yield
    finally:
        strategy.checkpoint_io = checkpoint_io
