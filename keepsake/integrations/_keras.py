"""What the callbacks for Keras 3 and for tf_keras share: everything but the class that they are derived from.

Observed with Keras 3.15 on its three backends and tf_keras 2.21, and the reason for the arrangement below. Nothing is called when an
exception or Ctrl-C ends a fit, so the experiment watches the call (`keepsake.integrations._calls`). Defining ``on_train_batch_end``
in a class makes Keras wait for each batch on JAX, so it is bound to an instance only where batches are to be counted. ``evaluate``
and ``predict`` call other hooks than ``fit``, which are not defined here. A fit does not say from which epoch it starts; the epoch's
own hook does.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keepsake.integrations._base import Run, guarded, metric_pair, warn_of
from keepsake.values import convert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keepsake.checkpoint import PrimaryMetric
    from keepsake.experiment import Experiment

LEARNING_RATE = "learning_rate"
DIGITS = 7
"""Significant digits of a 32-bit float: Keras holds a learning rate of 0.001 as 0.0010000000474974513."""

RATE_INTERVAL_S = 0.1
"""The least time between two points of batches that have the learning rate. To read a variable of TensorFlow takes 0.3 ms while the
training uses the processor's cache for other things, three times as long as all the rest of a point."""

MORE_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "fbeta", "fmeasure", "iou", "r2", "sensitivity", "specificity")
"""Parts of the names of Keras's metrics that are to grow."""


class KerasCallback:
    """The hooks, to be put before a Keras's own ``Callback`` class."""

    # What Keras's own class gives.
    model: Any
    params: Any

    package = ""
    """Whose fit is watched."""

    model_suffixes: Sequence[str] = ()
    """What the name of a saved model may end with; anything where it is empty."""

    def __init__(
        self,
        filepath: str | os.PathLike[str] | None = "model.keras",
        params: object = None,
        primary_metric: tuple[str, str] | PrimaryMetric | None = None,
        save_freq: Literal["epoch"] | int = "epoch",
        save_weights_only: bool = False,
        *,
        log_freq: Literal["epoch"] | int = "epoch",
        monitor: str | None = None,
        mode: Literal["auto", "min", "max"] = "auto",
        save_best_only: bool = False,
        path: str | os.PathLike[str] | None = ".",
        experiment: Experiment | None = None,
        resume: str | bool | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        for name, frequency in (("save_freq", save_freq), ("log_freq", log_freq)):
            if frequency != "epoch" and (type(frequency) is not int or frequency < 1):
                raise ValueError(f'{name} must be "epoch" or a number of batches, counted from 1, not {frequency!r}')
        if mode not in ("auto", "min", "max"):
            raise ValueError(f'mode must be "auto", "min" or "max", not {mode!r}')
        if filepath is not None and save_weights_only and os.fspath(filepath) == "model.keras":
            filepath = "model.weights.h5"
        self.filepath = self._checked(filepath, save_weights_only)
        self.save_freq = save_freq
        self.log_freq = log_freq
        self.save_weights_only = save_weights_only
        self.save_best_only = save_best_only
        self.mode = mode
        pair = metric_pair(primary_metric)
        if monitor is None and save_best_only:
            monitor = "val_loss"
        if pair is None and monitor is not None:
            pair = (monitor, _goal(monitor, mode))
        self.monitor = pair[0] if pair is not None else None
        self._goal = pair[1].lower() if pair is not None else None
        self._run = Run(params, pair, path, experiment, resume=resume, quiet=quiet)
        self._best: float | None = None
        self._epoch = 0
        self._batches = 0
        self._last_batch = -1
        self._is_due = False
        self._steps_are_batches = False
        self._rate_read_s = -math.inf
        self._trained: weakref.ref[Any] | None = None
        self._bind()

    def _checked(self, filepath: str | os.PathLike[str] | None, save_weights_only: bool) -> str | None:
        if filepath is None:
            return None
        name = os.fspath(filepath)
        if Path(name).name in ("", ".."):
            raise ValueError(f"filepath must be the name of a file, not {name!r}; None saves no file")
        suffixes = (".weights.h5",) if save_weights_only else self.model_suffixes
        if self.model_suffixes and not name.endswith(tuple(suffixes)):
            kind = "weights" if save_weights_only else "a model"
            raise ValueError(f"filepath of {kind} must end with {' or '.join(suffixes)}, not {name!r}")
        return name

    @property
    def _counts_batches(self) -> bool:
        return self.save_freq != "epoch" or self.log_freq != "epoch"

    def _bind(self) -> None:
        if self._counts_batches:
            self.on_train_batch_end = self._after_batch

    @property
    def experiment(self) -> Experiment | None:
        """The experiment, from the start of the training on; None before."""
        return self._run.experiment

    # --- the start and the end --------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start the experiment, or go on with it where the same model is trained further.

        This may raise, as `keepsake.init` does: the training has not begun, and nothing is lost yet.
        """
        trained = self._trained() if self._trained is not None else None
        self._batches = _iterations(self.model) or 0
        self._is_due = False
        self._steps_are_batches = False
        self._rate_read_s = -math.inf
        self._run.start(
            [_facts(self.model, self.params) or {}],
            goes_on=trained is self.model and self._batches > 0,
            exclude=[self.filepath] if self.filepath is not None else [],
            is_rank_zero=_is_chief(self.package),
            fit=(self.package, "fit"),
        )
        self._trained = weakref.ref(self.model)
        self._best = self._best_so_far()

    @guarded
    def _best_so_far(self) -> float | None:
        """Return the best value that an experiment which goes on has already."""
        checkpoints = self.experiment.checkpoints if self.experiment is not None and self._run.is_recorded else []
        values = [convert(checkpoint.metrics.get(self.monitor or "")) for checkpoint in checkpoints]
        known = [value for value in values if isinstance(value, int | float) and value == value]
        return (min(known) if self._goal == "minimize" else max(known)) if known else None

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the experiment."""
        self._end()

    @guarded
    def _end(self) -> None:
        self._run.finish("finished")

    # --- when to save and record ------------------------------------------------------------------------------------

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remember which epoch it is."""
        self._epoch = epoch
        self._last_batch = -1

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record the epoch."""
        if not self._counts_batches:
            self._batches += self._num_batches or 1
        metrics = self._metrics(epoch, logs or {}) or {}
        if (self.save_freq == "epoch" or self._is_due) and self._is_wanted(metrics):
            self._save(metrics)
        else:
            self._log(metrics, self._step())
        self._is_due = False

    def _after_batch(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        before = self._batches
        # Called once for several where they are run together; the number given may then be beyond that of the last.
        last = batch if self._num_batches is None else min(batch, self._num_batches - 1)
        self._batches += last - self._last_batch
        self._last_batch = last
        logs_now, saves_now = (
            frequency != "epoch" and before // frequency < self._batches // frequency
            for frequency in (self.log_freq, self.save_freq)
        )
        # What ends an epoch is saved with all metrics of the epoch, which are not there yet.
        self._is_due = saves_now and last + 1 == self._num_batches
        saves_now = saves_now and not self._is_due
        if not logs_now and not saves_now:
            return
        now_s = time.monotonic()
        with_rate = saves_now or now_s - self._rate_read_s >= RATE_INTERVAL_S
        self._rate_read_s = now_s if with_rate else self._rate_read_s
        metrics = self._metrics(self._epoch, logs or {}, with_rate=with_rate) or {}
        if saves_now and self._is_wanted(metrics):
            self._save(metrics)
        elif logs_now:
            self._log(metrics, self._batches if self._steps_are_batches else self._step())

    @property
    def _num_batches(self) -> int | None:
        """How many batches make an epoch, where Keras knows."""
        steps = (self.params or {}).get("steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    def _is_wanted(self, metrics: Mapping[str, Any]) -> bool:
        """Tell whether a model is to be saved: it is better than those before, or they need not be."""
        if not self.save_best_only:
            return True
        value = convert(metrics.get(self.monitor or ""))
        if not isinstance(value, int | float) or value != value:
            return False
        is_better = self._best is None or (value < self._best if self._goal == "minimize" else value > self._best)
        self._best = value if is_better else self._best
        return is_better

    @guarded
    def _metrics(self, epoch: int, logs: Mapping[str, Any], *, with_rate: bool = True) -> dict[str, Any]:
        """Return a copy of the logs, which all callbacks share, with what Keras leaves out."""
        rate = _learning_rate(self.model) if with_rate else None
        # Callbacks that change the rate put that of this epoch among the logs.
        return {**({LEARNING_RATE: rate} if rate is not None else {}), **logs, "epoch": epoch}

    def _step(self) -> int:
        made = _iterations(self.model)
        # If so, points do not ask until the next checkpoint or end of an epoch: it takes longer than to write them.
        self._steps_are_batches = made == self._batches and not _may_skip_steps(self.model.optimizer)
        if made or getattr(self.model.optimizer, "gradient_accumulation_steps", None):
            return made or 0
        # A model with several optimizers of its own leaves this one unused, or has none.
        return self._batches

    @guarded
    def _log(self, metrics: Mapping[str, Any], step: int) -> None:
        self._run.log(metrics, step=step)

    # --- saving -----------------------------------------------------------------------------------------------------

    def _save(self, metrics: dict[str, Any]) -> None:
        if not self._run.is_recorded and not _is_distributed():
            return
        try:
            file = self._saved_file()
        except Exception as err:
            if _is_distributed():
                # The other processes wait in the same call, so a failure must end the training here as it does there.
                raise
            warn_of("save", f"{self.filepath} of step {self._step()} could not be saved", err)
            file = None
        self._record(file, metrics)

    def _saved_file(self) -> Path | None:
        """Save what is to be recorded; every process of a distributed training does so, into a directory of its own."""
        if self.filepath is None:
            return None
        file = self._run.staging_path(self.filepath)
        if self.save_weights_only:
            self.model.save_weights(str(file))
        else:
            self.model.save(str(file))
        return _written(file)

    @guarded
    def _record(self, file: Path | None, metrics: dict[str, Any]) -> None:
        try:
            self._run.checkpoint(file, self._saved_as(file, metrics), step=self._step(), metrics=metrics)
        finally:
            self._run.clear_staging()

    def _saved_as(self, file: Path | None, metrics: Mapping[str, Any]) -> str | None:
        if self.filepath is None or file is None:
            return None
        path = Path(self.filepath)
        name = path.name if path.is_absolute() or ".." in path.parts else path.as_posix()
        with suppress(KeyError, ValueError, IndexError):
            # As ModelCheckpoint counts them, from 1.
            name = name.format(**{**metrics, "epoch": int(metrics["epoch"]) + 1, "batch": self._batches})
        return name

    # --- copies -----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process and this training."""
        own = {"on_train_batch_end", "_trained", "model", "_model"}
        state: dict[str, Any] = dict(self.__dict__)
        return {name: value for name, value in state.items() if name not in own} | {"_trained": None, "_model": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()


# --- what Keras knows -----------------------------------------------------------------------------------------------


def _goal(monitor: str, mode: str) -> str:
    """Return what is better of a metric; where that is not said, its name tells."""
    if mode == "auto":
        name = monitor.lower()
        mode = "max" if "loss" not in name and any(part in name for part in MORE_IS_BETTER) else "min"
    return "maximize" if mode == "max" else "minimize"


def _iterations(model: Any) -> int | None:
    """Return how many steps the optimizer has made; None where there is none."""
    value = _read(getattr(getattr(model, "optimizer", None), "iterations", None))
    return int(value) if isinstance(value, int | float) else None


def _may_skip_steps(optimizer: Any) -> bool:
    """Tell whether a batch may leave the weights as they are: gradients are added up, or were infinite in mixed precision."""
    return bool(getattr(optimizer, "gradient_accumulation_steps", None)) or hasattr(optimizer, "inner_optimizer")


def _learning_rate(model: Any) -> float | None:
    optimizer = getattr(model, "optimizer", None)
    rate = getattr(optimizer, LEARNING_RATE, None)
    value = _read(rate(optimizer.iterations) if callable(rate) and optimizer is not None else rate)
    return _short(value) if isinstance(value, float) else None


def _read(variable: Any) -> Any:
    """Return the value of a variable, which is asked for after each batch: by itself it takes a tenth of the time."""
    numpy = getattr(variable, "numpy", None)
    return convert(numpy() if callable(numpy) else variable)


def _short(value: float) -> float:
    """Return a 32-bit float as it was written."""
    return float(f"{value:.{DIGITS}g}")


@guarded
def _facts(model: Any, fit: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what Keras knows of the hyperparameters."""
    facts: dict[str, Any] = {
        "optimizer": _optimizer(getattr(model, "optimizer", None)),
        "loss": _name(getattr(model, "loss", None)),
        **_compiled(model),
        "dtype_policy": getattr(getattr(model, "dtype_policy", None), "name", None),
        "fit": {name: (fit or {}).get(name) for name in ("epochs", "steps")},
        "model": {"name": type(model).__name__, "num_layers": len(getattr(model, "layers", None) or ())},
        **_size(model),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _size(model: Any) -> dict[str, int]:
    # A model that has not been built yet has none.
    with suppress(Exception):
        trainable = sum(math.prod(int(length) for length in weight.shape) for weight in model.trainable_weights)
        return {"num_parameters": int(model.count_params()), "num_trainable_parameters": trainable}
    return {}


def _optimizer(optimizer: Any) -> dict[str, Any] | None:
    if optimizer is None:
        return None
    # With mixed precision there is one around it.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # Its own name counts how many there have been.
    config = {name: value for name, value in optimizer.get_config().items() if name != "name" and value is not None}
    short = {name: _short(found) if isinstance(found := convert(value), float) else found for name, value in config.items()}
    return {"name": type(optimizer).__name__, **short}


def _compiled(model: Any) -> dict[str, Any]:
    """Return which metrics a model was compiled with."""
    with suppress(Exception), warnings.catch_warnings():
        # Of lambdas, whose code we leave out.
        warnings.simplefilter("ignore")
        config = model.get_compile_config() or {}
        return {name: _named(config.get(name)) for name in ("loss_weights", "metrics", "weighted_metrics")}
    return {}


def _named(config: Any) -> Any:
    """Return what a serialized object is called."""
    if isinstance(config, list | tuple):
        return [_named(item) for item in config]
    if not isinstance(config, dict):
        return config
    if "class_name" not in config:
        return {name: _named(item) for name, item in config.items()}
    inner = config.get("config")
    if isinstance(inner, str):
        return inner
    if config["class_name"] == "__lambda__":
        return "<lambda>"
    return inner.get("name") or config["class_name"] if isinstance(inner, dict) else config["class_name"]


def _name(value: Any) -> Any:
    """Return what a loss is called: its configuration may hold the code of functions."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {str(key): _name(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_name(item) for item in value]
    return getattr(value, "__name__", None) or getattr(value, "name", None) or type(value).__name__


def _written(file: Path) -> Path:
    """Return what was saved under a name, to which TensorFlow's own format adds suffixes."""
    if file.exists():
        return file
    parts = sorted(file.parent.glob(f"{file.name}.*"))
    if not parts:
        raise FileNotFoundError(f"nothing was saved under {file.name}")
    directory = file.parent / f"{file.name}-parts"
    directory.mkdir()
    for part in (*parts, *file.parent.glob("checkpoint")):
        part.rename(directory / part.name)
    return directory


# --- which process --------------------------------------------------------------------------------------------------


def _cluster() -> dict[str, Any]:
    """Return what TensorFlow's strategies are told of their cluster."""
    try:
        found = json.loads(os.environ.get("TF_CONFIG", "") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_chief(package: str) -> bool:
    """Tell whether this process of a distributed training records."""
    task = _cluster().get("task")
    if isinstance(task, dict) and task:
        has_chief = any(name in _cluster().get("cluster", {}) for name in ("chief", "master"))
        kind, index = task.get("type"), int(task.get("index", 0))
        return kind in ("chief", "master") or (kind == "worker" and index == 0 and not has_chief)
    return _rank(package) == 0


def _is_distributed() -> bool:
    return sum(len(tasks) for tasks in _cluster().get("cluster", {}).values()) > 1


def _rank(package: str) -> int:
    """Return the rank that the backend knows; 0 where none does."""
    keras, jax, torch = (sys.modules.get(name) for name in (package, "jax", "torch.distributed"))
    # Asked only where it trains: to be asked makes JAX take its devices.
    if jax is not None and keras is not None and keras.backend.backend() == "jax" and jax.process_count() > 1:
        return int(jax.process_index())
    if torch is not None and torch.is_available() and torch.is_initialized():
        return int(torch.get_rank())
    return 0
