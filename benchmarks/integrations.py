"""What it costs to record a training of each framework, beside W&B (offline), MLflow (SQLite) and DVCLive on the same training.

Every contender trains the same, logs each step, and saves the model after each epoch. Beside them stand the framework alone, the
framework with its own saving, and that with a logger or callback that is given each step and does nothing with it, because much of the
price of logging is the framework's own. What is compared is the call of fit with all that the tracker does in it and until its own end.

Below stands the time of each as a part of what it is allowed: 1.03 times the framework alone, and what the framework itself needs to
save. It is the median of those of each round, since a machine changes its speed less within a round than between two; and the same of
processor time, in which a busy machine shows less, but for trackers that do their work in another process. Then its time as a multiple
of the same script's without the tracker, where the framework logs each step all the same.

A machine whose speed changes by a tenth shows no three hundredths. So what a training waits for keepsake is measured by itself, too: the
time within its hooks, but for what the framework takes there to save, as a part of all other time of that training. And so is the
processor time that its threads take beside the training. That they may hold up a training in other ways, as by the interpreter's lock
and the processor's cache, only the whole time shows.

Run it with ``tox run -e bench-integrations``.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import itertools
import logging
import os
import shutil
import statistics
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

from _measure import interleave, parser, report, settle, workplace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ALONE = "the framework alone"
SAVING = "with its own saving"
PASSING = "the same, each step passed on to nobody"
PEERS = ("W&B", "MLflow", "DVCLive")
STEPS, EPOCHS, BATCH, WIDTH = 500, 2, 128, 1024
OWN_THREADS = "keepsake-"
"""How the names of keepsake's threads begin."""
ALLOWED = 1.03
"""How much longer than alone a training may take, beside its own saving."""

os.environ |= {
    "KEEPSAKE_LOG": "error",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "DVC_NO_ANALYTICS": "true",
    "DVCLIVE_LOG_LEVEL": "ERROR",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
}


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--only", choices=["lightning", "keras", "huggingface"], help="one framework")
    options.add_argument("--without-peers", action="store_true", help="leave out the other trackers, some of which take minutes")
    arguments = options.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    frameworks = {"lightning": lightning, "keras": keras, "huggingface": huggingface}
    with workplace(arguments.directory) as place, contextlib.chdir(place):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/mlflow.db"
        for name, contenders in frameworks.items():
            if arguments.only in (None, name):
                found = {
                    label: functools.partial(timed, place, train)
                    for label, train in contenders().items()
                    if not (arguments.without_peers and label.startswith(PEERS))
                }
                figures = interleave(found, arguments.rounds)
                title = f"{name}: {EPOCHS} epochs of {STEPS} steps, each step logged, each epoch saved"
                report(title, figures["fit"], ALONE)
                report_allowed("time", figures["fit"])
                report_allowed("processor time of this process", figures["cpu"])
                report_passing(figures["fit"])
                report_part("the training waits for it", figures["waits"], figures["fit"])
                costs = {
                    name: [sum(both) for both in zip(waits, figures["beside"][name], strict=True)]
                    for name, waits in figures["waits"].items()
                }
                report_part("that and the processor time of its own threads", costs, figures["fit"])


def report_allowed(title: str, seconds: Mapping[str, list[float]]) -> None:
    """Print each contender's time as a part of what it is allowed."""
    print(f"\n  {title}, as a part of what is allowed")
    width = max(map(len, seconds))
    for name, values in seconds.items():
        if name not in (ALONE, SAVING):
            rounds = zip(values, seconds[ALONE], seconds[SAVING], strict=True)
            parts = [took / (ALLOWED * alone + max(0.0, saving - alone)) for took, alone, saving in rounds]
            print(
                f"  {name:<{width}}  {statistics.median(parts):.3f}  ({min(parts):.3f} to {max(parts):.3f})",
                flush=True,
            )


def report_passing(seconds: Mapping[str, list[float]]) -> None:
    """Print each contender's time as a multiple of the same training with its steps passed on to nobody."""
    print(f"\n  time, as a multiple of: {PASSING}")
    width = max(map(len, seconds))
    for name, values in seconds.items():
        if name not in (ALONE, SAVING, PASSING):
            ratios = [took / passing for took, passing in zip(values, seconds[PASSING], strict=True)]
            print(f"  {name:<{width}}  {statistics.median(ratios):.3f}  ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def report_part(title: str, costs: Mapping[str, list[float]], seconds: Mapping[str, list[float]]) -> None:
    """Print what trainings with keepsake spent on it, as a part of the rest of their time."""
    print(f"\n  {title}, as a part of the rest of the time")
    for name, values in costs.items():
        if any(values):
            parts = [cost / (took - cost) for cost, took in zip(values, seconds[name], strict=True)]
            print(f"  {name}  {statistics.median(parts):.3f}  ({min(parts):.3f} to {max(parts):.3f})", flush=True)


def timed(place: Path, train: Callable[[Path], None]) -> dict[str, float]:
    """Train in a project of its own, which has no files of an earlier training in it, and return how long it took, in seconds."""
    directory = place / f"run{time.monotonic_ns()}"
    directory.mkdir()
    (directory / "keepsake.yaml").write_text("repository: file://.keepsake\n", encoding="utf-8")
    gc.collect()
    settle()
    with contextlib.chdir(directory), quiet():
        waiting.seconds = beside.seconds = 0.0
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        train(directory)
        took = {"fit": time.perf_counter() - start_s, "cpu": time.process_time() - start_cpu_s, "waits": waiting.seconds}
        took["beside"] = beside.total()
    shutil.rmtree(directory)
    print(".", end="", flush=True)
    return took


class Waiting:
    """Sums up the time within the hooks of a callback or a logger.

    Attributes:
        seconds: The sum.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def watched(self, tracker: Any) -> Any:
        """Let the hooks of a callback or a logger be timed, and return it."""
        for name in dir(tracker):
            if name.startswith(("on_", "log_", "after_")) or name in ("setup", "teardown", "finalize", "save"):
                hook = getattr(tracker, name)
                if callable(hook):
                    setattr(tracker, name, functools.wraps(hook)(functools.partial(self._call, hook, 1)))
        return tracker

    def leave_out(self, owner: type, name: str) -> None:
        """Leave out the time within a method of the framework where a hook calls it."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def left_out(*args: Any, **kwargs: Any) -> Any:
            return self._call(method, -1, *args, **kwargs) if self._depth == 1 else method(*args, **kwargs)

        setattr(owner, name, left_out)

    def _call(self, function: Callable[..., Any], sign: int, *args: Any, **kwargs: Any) -> Any:
        self._depth += 1
        counts = self._depth == (1 if sign > 0 else 2)
        start_s = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            self.seconds += sign * (time.perf_counter() - start_s) if counts else 0.0
            self._depth -= 1


class Beside:
    """Sums up the processor time of keepsake's own threads.

    Attributes:
        seconds: That of those which have ended.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        run = threading.Thread.run

        def measured(thread: threading.Thread) -> None:
            run(thread)
            if thread.name.startswith(OWN_THREADS):
                self.seconds += time.thread_time()

        threading.Thread.run = measured  # type: ignore[method-assign]

    def total(self) -> float:
        """Wait for those that are about to end, and return the sum."""
        for thread in threading.enumerate():
            if thread.name.startswith(OWN_THREADS):
                thread.join(10)
        return self.seconds


waiting, beside = Waiting(), Beside()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def optional(contenders: dict[str, Any], label: str, module: str, make: Callable[[], Any]) -> None:
    """Add a contender if its package is installed."""
    try:
        __import__(module)
    except ImportError:
        print(f"without {label}: {module} is not installed")
    else:
        contenders[label] = make()


# --- Lightning --------------------------------------------------------------------------------------------------------


def lightning() -> dict[str, Callable[[Path], None]]:
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from keepsake.integrations.lightning import KeepsakeCallback, KeepsakeLogger

    waiting.leave_out(pl.Trainer, "save_checkpoint")
    x = torch.randn(STEPS * BATCH, 256)
    data = TensorDataset(x, x.sum(1, keepdim=True))

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            widths = [256, WIDTH, WIDTH, 1]
            layers = [[torch.nn.Linear(*pair), torch.nn.ReLU()] for pair in itertools.pairwise(widths)]
            self.layers = torch.nn.Sequential(*itertools.chain.from_iterable(layers))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    def fit(place: Path, *, logger: Callable[[], Any] = lambda: False, callbacks: Callable[[], list[Any]] = list) -> None:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            logger=logger(),
            callbacks=callbacks(),
            log_every_n_steps=1,
            enable_checkpointing=bool(callbacks()) and not isinstance(callbacks()[0], KeepsakeCallback),
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=place,
        )
        trainer.fit(Module(), DataLoader(data, batch_size=BATCH))

    def saver() -> list[Any]:
        return [pl.callbacks.ModelCheckpoint(save_top_k=-1)]

    class Nothing(pl.loggers.Logger):
        name = version = "nothing"

        def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...
        def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    contenders: dict[str, Any] = {
        ALONE: fit,
        SAVING: functools.partial(fit, callbacks=saver),
        PASSING: functools.partial(fit, logger=Nothing, callbacks=saver),
        "keepsake, callback": functools.partial(fit, callbacks=lambda: [waiting.watched(KeepsakeCallback())]),
        "keepsake, logger and its files": functools.partial(
            fit, logger=lambda: waiting.watched(KeepsakeLogger(log_model="all")), callbacks=saver
        ),
    }

    def wandb() -> Any:
        import wandb

        def run(place: Path) -> None:
            fit(place, logger=lambda: pl.loggers.WandbLogger(offline=True, save_dir=place), callbacks=saver)
            wandb.finish()

        return run

    def dvclive() -> Any:
        from dvclive.lightning import DVCLiveLogger

        return functools.partial(fit, logger=lambda: DVCLiveLogger(save_dvc_exp=False, dvcyaml=None), callbacks=saver)

    optional(contenders, "W&B", "wandb", wandb)
    optional(
        contenders,
        "MLflow",
        "mlflow",
        lambda: functools.partial(
            fit, logger=lambda: pl.loggers.MLFlowLogger(tracking_uri=os.environ["MLFLOW_TRACKING_URI"]), callbacks=saver
        ),
    )
    optional(contenders, "DVCLive", "dvclive", dvclive)
    return contenders


# --- Keras ------------------------------------------------------------------------------------------------------------


def keras() -> dict[str, Callable[[Path], None]]:
    import keras
    import numpy as np

    from keepsake.integrations.keras import KeepsakeCallback

    waiting.leave_out(keras.Model, "save")
    x = np.random.default_rng(0).normal(size=(STEPS * BATCH, 256)).astype("float32")
    y = x.sum(1, keepdims=True)

    def fit(place: Path, callbacks: Callable[[], list[Any]] = list) -> None:
        hidden = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(2)]
        model = keras.Sequential([keras.Input((256,)), *hidden, keras.layers.Dense(1)])
        model.compile("adam", loss="mse")
        model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks())

    def saver() -> Any:
        return keras.callbacks.ModelCheckpoint("{epoch}.keras")

    class Nothing(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None: ...

    contenders: dict[str, Any] = {
        ALONE: fit,
        SAVING: functools.partial(fit, callbacks=lambda: [saver()]),
        PASSING: functools.partial(fit, callbacks=lambda: [Nothing(), saver()]),
        "keepsake": functools.partial(fit, callbacks=lambda: [waiting.watched(KeepsakeCallback(log_freq=1))]),
    }

    def wandb() -> Any:
        import wandb
        from wandb.integration.keras import WandbMetricsLogger

        def run(place: Path) -> None:
            wandb.init(project="benchmark", dir=place)
            fit(place, callbacks=lambda: [WandbMetricsLogger(log_freq=1), saver()])
            wandb.finish()

        return run

    def mlflow() -> Any:
        import mlflow

        def run(place: Path) -> None:
            with mlflow.start_run():
                fit(place, callbacks=lambda: [mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1), saver()])

        return run

    def dvclive() -> Any:
        from dvclive.keras import DVCLiveCallback

        return functools.partial(fit, callbacks=lambda: [DVCLiveCallback(save_dvc_exp=False, dvcyaml=None), saver()])

    optional(contenders, "W&B", "wandb", wandb)
    optional(contenders, "MLflow", "mlflow", mlflow)
    optional(contenders, "DVCLive (epochs only)", "dvclive", dvclive)
    return contenders


# --- Hugging Face -----------------------------------------------------------------------------------------------------


def huggingface() -> dict[str, Callable[[Path], None]]:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

    from keepsake.integrations.huggingface import KeepsakeCallback

    class Words(torch.utils.data.Dataset):
        words = torch.randint(0, 1000, (STEPS * 8, 32))

        def __len__(self) -> int:
            return len(self.words)

        def __getitem__(self, index: int) -> dict[str, Any]:
            words = self.words[index]
            return {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": int(words[0] < 500)}

    def fit(place: Path, *, saves: str = "epoch", steps: int = 1, callbacks: Callable[[], list[Any]] = list) -> None:
        config = BertConfig(vocab_size=1000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256)
        arguments = TrainingArguments(
            output_dir=str(place / "out"),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=8,
            save_strategy=saves,
            logging_steps=steps,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(BertForSequenceClassification(config), arguments, train_dataset=Words(), callbacks=callbacks())
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    contenders: dict[str, Any] = {
        ALONE: functools.partial(fit, saves="no", steps=10**6),
        SAVING: functools.partial(fit, steps=10**6),
        PASSING: fit,
        "keepsake": functools.partial(fit, callbacks=lambda: [waiting.watched(KeepsakeCallback())]),
    }

    def wandb() -> Any:
        import wandb
        from transformers.integrations import WandbCallback

        def run(place: Path) -> None:
            fit(place, callbacks=lambda: [WandbCallback()])
            wandb.finish()

        return run

    def mlflow() -> Any:
        import mlflow
        from transformers.integrations import MLflowCallback

        def run(place: Path) -> None:
            fit(place, callbacks=lambda: [MLflowCallback()])
            mlflow.end_run()

        return run

    def dvclive() -> Any:
        from dvclive import Live
        from transformers.integrations import DVCLiveCallback

        return functools.partial(fit, callbacks=lambda: [DVCLiveCallback(live=Live(save_dvc_exp=False, dvcyaml=None))])

    optional(contenders, "W&B", "wandb", wandb)
    optional(contenders, "MLflow", "mlflow", mlflow)
    optional(contenders, "DVCLive", "dvclive", dvclive)
    return contenders


if __name__ == "__main__":
    main()
