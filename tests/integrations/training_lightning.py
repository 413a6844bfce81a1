"""A small training with Lightning, the same each time, for the contract of all integrations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from keepsake.integrations.lightning import KeepsakeCallback
from tests.integrations.lightning_models import loader, loss_of, make_module
from tests.integrations.ports import torchrun_environment

DISTRIBUTED: dict[str, Any] = {"strategy": "ddp", "devices": 2}
METRIC = ("val_loss", "minimize")

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


def make_callback(**options: Any) -> KeepsakeCallback:
    return KeepsakeCallback(**{"primary_metric": METRIC, "quiet": True, **options})


class AtEpoch(pl.Callback):
    def __init__(self, call: Callable[[int], None]) -> None:
        self._call = call

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._call(trainer.current_epoch)


def train(
    callbacks: list[Any],
    *,
    epochs: int = 3,
    at_epoch: Callable[[int], None] | None = None,
    resume_from: Path | None = None,
    directory: Path | None = None,
    **options: Any,
) -> Any:
    torch.manual_seed(0)
    further = [AtEpoch(at_epoch)] if at_epoch is not None else []
    root = {"default_root_dir": directory} if directory is not None else {}
    trainer = pl.Trainer(**{**QUIET, **root, "max_epochs": epochs, "callbacks": [*callbacks, *further], **options})
    trainer.fit(make_module(pl), loader(), loader(), ckpt_path=resume_from)
    return trainer


def evaluate(path: Path) -> float:
    return loss_of(torch.load(path, weights_only=True)["state_dict"])


def picklable(trainer: Any) -> Any:
    return trainer.callbacks


def rank_environment(rank: int, ports: list[int]) -> dict[str, str]:
    return torchrun_environment(rank, ports[0])
