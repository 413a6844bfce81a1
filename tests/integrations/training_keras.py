"""A small training with Keras 3, the same each time, for the contract of all integrations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keepsake.integrations.keras import KeepsakeCallback

DISTRIBUTED: dict[str, Any] = {}
METRIC = ("val_loss", "minimize")


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(32, 4)).astype("float32")
    return x, x.sum(1, keepdims=True)


def make_callback(**options: Any) -> KeepsakeCallback:
    return KeepsakeCallback(primary_metric=METRIC, **{"quiet": True, **options})


def make_model() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return model


class AtEpoch(keras.callbacks.Callback):
    def __init__(self, call: Callable[[int], None]) -> None:
        super().__init__()
        self._call = call

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._call(epoch)


def train(
    callbacks: list[Any],
    *,
    epochs: int = 3,
    at_epoch: Callable[[int], None] | None = None,
    resume_from: Path | None = None,
    directory: Path | None = None,
    **options: Any,
) -> Any:
    model = keras.models.load_model(resume_from) if resume_from is not None else make_model()
    done = int(np.asarray(model.optimizer.iterations)) // 4 if resume_from is not None else 0
    x, y = data()
    further = [AtEpoch(at_epoch)] if at_epoch is not None else []
    model.fit(
        x,
        y,
        validation_data=(x, y),
        batch_size=8,
        shuffle=False,
        epochs=epochs,
        initial_epoch=done,
        callbacks=[*callbacks, *further],
        verbose=0,
        **options,
    )
    return model


def evaluate(path: Path) -> float:
    x, y = data()
    return float(keras.models.load_model(path).evaluate(x, y, verbose=0, return_dict=True)["loss"])


def picklable(trainer: Any) -> Any:
    return trainer


def rank_environment(rank: int, ports: list[int]) -> dict[str, str]:
    workers = [f"127.0.0.1:{port}" for port in ports]
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}})}
