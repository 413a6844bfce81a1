"""The callback for Lightning 2.x: ``lightning`` and ``pytorch_lightning``, whichever the Trainer at hand comes from.

Observed with 2.6, and the reason for the arrangement below. At a plain callback's ``on_validation_end`` the train metrics of the
epoch are not aggregated yet, and those in ``callback_metrics`` are the previous epoch's. At its ``on_train_epoch_end`` what the module
logs in its own hook of that name is missing, because plain callbacks run before the module. Only subclasses of the Trainer's
``Checkpoint`` run after it. But one that the user passes suppresses the Trainer's default ModelCheckpoint. So `KeepsakeCallback` is a
plain callback, which appends a small helper of that class to the Trainer's callbacks when the fit is set up.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from keepsake.exceptions import MissingDependency
from keepsake.integrations._base import Run, guarded

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from keepsake.experiment import Experiment

NAMESPACES = ("lightning.pytorch", "pytorch_lightning")
"""The two names under which Lightning is installed. Their classes are unrelated."""

__all__ = ["KeepsakeCallback"]


def _callback_base() -> Any:
    """Return ``Callback`` of the namespace that the program uses, else of the one that is installed."""
    for namespace in (*(name for name in NAMESPACES if name in sys.modules), *NAMESPACES):
        try:
            return import_module(namespace).Callback
        except ModuleNotFoundError as err:
            # Only "it is not installed" is answered here; one that is broken says so itself.
            if err.name is None or not namespace.startswith(err.name):
                raise
    raise MissingDependency(
        "keepsake.integrations.lightning needs Lightning, which is not installed", hint='pip install "keepsake[lightning]"'
    )


class KeepsakeCallback(_callback_base()):  # type: ignore[misc]
    """Records a Lightning training: code, params, and at the end of each epoch its metrics and a checkpoint.

    Rank zero records; the other ranks only take part in saving. A training that goes on with the same Trainer is the same experiment.

    Args:
        filepath: Name that the checkpoint is recorded under, relative to the project directory; an absolute one is recorded under
            its base name. Nothing is written there. None records metrics only.
        params: Hyperparameters; they outweigh those of the module and the data module (``save_hyperparameters``), which are
            recorded by themselves, with the Trainer's under ``trainer``.
        primary_metric: Name and goal of the metric to choose the best checkpoint by, such as ``("val_loss", "minimize")``.
        period: Record each n-th epoch.
        save_weights_only: Save the model's weights and not the state of optimizers and callbacks.
        every_n_train_steps: Record each n optimizer steps as well.
        path: What of the project is saved as code; None for nothing.
        experiment: An experiment of your own to record into; it is not ended then. One is made where the training starts if not
            given.
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
        params: Mapping[str, Any] | None = None,
        primary_metric: tuple[str, str] | None = None,
        period: int = 1,
        save_weights_only: bool = False,
        *,
        every_n_train_steps: int | None = None,
        path: str | os.PathLike[str] | None = ".",
        experiment: Experiment | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        if period < 1 or (every_n_train_steps is not None and every_n_train_steps < 1):
            raise ValueError("period and every_n_train_steps count from 1")
        self.filepath = filepath
        self.period = period
        self.save_weights_only = save_weights_only
        self.every_n_train_steps = every_n_train_steps
        self._run = Run(params, primary_metric, path, experiment, quiet=quiet)
        self._forget_training()

    def _forget_training(self) -> None:
        self._recorded_step = -1
        self._metrics_before_epoch: dict[str, Any] = {}

    @property
    def experiment(self) -> Experiment | None:
        """The experiment, from the start of the training on; None before."""
        return self._run.experiment

    # --- hooks of the Trainer ---------------------------------------------------------------------------------------

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
        goes_on = trainer.global_step > 0
        if not goes_on:
            self._forget_training()
        self._run.start(
            _params(trainer, pl_module),
            goes_on=goes_on,
            exclude=_outputs(trainer, self.filepath),
            is_rank_zero=trainer.is_global_zero,
        )

    @guarded
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember the metrics of earlier epochs, to tell them from those of this one."""
        self._metrics_before_epoch = dict(trainer.callback_metrics)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record each n optimizer steps."""
        step = trainer.global_step
        if self.every_n_train_steps is not None and step and step % self.every_n_train_steps == 0:
            self._record(trainer)

    def on_epoch_complete(self, trainer: Any) -> None:
        """Record the epoch; called by the helper when everything of the epoch has been logged."""
        if (trainer.current_epoch + 1) % self.period == 0:
            self._record(trainer)

    @guarded
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Record what ended the training."""
        interrupted = isinstance(exception, KeyboardInterrupt) or type(exception).__name__ == "SIGTERMException"
        self._run.finish("interrupted" if interrupted else "failed", exception)

    @guarded
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """End the experiment."""
        if stage == "fit":
            self._run.finish("finished")

    # --- recording --------------------------------------------------------------------------------------------------

    def _record(self, trainer: Any) -> None:
        """Save on every rank, as the strategy may need them all, and record on rank zero."""
        step = trainer.global_step
        if self._run.experiment is None or trainer.sanity_checking or step == self._recorded_step:
            return
        self._recorded_step = step
        file = self._saved(trainer)
        if trainer.is_global_zero:
            self._checkpoint(trainer, file, step)

    def _saved(self, trainer: Any) -> Path | None:
        if self.filepath is None:
            return None
        save = self._save
        # With one process a save that fails, on a full disk for instance, costs the files of this checkpoint. With several it must
        # end the training, as a failing ModelCheckpoint does: the other ranks wait in it.
        return guarded(save)(trainer) if trainer.world_size == 1 else save(trainer)

    def _save(self, trainer: Any) -> Path:
        file = self._run.staging_path(str(self.filepath))
        trainer.save_checkpoint(file, weights_only=self.save_weights_only)
        return file

    @guarded
    def _checkpoint(self, trainer: Any, file: Path | None, step: int) -> None:
        metrics = {
            name: value
            for name, value in trainer.callback_metrics.items()
            # A value that has been there since before the epoch, the very same object, was not logged in this epoch.
            if self._metrics_before_epoch.get(name) is not value
        }
        self._run.checkpoint(file, self._saved_as(), step=step, metrics={**metrics, "epoch": trainer.current_epoch})
        self._run.clear_staging()

    def _saved_as(self) -> str | None:
        if self.filepath is None:
            return None
        path = Path(self.filepath)
        leaves = path.is_absolute() or ".." in path.parts
        return path.name if leaves else PurePosixPath(path.as_posix()).as_posix()

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process."""
        return _without_module(self.__dict__ | {"_metrics_before_epoch": {}})


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


def _params(trainer: Any, module: Any) -> dict[str, Any]:
    """Return what the module, the data module and the Trainer know of the hyperparameters."""
    params: dict[str, Any] = {}
    for source in (getattr(trainer, "datamodule", None), module):
        # As they were given to the constructor; what the code has changed since is not what the user set.
        params |= dict(getattr(source, "hparams_initial", None) or {})
    facts = {
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps if trainer.max_steps != -1 else None,
        "precision": trainer.precision,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
    }
    return {**params, "trainer": {name: value for name, value in facts.items() if value is not None}}


def _outputs(trainer: Any, filepath: str | os.PathLike[str] | None) -> list[Path]:
    """Return what Lightning writes into the project: outputs of this and earlier trainings, and no code."""
    outputs = [Path(trainer.default_root_dir) / name for name in ("lightning_logs", "checkpoints")]
    outputs += [Path(logger.log_dir) for logger in trainer.loggers if getattr(logger, "log_dir", None)]
    outputs += [Path(one.dirpath) for one in trainer.checkpoint_callbacks if getattr(one, "dirpath", None)]
    return outputs + ([Path(filepath)] if filepath is not None else [])
