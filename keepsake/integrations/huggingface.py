"""The callback for the Trainer of Hugging Face transformers, 4 and 5.

Observed with transformers 5.23, and the reason for the arrangement below. Nothing is called when an exception or Ctrl-C ends ``train``, so
the experiment watches the call (`keepsake.integrations._calls`). ``on_save`` comes when the directory is written and older ones are
rotated away, on every rank, and the Trainer goes on using the directory; so it is copied there and then. The ID travels in the state's
``stateful_callbacks`` as a plain entry: a callback that derives from ``ExportableState`` could not be added to a training that was begun
without it. A search for hyperparameters is many trainings of one Trainer, whose checkpoints lie in directories of their own.
"""

from __future__ import annotations

import dataclasses
import os
import time
import zipfile
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from keepsake import messages
from keepsake.exceptions import MissingDependency
from keepsake.integrations._base import Run, guarded
from keepsake.integrations._torch import optimizers, size_of

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as _err:
    if _err.name != "transformers":
        raise
    raise MissingDependency(
        "keepsake.integrations.huggingface needs transformers, which is not installed", hint='pip install "keepsake[huggingface]"'
    ) from _err

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from keepsake.checkpoint import PrimaryMetric
    from keepsake.experiment import Experiment

__all__ = ["KeepsakeCallback", "register"]

Save = Literal["all", "best", "weights"]

STATE_KEY = "keepsake"
"""Under which name the experiment stands in the Trainer's state."""

OPTIMIZER_FILES = ("optimizer", "scheduler", "rng_state", "scaler", "pytorch_model_fsdp_optimizer", "global_step")
"""Beginnings of the names in a checkpoint that are needed to train on and not to use the model."""

TIMING_SUFFIXES = ("_runtime", "_per_second")
"""What an evaluation says of its own speed is no metric of a model, and differs each time."""

OTHER_RANKS_PATIENCE_S = 60.0
"""How long to wait for the files that other ranks of this machine write into a checkpoint, in seconds."""

POLL_S = 0.02

DECIDING = {
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "num_train_epochs",
    "optim",
    "per_device_train_batch_size",
    "seed",
    "warmup_steps",
    "weight_decay",
}
"""Arguments that are recorded also where they have their default value."""

UNTOLD = {
    "accelerator_config",
    "disable_tqdm",
    "do_eval",
    "do_predict",
    "do_train",
    "local_rank",
    "logging_dir",
    "output_dir",
    "report_to",
    "run_name",
    "trackio_space_id",
}
"""Arguments that decide nothing of a model, or that the Trainer sets by itself."""


class KeepsakeCallback(TrainerCallback):  # type: ignore[misc]
    """Records a training of the Hugging Face Trainer: code, params, every log, and each checkpoint that the Trainer saves.

    Rank zero records. A training that goes on from one of its checkpoints is the same experiment; each trial of a search for
    hyperparameters is one of its own.

    Args:
        params: Hyperparameters, of any type that `keepsake.init` takes; they outweigh what the Trainer knows: its arguments (``args``,
            those that differ from their defaults or decide a run), the model's configuration (``model``), and a trial's (``trial``).
        primary_metric: Name and goal of the metric to choose the best checkpoint by, such as ``("eval_f1", "maximize")``; what
            ``metric_for_best_model`` and ``greater_is_better`` say if not given, else ``eval_loss``.
        save: What of the Trainer's checkpoints is recorded: ``"all"`` files of each; ``"weights"``, each without what only training
            on needs; ``"best"``, the best one at the end; None, the metrics alone, as where the Trainer saves nothing
            (``save_strategy="no"``).
        path: What of the project is saved as code; None for nothing. The Trainer's output is left out.
        experiment: An experiment of yours to record into; it is not ended. None makes one at the start of the training.
        resume: An experiment to go on with, as for `keepsake.init`; None also for the one of the checkpoint that the training goes on from.
        quiet: Say nothing at the start and the end.

    Raises:
        ValueError: An argument makes no sense.

    Example:
        >>> from keepsake.integrations.huggingface import KeepsakeCallback
        >>> trainer = Trainer(model, args, callbacks=[KeepsakeCallback()])  # doctest: +SKIP
    """

    def __init__(
        self,
        params: object = None,
        primary_metric: tuple[str, str] | PrimaryMetric | None = None,
        *,
        save: Save | None = "all",
        path: str | os.PathLike[str] | None = ".",
        experiment: Experiment | None = None,
        resume: str | bool | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__()
        if save is not None and save not in get_args(Save):
            raise ValueError(f"save must be one of {', '.join(map(repr, get_args(Save)))} or None, not {save!r}")
        self.save = save
        self._run = Run(params, primary_metric, path, experiment, resume=resume, quiet=quiet)
        self._is_training = False
        self._started_at = 0.0
        self._metrics: dict[int, dict[str, Any]] = {}
        self._recorded: set[int] = set()
        self._unrecorded: int | None = None

    @property
    def experiment(self) -> Experiment | None:
        """The experiment, from the start of the training on; None before."""
        return self._run.experiment

    # --- the start and the end --------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the experiment, or go on with it.

        This may raise, as `keepsake.init` does: the training has not begun, and nothing is lost yet.
        """
        restored_id = _restored_id(state) if state.global_step > 0 else None
        is_same = restored_id is not None and restored_id == self._run.experiment_id
        self._run.start(
            _params(args, state, kwargs.get("model"), kwargs.get("optimizer")),
            # The search for a batch size that fits begins anew within the same call.
            goes_on=is_same or (self._run.is_within_call and not state.is_hyper_param_search),
            exclude=[directory for name in ("output_dir", "logging_dir") if (directory := getattr(args, name, None))],
            is_rank_zero=state.is_world_process_zero,
            from_checkpoint=state.global_step > 0,
            restored_id=None if state.is_hyper_param_search else restored_id,
            primary_metric=_primary_metric(args),
            fit=("transformers", "train"),
        )
        self._is_training = True
        self._started_at = time.time()
        self._metrics, self._recorded, self._unrecorded = {}, set(), None
        _remember_id(state, self._run.experiment_id)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record what is left, and end the experiment."""
        self._end(args, state)

    @guarded
    def _end(self, args: Any, state: Any) -> None:
        if not self._is_training:
            return
        self._is_training = False
        self._record_metrics_alone()
        if self._takes_files(args):
            self._record_rest(args, state)
        self._run.finish("finished")

    # --- what is logged ---------------------------------------------------------------------------------------------

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Add a point to the history."""
        self._log(state.global_step, logs or {})

    @guarded
    def _log(self, step: int, logs: Mapping[str, Any]) -> None:
        # The last log sums up the training, and is nothing of its last step.
        if self._is_training and "train_runtime" not in logs:
            metrics = _without_timing(logs)
            self._metrics.setdefault(step, {}).update(metrics)
            self._run.log(metrics, step=step)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Remember what was measured, and at which step."""
        if self._is_training:
            self._metrics.setdefault(state.global_step, {}).update(_without_timing(metrics or {}))
            self._unrecorded = None if self._takes_files(args) else state.global_step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the metrics of the epoch before, where there are no files to record them with."""
        self._record_metrics_alone()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record what was measured before this step, where there are no files to record it with."""
        self._record_metrics_alone()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember the end of an epoch, whose logs are still to come."""
        if self._is_training and not self._takes_files(args):
            self._unrecorded = state.global_step

    @guarded
    def _record_metrics_alone(self) -> None:
        step, self._unrecorded = self._unrecorded, None
        if step is not None and self._metrics.get(step):
            self._run.checkpoint(None, None, step=step, metrics=self._metrics[step])

    # --- what is saved ----------------------------------------------------------------------------------------------

    def _takes_files(self, args: Any) -> bool:
        return self.save is not None and _text(args.save_strategy) != "no"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Copy the checkpoint before it is rotated away."""
        if self.save in ("all", "weights") and self._run.is_recorded:
            self._record_step(args, state, state.global_step)

    @guarded
    def _record_step(self, args: Any, state: Any, step: int) -> None:
        directory, name = _checkpoint_directory(args, state, step), f"checkpoint-{step}"
        if directory is None:
            messages.warn_once(name, f"{name} is not to be found in {args.output_dir}, so its files are not recorded")
        else:
            _wait_for_other_ranks(args, directory)
        self._record_directory(directory, state, step)

    def _record_directory(self, directory: Path | None, state: Any, step: int) -> None:
        if step in self._recorded:
            return
        self._recorded.add(step)
        epoch = {"epoch": state.epoch} if state.epoch is not None and step == state.global_step else {}
        metrics = {**epoch, **self._metrics.get(step, {})}
        source = directory if directory is None or self.save != "weights" else self._weights_of(directory)
        try:
            # The Trainer goes on using its directory.
            self._run.checkpoint(source, f"checkpoint-{step}", step=step, metrics=metrics, move=False)
        finally:
            self._run.clear_staging()

    def _weights_of(self, directory: Path) -> Path:
        """Return a directory of our own with links to what is needed to use the model."""
        target = self._run.staging_path(directory.name)
        target.mkdir()
        for source in directory.iterdir():
            if not source.name.startswith(OPTIMIZER_FILES):
                (target / source.name).symlink_to(source.absolute())
        return target

    def _record_rest(self, args: Any, state: Any) -> None:
        """Record the best checkpoint, or those that no hook was called for, as when SIGTERM made the Trainer save and stop."""
        if self.save == "best":
            best = getattr(state, "best_model_checkpoint", None)
            if best is not None and Path(best).is_dir():
                self._record_directory(Path(best), state, _step_of(Path(best)))
            return
        for directory in _checkpoint_directories(args, state):
            if directory.stat().st_mtime >= self._started_at:
                self._record_directory(directory, state, _step_of(directory))

    # --- copies -----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this training."""
        return self.__dict__ | {"_is_training": False, "_metrics": {}, "_recorded": set(), "_unrecorded": None}


def register() -> None:
    """Make ``report_to="keepsake"`` known to the Trainer's arguments.

    The library has no public way for that, so it may fail with a release to come; ``callbacks=[KeepsakeCallback()]`` does not.

    Example:
        >>> from keepsake.integrations.huggingface import register
        >>> register()  # doctest: +SKIP
        >>> args = TrainingArguments("out", report_to="keepsake")  # doctest: +SKIP
    """
    from transformers.integrations import integration_utils

    integration_utils.INTEGRATION_TO_CALLBACK["keepsake"] = KeepsakeCallback


# --- what the Trainer knows -----------------------------------------------------------------------------------------


def _restored_id(state: Any) -> str | None:
    """Return which experiment a checkpoint is of that the training goes on from."""
    with suppress(AttributeError, KeyError, TypeError):
        found = state.stateful_callbacks[STATE_KEY]["attributes"]["experiment_id"]
        return found if isinstance(found, str) else None
    return None


def _remember_id(state: Any, experiment_id: str | None) -> None:
    """Write into the state, and so into each checkpoint, which experiment it is of; in the shape that the Trainer gives its own entries."""
    entries = getattr(state, "stateful_callbacks", None)
    if isinstance(entries, dict) and experiment_id is not None:
        entries[STATE_KEY] = {"args": {}, "attributes": {"experiment_id": experiment_id}}


def _primary_metric(args: Any) -> tuple[str, str] | None:
    """Return what the Trainer calls best. Never the training loss: a loss that is NaN is logged as 0."""
    name = getattr(args, "metric_for_best_model", None)
    if name:
        name = name if name.startswith("eval_") else f"eval_{name}"
        is_greater = args.greater_is_better if args.greater_is_better is not None else not name.endswith("loss")
        return name, "maximize" if is_greater else "minimize"
    return ("eval_loss", "minimize") if _text(getattr(args, "eval_strategy", "no")) != "no" else None


def _text(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def _without_timing(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not name.endswith(TIMING_SUFFIXES)}


def _params(args: Any, state: Any, model: Any, optimizer: Any) -> list[Any]:
    """Return what the Trainer and the model know of the hyperparameters."""
    known = {
        "args": _arguments(args),
        "trainer": _settings(args, state),
        # That of the arguments, unless the Trainer was given another.
        "optimizer": optimizers([getattr(optimizer, "optimizer", optimizer)]) if optimizer is not None else None,
        "model": _configuration(model),
        "peft": _adapters(model),
        **(size_of(model) or {}),
        **(_trial(state) if state.is_hyper_param_search else {}),
    }
    return [{name: facts for name, facts in known.items() if facts}]


@guarded
def _settings(args: Any, state: Any) -> dict[str, Any]:
    """Return what the Trainer has made of its arguments on this machine."""
    # What a process takes at a time, on all of its devices; a search for one that fits changes it.
    batch_size = getattr(state, "train_batch_size", None) or args.train_batch_size
    devices = args.world_size * max(1, args.n_gpu)
    return {
        "max_steps": state.max_steps,
        "batch_size": batch_size,
        "total_batch_size": batch_size * args.gradient_accumulation_steps * args.world_size,
        "accelerator": args.device.type,
        "devices": devices,
    }


@guarded
def _adapters(model: Any) -> dict[str, Any] | None:
    adapters = getattr(model, "peft_config", None)
    if not isinstance(adapters, dict):
        return None
    return {name: adapter.to_dict() for name, adapter in adapters.items() if hasattr(adapter, "to_dict")}


def _trial(state: Any) -> dict[str, Any]:
    return {"trial": dict(state.trial_params or {}), "trial_name": state.trial_name}


@guarded
def _configuration(model: Any) -> dict[str, Any]:
    """Return what a model is, how its configuration differs from what its kind is by itself, and which model it began as."""
    name: dict[str, Any] = {"name": type(model).__name__}
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_dict"):
        return name
    known, defaults = config.to_dict(), {}
    # Not each kind can be made without arguments.
    with suppress(Exception):
        defaults = type(config)().to_dict()
    absent = object()
    told = {
        name: value
        for name, value in known.items()
        if defaults.get(name, absent) != value and name not in ("transformers_version", "_name_or_path")
    }
    origin = str(getattr(config, "name_or_path", "") or "")
    # A directory of this machine says nothing to anybody.
    begun_as = {"name_or_path": origin} if origin and not Path(origin).exists() and not Path(origin).is_absolute() else {}
    return {**name, "model_type": known.get("model_type"), **begun_as, **told}


@guarded
def _arguments(args: Any) -> dict[str, Any]:
    """Return the arguments that decide a run or are not as they would be by themselves, without the names of people and places."""
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    known = args.to_dict()
    return {
        name: value
        for name, value in sorted(known.items())
        if name in DECIDING
        or not (name in UNTOLD or name.startswith(("hub_", "push_to_hub", "_")) or _is(value, defaults.get(name)))
    }


def _is(value: Any, default: Any) -> bool:
    if default is dataclasses.MISSING or not default:
        # Nothing is said in several ways: by None, by a list without elements, by a function that makes one.
        return not value
    return bool(value == (default.value if isinstance(default, Enum) else default))


# --- where it saves -------------------------------------------------------------------------------------------------


def _checkpoint_directory(args: Any, state: Any, step: int) -> Path | None:
    """Return where the checkpoint of a step lies; of several the one that was written last."""
    found = [directory for directory in _checkpoint_directories(args, state) if _step_of(directory) == step]
    return max(found, key=lambda directory: directory.stat().st_mtime, default=None)


def _checkpoint_directories(args: Any, state: Any) -> Iterator[Path]:
    root = Path(args.output_dir)
    # The trials of a search have directories of their own in there, whose names the callback is not told.
    for directory in sorted(root.glob("*/checkpoint-*" if state.is_hyper_param_search else "checkpoint-*")):
        if _step_of(directory) >= 0 and (directory / "trainer_state.json").exists():
            yield directory


def _step_of(directory: Path) -> int:
    number = directory.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def _wait_for_other_ranks(args: Any, directory: Path) -> None:
    """Wait until the files are there that other ranks of this machine write: the Trainer itself lets nobody wait for them."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1") or 1) if args.world_size > 1 else 1
    if ranks == 1 or args.save_only_model:
        return
    files = [directory / f"rng_state_{rank}.pth" for rank in range(ranks)]
    end = time.monotonic() + OTHER_RANKS_PATIENCE_S
    # A file that is still being written lacks the end of its archive.
    while missing := [file.name for file in files if not zipfile.is_zipfile(file)]:
        if time.monotonic() > end:
            messages.warn_once("ranks", f"{', '.join(missing)} of {directory.name} did not appear and are not recorded")
            return
        time.sleep(POLL_S)
