"""What the callback and the logger ask of Lightning and of a Trainer."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepsake.exceptions import MissingDependency
from keepsake.integrations._base import guarded
from keepsake.integrations._torch import optimizers, schedulers, size_of

if TYPE_CHECKING:
    import os

    from keepsake.repository.status import Outcome

NAMESPACES = ("lightning.pytorch", "pytorch_lightning")
"""The two names under which Lightning is installed. Their classes are unrelated."""


def base_class(module: str, name: str) -> Any:
    """Return a class of the namespace that the program uses, else of the one that is installed.

    Args:
        module: The module below the namespace; empty for the namespace itself.
        name: The class.
    """
    for namespace in (*(name for name in NAMESPACES if name in sys.modules), *NAMESPACES):
        try:
            import_module(namespace)
        except ModuleNotFoundError as err:
            # Only "it is not installed" is answered here; one that is broken says so itself.
            if err.name is None or not namespace.startswith(err.name):
                raise
        else:
            return getattr(import_module(f"{namespace}.{module}".rstrip(".")), name)
    raise MissingDependency(
        "keepsake.integrations.lightning needs Lightning, which is not installed", hint='pip install "keepsake[lightning]"'
    )


def is_a(value: object, class_name: str) -> bool:
    """Tell whether something is of a class of Lightning's, of either namespace."""
    return any(kind.__name__ == class_name for kind in type(value).__mro__)


def ending(error: BaseException) -> tuple[Outcome, BaseException | None]:
    """Return outcome and error for what ended a training."""
    if isinstance(error, KeyboardInterrupt) or is_a(error, "SIGTERMException"):
        return "interrupted", error
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "finished", None
    return "failed", error


def params_of(trainer: Any, module: Any) -> list[Any]:
    """Return what the Trainer, the data module and the module know of the hyperparameters; each outweighs those before it."""
    # As they were given to the constructor; what the code has changed since is not what the user set.
    given = [getattr(source, "hparams_initial", None) for source in (getattr(trainer, "datamodule", None), module)]
    known = {"trainer": _settings(trainer), **(_optimization(trainer) or {}), **(_model(module) or {})}
    return [{name: facts for name, facts in known.items() if facts}, *given]


@guarded
def _settings(trainer: Any) -> dict[str, Any]:
    """Return how a Trainer trains, and on what."""
    facts = {
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps if trainer.max_steps != -1 else None,
        "precision": trainer.precision,
        "batch_size": _batch_size(trainer.train_dataloader),
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "accelerator": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
        "strategy": type(trainer.strategy).__name__,
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
    }
    return {name: value for name, value in facts.items() if value is not None}


@guarded
def _batch_size(loader: Any) -> Any:
    """Return how many samples a process takes at a time, of several loaders by their names; a loader is asked and never run."""
    if isinstance(loader, dict):
        return {str(name): size for name, one in loader.items() if (size := _batch_size(one)) is not None} or None
    if isinstance(loader, list | tuple):
        return _batch_size(dict(enumerate(loader)))
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) else None


@guarded
def _optimization(trainer: Any) -> dict[str, Any]:
    configurations = trainer.lr_scheduler_configs
    return {
        "optimizer": optimizers(trainer.optimizers) if trainer.optimizers else None,
        "lr_scheduler": schedulers([one.scheduler for one in configurations]) if configurations else None,
    }


@guarded
def _model(module: Any) -> dict[str, Any]:
    layers = sum(1 for one in module.modules() if next(one.children(), None) is None)
    return {"model": {"name": type(module).__name__, "num_layers": layers}, **(size_of(module) or {})}


@guarded
def outputs_of(trainer: Any, filepath: str | os.PathLike[str] | None) -> list[Path]:
    """Return what Lightning writes into the project: outputs of this and earlier trainings, and no code."""
    root = Path.cwd() / trainer.default_root_dir
    outputs = [root / name for name in ("lightning_logs", "mlruns", "wandb")]
    if any((root / "checkpoints").glob("*.ckpt")):
        # Where a ModelCheckpoint writes without a logger; without such files it may be anything of the user's.
        outputs.append(root / "checkpoints")
    for logger in trainer.loggers:
        outputs += [Path.cwd() / place for name in ("root_dir", "log_dir") if (place := getattr(logger, name, None))]
    outputs += [Path(one.dirpath) for one in trainer.checkpoint_callbacks if getattr(one, "dirpath", None)]
    return outputs + ([Path(filepath)] if filepath is not None else [])


@guarded
def monitored_by(trainer: Any) -> tuple[str, str] | None:
    """Return the metric by which the Trainer's own checkpoints are chosen, and what is better."""
    for one in trainer.checkpoint_callbacks:
        if getattr(one, "monitor", None):
            return str(one.monitor), "maximize" if getattr(one, "mode", "min") == "max" else "minimize"
    return None
