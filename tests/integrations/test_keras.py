"""The Keras callback under the real Keras 3, on each of its backends, and under tf_keras."""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

import keepsake
from keepsake import Experiment, Project
from keepsake.integrations.keras import KeepsakeCallback
from keepsake.integrations.tf_keras import KeepsakeCallback as TfKeepsakeCallback
from keepsake.recording import exits
from tests.conftest import Script
from tests.integrations.ports import free_ports
from tests.integrations.training_keras import AtEpoch, data, make_model

Start = Callable[..., Script]

BATCHES = 4
"""How many batches an epoch of these trainings has."""


@pytest.fixture(autouse=True)
def _nobody_handles_log_records() -> Iterator[None]:
    """Saving in an older format makes absl, which Keras logs with, a handler of all records; then our lines go there."""
    yield
    logging.getLogger().handlers.clear()


def fit(callbacks: list[Any], model: Any = None, *, epochs: int = 2, **options: Any) -> Any:
    """Train, and return the model."""
    model = model or make_model()
    x, y = data()
    given = {"batch_size": len(x) // BATCHES, "shuffle": False, "verbose": 0, "validation_data": (x, y), **options}
    model.fit(x, y, epochs=epochs, callbacks=callbacks, **given)
    return model


def quiet(*args: Any, **options: Any) -> KeepsakeCallback:
    return KeepsakeCallback(*args, **{"quiet": True, **options})


def only(project: Project) -> Experiment:
    [experiment] = project.experiments.list()
    return experiment


def restored(checkpoint: Any, tmp_path: Path) -> Path:
    """Check a checkpoint out, and return the path of its file or directory."""
    checkpoint.checkout(tmp_path / f"out-{checkpoint.id[:7]}", quiet=True)
    return tmp_path / f"out-{checkpoint.id[:7]}" / checkpoint.path


def until_nobody_records() -> None:
    while exits.live():
        pass


class Logs(keras.callbacks.Callback):
    """Puts values of its own among the logs of each epoch."""

    def __init__(self, name: str, values: list[Any]) -> None:
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.values[epoch]


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_each_epoch_is_a_checkpoint_with_its_own_metrics(project: Project) -> None:
    callback = quiet(primary_metric=("val_loss", "minimize"))
    model = fit([callback], epochs=3)
    experiment = only(project)
    assert callback.experiment == experiment
    assert experiment.checkpoints.step == [4, 8, 12]
    metrics = experiment.checkpoints.metrics
    assert metrics["epoch"] == [0, 1, 2]
    assert metrics["learning_rate"] == [0.001] * 3
    for name, values in model.history.history.items():
        assert metrics[name] == pytest.approx(values), name
    assert all(type(value) in (int, float) for one in experiment.checkpoints for value in one.metrics.values())
    assert experiment.history().steps == [4, 8, 12]
    assert experiment.primary_metric() == "val_loss"
    assert experiment.outcome == "finished"


def test_weights_alone_give_the_recorded_metric(project: Project, tmp_path: Path) -> None:
    fit([quiet(save_weights_only=True, primary_metric=("val_loss", "minimize"))])
    best = only(project).best()
    assert best is not None
    assert best.path == "model.weights.h5"
    model = make_model()
    model.load_weights(restored(best, tmp_path))
    loss = model.evaluate(*data(), verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(best.metrics["val_loss"], abs=1e-5)


def test_params_come_from_the_callback_and_from_keras(project: Project) -> None:
    fit([quiet(params={"note": "mine", "optimizer": {"epsilon": "small"}})])
    params = only(project).params
    assert params["note"] == "mine"
    assert params["optimizer"]["epsilon"] == "small"  # what the user says outweighs what Keras knows
    assert (params["optimizer"]["name"], params["optimizer"]["learning_rate"]) == ("Adam", 0.001)
    assert (params["loss"], params["metrics"]) == ("mse", ["mae"])
    assert params["fit"] == {"epochs": 2, "steps": BATCHES}
    assert (params["num_parameters"], params["num_trainable_parameters"]) == (49, 49)
    assert params["model"] == {"name": "Sequential", "num_layers": 2}


def test_what_is_not_trained_is_told_from_what_is(project: Project) -> None:
    model = make_model()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    fit([quiet()], model=model)
    params = only(project).params
    assert (params["num_parameters"], params["num_trainable_parameters"]) == (49, 9)


def test_of_mixed_precision_the_inner_optimizer_is_the_one(project: Project) -> None:
    model = make_model()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01)), "mse")
    fit([quiet(filepath=None)], model, epochs=1)
    assert only(project).params["optimizer"]["name"] == "SGD"
    assert only(project).checkpoints.metrics["learning_rate"] == [0.01]
    assert only(project).checkpoints.step == [4]


@pytest.mark.parametrize(
    ("options", "checkpoints", "points"),
    [
        ({}, [4, 8], [4, 8]),
        ({"filepath": None}, [4, 8], [4, 8]),
        ({"save_freq": 3}, [3, 6], [3, 4, 6, 8]),
        ({"save_freq": 2}, [2, 4, 6, 8], [2, 4, 6, 8]),
        ({"log_freq": 3}, [4, 8], [3, 4, 6, 8]),
        ({"log_freq": 1, "save_freq": 5}, [5], [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_how_often_is_chosen(project: Project, options: dict[str, Any], checkpoints: list[int], points: list[int]) -> None:
    fit([quiet(**options)])
    experiment = only(project)
    assert experiment.checkpoints.step == checkpoints
    assert {one.path for one in experiment.checkpoints} == {options.get("filepath", "model.keras")}
    assert sorted(set(experiment.history().steps)) == points


def test_a_batch_that_ends_an_epoch_has_the_metrics_of_the_epoch(project: Project) -> None:
    model = fit([quiet(save_freq=2)])
    losses = model.history.history["val_loss"]
    assert only(project).checkpoints.metrics["val_loss"] == pytest.approx([None, losses[0], None, losses[1]])


@pytest.mark.parametrize(
    ("options", "values", "steps"),
    [
        ({"monitor": "score"}, [3.0, 1.0, 2.0, 0.5], [4, 8, 16]),
        ({"monitor": "score", "mode": "max"}, [1.0, 3.0, 2.0, 4.0], [4, 8, 16]),
        ({"primary_metric": ("score", "maximize")}, [float("nan"), 1.0, 1.0, 2.0], [8, 16]),
        ({"monitor": "accuracy"}, [0.5, 0.4, 0.6, 0.1], [4, 12]),
    ],
)
def test_only_the_better_ones_are_saved(project: Project, options: dict[str, Any], values: list[float], steps: list[int]) -> None:
    callback = quiet(save_best_only=True, **options)
    fit([Logs(str(callback.monitor), values), callback], epochs=4)
    experiment = only(project)
    assert experiment.checkpoints.step == steps
    assert experiment.history().steps == [4, 8, 12, 16]
    best = experiment.best()
    assert best is not None
    assert best.step == steps[-1]


def test_better_is_meant_of_all_that_the_experiment_has(project: Project) -> None:
    callback = quiet(save_best_only=True, monitor="score")
    model = fit([Logs("score", [1.0]), callback], epochs=1)
    fit([Logs("score", [0.0, 2.0, 0.5]), callback], model, epochs=3, initial_epoch=1)
    assert only(project).checkpoints.metrics["score"] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("filepath", "saved_as"),
    [
        ("out/model.keras", "out/model.keras"),
        ("/nowhere/model.keras", "model.keras"),
        ("../model.h5", "model.h5"),
        ("model-{epoch:02d}-{mae:.0f}-{absent}.keras", "model-{epoch:02d}-{mae:.0f}-{absent}.keras"),
        ("model-{epoch:02d}.keras", "model-01.keras"),
    ],
)
def test_a2_the_file_is_recorded_under_its_name_and_written_nowhere_else(
    project: Project, tmp_path: Path, filepath: str, saved_as: str
) -> None:
    fit([quiet(filepath)], epochs=1)
    [checkpoint] = only(project).checkpoints
    assert checkpoint.path == saved_as
    assert keras.models.load_model(restored(checkpoint, tmp_path), compile=False).count_params() == 49
    assert sorted(path.name for path in project.directory.iterdir()) == [".keepsake", "keepsake.yaml"]
    assert not (project.directory / ".keepsake" / "staging").exists()


# --- steps ----------------------------------------------------------------------------------------------------------


def test_steps_are_optimizer_steps(project: Project) -> None:
    model = make_model()
    model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2), "mse")
    fit([quiet(save_freq=2)], model)
    assert only(project).checkpoints.step == [1, 2, 3, 4]


def test_points_are_at_optimizer_steps(project: Project) -> None:
    model = make_model()
    model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2), "mse")
    fit([quiet(filepath=None, log_freq=1)], model)
    assert only(project).history().steps == [0, 1, 1, 2, 2, 3, 3, 4]
    second = make_model()
    fit([quiet(filepath=None, log_freq=1)], second)
    fit([quiet(filepath=None, log_freq=1)], second)
    assert [experiment.history().steps for experiment in project.experiments.list()[1:]] == [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [9, 10, 11, 12, 13, 14, 15, 16],
    ]


class SecondStep(keras.callbacks.Callback):
    """Makes it look as if a batch had made many steps."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            self.model.optimizer.iterations.assign(self.model.optimizer.iterations + 10)


def test_steps_that_are_more_than_batches_are_found_at_the_end_of_an_epoch(project: Project) -> None:
    fit([quiet(filepath=None, log_freq=1), SecondStep()], epochs=2)
    assert only(project).checkpoints.step == [14, 28]
    assert only(project).history().steps == [1, 2, 3, 4, 14, 15, 16, 17, 28]


def test_the_learning_rate_joins_a_point_now_and_then(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepsake.integrations._keras.RATE_INTERVAL_S", 1e9)
    fit([quiet(filepath=None, log_freq=1)])
    history = only(project).history()
    assert history.series("learning_rate") == ([1, 4, 8], [0.001] * 3)
    assert history.series("loss")[0] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_batches_that_are_run_together_are_counted_one_by_one(project: Project) -> None:
    model = make_model()
    model.compile("sgd", "mse", steps_per_execution=3)
    fit([quiet(save_freq=2)], model, epochs=3)
    # Batches 3 and 4 of each epoch are the last of their execution.
    assert only(project).checkpoints.step == [3, 4, 7, 8, 11, 12]


class TwoOptimizers(keras.Model):
    """Like a generative adversarial network: it leaves the optimizer that Keras gives it unused."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.layer(x)

    def train_step(self, *args: Any) -> Any:
        return {"loss": 1.0} if keras.backend.backend() != "jax" else ({"loss": 1.0}, args[0])


@pytest.mark.parametrize("save_freq", ["epoch", BATCHES])
def test_without_an_optimizer_of_its_own_batches_are_counted(project: Project, save_freq: Any) -> None:
    model = TwoOptimizers()
    model.compile()
    fit([quiet(filepath=None, save_freq=save_freq)], model, validation_data=None)
    assert only(project).checkpoints.step == [4, 8]


def test_the_learning_rate_is_that_of_the_epoch(project: Project) -> None:
    reduce = keras.callbacks.ReduceLROnPlateau(monitor="score", mode="min", factor=0.1, patience=1)
    fit([Logs("score", [1.0, 1.0, 1.0]), reduce, quiet(filepath=None)], epochs=3)
    assert only(project).checkpoints.metrics["learning_rate"] == pytest.approx([1e-3, 1e-3, 1e-4])


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"filepath": "model.pth"},
        {"filepath": "model"},
        {"filepath": ".."},
        {"filepath": "model.h5", "save_weights_only": True},
        {"save_freq": 0},
        {"save_freq": True},
        {"log_freq": "batch"},
        {"mode": "best"},
        {"primary_metric": ("val_loss", "lower")},
        {"resume": "the last one"},
    ],
)
def test_k1_what_makes_no_sense_is_said_before_the_training(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        KeepsakeCallback(**options)


def test_k1_the_arguments_of_keepsake_0_4(project: Project, tmp_path: Path) -> None:
    from keepsake.keras_callback import KeepsakeCallback as Old

    assert Old is KeepsakeCallback
    fit([Old("model.hdf5", {"lr": 0.5}, ("val_loss", "minimize"), "epoch", False)], epochs=1)
    [checkpoint] = only(project).checkpoints
    assert (checkpoint.path, only(project).params["lr"]) == ("model.hdf5", 0.5)
    assert keras.models.load_model(restored(checkpoint, tmp_path), compile=False).count_params() == 49


# --- the pitfalls that all frameworks share -------------------------------------------------------------------------


def test_a1_without_room_for_the_file_the_metrics_are_recorded(project: Project, script: Start) -> None:
    run = script(
        """
        import resource, signal
        import keras
        from keepsake.integrations.keras import KeepsakeCallback
        from tests.integrations.training_keras import train

        # A record fits, a model does not.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, resource.RLIM_INFINITY))
        train([KeepsakeCallback(quiet=True)])
        print("done", flush=True)
        """
    )
    assert run.line() == "done", run.wait() or run.stderr
    assert run.wait() == 0
    assert run.stderr.count("model.keras of step 4 could not be saved and the training goes on") == 1
    assert [(one.path, one.step) for one in only(project).checkpoints] == [(None, 4), (None, 8), (None, 12)]
    assert only(project).outcome == "finished"
    assert not (project.directory / ".keepsake" / "staging").exists()


def test_a3_output_of_earlier_trainings_is_no_code(project: Project) -> None:
    Path("train.py").write_text("pass\n", encoding="utf-8")
    for _ in range(2):
        fit([quiet("out/model.keras")], epochs=1)
        Path("out").mkdir(exist_ok=True)
        Path("out/model.keras").write_bytes(b"saved by something else")
    experiment = project.experiments.list()[-1]
    listed = experiment.repository.archives.files(f"experiments/{experiment.id}.tar.gz")
    assert [file.path for file in listed if file.kind == "file"] == ["keepsake.yaml", "train.py"]


def test_a4_not_a_number_is_recorded_and_never_the_best(project: Project) -> None:
    fit([Logs("score", [float("nan"), 2.0, float("-inf")]), quiet(primary_metric=("score", "maximize"))], epochs=3)
    assert str(only(project).checkpoints.metrics["score"]) == "[nan, 2.0, -inf]"
    best = only(project).best()
    assert best is not None
    assert best.step == 8


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.bool_(True), np.array([0.5]), np.array(2), keras.ops.convert_to_tensor(0.5), True, 3]
)
def test_a5_a_metric_of_any_type_becomes_a_plain_number(project: Project, value: Any) -> None:
    fit([Logs("value", [value]), quiet(filepath=None)], epochs=1)
    [recorded] = only(project).checkpoints.metrics["value"]
    assert type(recorded) in (int, float, bool)
    assert recorded == value


def test_a5_what_is_no_number_is_said_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    fit([Logs("words", ["some", "words"]), quiet(filepath=None)])
    assert capsys.readouterr().err.count('metric "words" is no single number') == 1
    assert "words" not in only(project).checkpoints[0].metrics


def test_a6_a_7_params_are_whatever_init_takes_but_no_secrets(project: Project) -> None:
    called = []
    params = argparse.Namespace(lr=0.5, call=lambda: called.append(1), api_key="sk-secret", kind=keras.Model, out=Path("runs"))
    fit([quiet(params=params)], epochs=1)
    recorded = only(project).params
    assert (recorded["lr"], recorded["out"]) == (0.5, "runs")
    assert called == []
    assert "sk-secret" not in json.dumps(recorded)


def test_a10_a_model_that_is_trained_further_is_the_same_experiment(project: Project) -> None:
    callback = quiet()
    model = fit([callback])
    assert only(project).outcome == "finished"
    fit([callback], model, epochs=4, initial_epoch=2)
    experiment = only(project)
    assert experiment.checkpoints.step == [4, 8, 12, 16]
    assert experiment.checkpoints.metrics["epoch"] == [0, 1, 2, 3]
    assert (experiment.outcome, len(experiment.record.resumed)) == ("finished", 1)


@pytest.mark.parametrize("what", ["a new model", "compiled anew", "a new callback"])
def test_a10_another_training_is_another_experiment(project: Project, what: str) -> None:
    callback = quiet()
    model = fit([callback], epochs=1)
    if what == "a new model":
        model = make_model()
    elif what == "compiled anew":
        model.compile("sgd", "mse")
    else:
        callback = quiet()
    fit([callback], model, epochs=1)
    assert [len(experiment.checkpoints) for experiment in project.experiments.list()] == [1, 1]


def test_a10_a_model_that_is_dropped_is_not_kept_alive(project: Project) -> None:
    import gc
    import weakref

    callback = quiet()
    model = fit([callback], epochs=1)
    alive = weakref.ref(callback._trained())  # type: ignore[misc]
    callback.set_model(None)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None


def test_a11_the_working_directory_may_change(project: Project, tmp_path: Path) -> None:
    directory = Path.cwd()
    fit([quiet("out/model.keras"), AtEpoch(lambda epoch: os.chdir(tmp_path))])
    os.chdir(directory)
    assert [one.path for one in only(project).checkpoints] == ["out/model.keras"] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project"]


def test_a13_files_of_the_user_are_left_alone(project: Project) -> None:
    Path("model.keras").write_bytes(b"mine")
    own = keras.callbacks.ModelCheckpoint("saved/model-{epoch}.keras")
    fit([quiet(), own])
    assert Path("model.keras").read_bytes() == b"mine"
    assert sorted(path.name for path in Path("saved").iterdir()) == ["model-1.keras", "model-2.keras"]


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_a14_without_the_framework_the_line_to_install_it_is_said(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import keepsake.integrations.{package}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    install = {"keras": 'pip install "keepsake[keras]"', "tf_keras": "pip install keepsake tf_keras"}[package]
    assert install in done.stderr.splitlines()[-1]


def test_a14_keepsake_imports_no_framework() -> None:
    code = (
        "import sys, keepsake, keepsake.integrations._keras;"
        "print(sorted({'keras', 'tf_keras', 'tensorflow', 'jax', 'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("options", [{}, {"save_freq": 2}])
def test_a15_copies_are_made_before_during_and_after_a_training(project: Project, options: dict[str, Any]) -> None:
    callback = quiet(**options)
    copies = [copy.deepcopy(callback)]

    def at_epoch(epoch: int) -> None:
        copies.append(pickle.loads(pickle.dumps(callback)))

    fit([callback, AtEpoch(at_epoch)], epochs=1)
    copies.append(pickle.loads(pickle.dumps(callback)))
    for one in copies:
        assert one.experiment is None
        fit([one], epochs=1)
    steps = [experiment.checkpoints.step for experiment in project.experiments.list()]
    assert steps == [only_steps(options)] * 4


def only_steps(options: dict[str, Any]) -> list[int]:
    return [2, 4] if options else [4]


def test_a15_a_deep_copy_records_into_the_same_experiment_of_the_user(project: Project) -> None:
    with keepsake.init(quiet=True) as experiment:
        fit([copy.deepcopy(quiet(experiment=experiment))], epochs=1)
        assert experiment.is_running()
    assert only(project).checkpoints.step == [4]


# --- the pitfalls of Keras ------------------------------------------------------------------------------------------


def test_k4_logs_dict_is_not_mutated(project: Project) -> None:
    seen: list[dict[str, Any]] = []

    class After(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(dict(logs))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(dict(logs))

    model = fit([Logs("score", [np.float32(0.5)]), quiet(save_freq=2, log_freq=1), After()], epochs=1)
    assert {name for logs in seen for name in logs} == {"loss", "mae", "val_loss", "val_mae", "score"}
    assert set(model.history.history) >= {"loss", "score"}
    assert only(project).checkpoints.metrics["score"] == [None, 0.5]


def test_k5_evaluation_and_prediction_make_no_experiment(project: Project) -> None:
    callback = quiet()
    model = make_model()
    x, y = data()
    model.evaluate(x, y, verbose=0, callbacks=[callback])
    model.predict(x, verbose=0, callbacks=[callback])
    assert project.experiments.list() == []
    fit([callback, AtEpoch(lambda epoch: model.evaluate(x, y, verbose=0, callbacks=[callback]))], model)
    model.evaluate(x, y, verbose=0, callbacks=[callback])
    assert only(project).checkpoints.step == [4, 8]
    assert only(project).outcome == "finished"


def wide(truth: Any, guess: Any) -> Any:
    return keras.ops.mean((truth - guess) ** 2)


def test_k6_params_of_odd_models_are_names(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    class Unbuilt(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.layer(x)

    model = Unbuilt()
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    metrics = ["mae", keras.metrics.MeanSquaredError(name="square"), wide, lambda truth, guess: wide(truth, guess)]
    model.compile(keras.optimizers.SGD(schedule), loss=wide, metrics=metrics)
    fit([quiet(filepath=None)], model, epochs=1)
    params = only(project).params
    assert (params["loss"], params["metrics"]) == ("wide", ["mae", "square", "wide", "<lambda>"])
    assert params["optimizer"]["learning_rate"]["class_name"] == "ExponentialDecay"
    assert len(json.dumps(params)) < 2_000
    # As it was at the last step, 4 of 10.
    assert only(project).checkpoints.metrics["learning_rate"] == pytest.approx([0.1 * 0.9**0.4])
    assert "keepsake: warning" not in capsys.readouterr().err


@pytest.mark.parametrize("is_first", [True, False])
def test_k7_epochs_and_steps_go_on_after_a_backup(project: Project, tmp_path: Path, is_first: bool) -> None:
    def callbacks() -> list[Any]:
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        return [backup, quiet()] if is_first else [quiet(), backup]

    with pytest.raises(RuntimeError, match="a machine vanishes"):
        fit([*callbacks(), AtEpoch(failing(RuntimeError("a machine vanishes")))], epochs=3)
    until = project.experiments.list()[0]
    fit(callbacks(), epochs=3)
    first, second = project.experiments.list()
    assert first == until
    assert first.checkpoints.step == [4]
    assert second.checkpoints.step == [8, 12]
    assert second.checkpoints.metrics["epoch"] == [1, 2]


def test_k7_epochs_without_validation_have_no_old_values(project: Project) -> None:
    fit([quiet(primary_metric=("val_loss", "minimize"))], epochs=4, initial_epoch=1, validation_freq=2)
    metrics = only(project).checkpoints.metrics
    assert metrics["epoch"] == [1, 2, 3]
    assert [value is None for value in metrics["val_loss"]] == [False, True, False]


@pytest.mark.parametrize("is_first", [True, False])
def test_k8_the_last_checkpoint_has_the_weights_of_the_last_epoch(project: Project, tmp_path: Path, is_first: bool) -> None:
    stopping = keras.callbacks.EarlyStopping(monitor="score", mode="min", patience=1, restore_best_weights=True)
    callback = quiet(primary_metric=("score", "minimize"))
    ours = [callback, stopping] if is_first else [stopping, callback]
    model = fit([Logs("score", [1.0, 2.0, 3.0]), *ours], epochs=3)
    first, last = only(project).checkpoints
    x, y = data()
    for checkpoint in (first, last):
        loss = keras.models.load_model(restored(checkpoint, tmp_path)).evaluate(x, y, verbose=0, return_dict=True)["loss"]
        assert loss == pytest.approx(checkpoint.metrics["val_loss"], abs=1e-5)
    # What is left in memory is the best.
    assert model.evaluate(x, y, verbose=0, return_dict=True)["loss"] == pytest.approx(first.metrics["val_loss"], abs=1e-5)
    assert only(project).best() == first


def failing(error: BaseException, at: int = 1) -> Callable[[int], None]:
    def at_epoch(epoch: int) -> None:
        if epoch == at:
            raise error

    return at_epoch


@pytest.mark.parametrize(
    "error", [RuntimeError("diverged"), KeyboardInterrupt(), SystemExit(1)], ids=lambda one: type(one).__name__
)
def test_k10_a8_a_fit_that_is_left_ends_its_experiment(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.05)
    callback = quiet()
    with pytest.raises(type(error)):
        fit([callback, AtEpoch(failing(error))])
    until_nobody_records()
    assert only(project).outcome == "failed"
    assert not only(project).is_running()
    # The next training is another one.
    fit([callback], epochs=1)
    first, second = project.experiments.list()
    assert (first.checkpoints.step, second.checkpoints.step) == ([4], [4])
    assert second.outcome == "finished"


def test_k10_the_same_model_goes_on_after_an_interruption(project: Project) -> None:
    callback, model = quiet(), make_model()
    with pytest.raises(KeyboardInterrupt):
        fit([callback, AtEpoch(failing(KeyboardInterrupt()))], model)
    fit([callback], model, epochs=2, initial_epoch=1)
    assert only(project).checkpoints.step == [4, 8]
    assert only(project).outcome == "finished"


# --- backends -------------------------------------------------------------------------------------------------------


BACKEND = """
    import os
    import keras
    import numpy as np
    import keepsake.recording.heartbeat
    from keepsake.integrations.keras import KeepsakeCallback
    from keepsake.recording import exits
    from tests.integrations.training_keras import AtEpoch, evaluate, train

    assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
    keepsake.recording.heartbeat.INTERVAL_S = 0.05

    class Weights(keras.callbacks.Callback):
        seen = []
        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(np.concatenate([np.ravel(one) for one in self.model.get_weights()]))

    # Saved in the middle of an epoch.
    mine = KeepsakeCallback(save_freq=1, quiet=True, primary_metric=("val_loss", "minimize"))
    train([mine, Weights()], epochs=1)
    assert mine.experiment.checkpoints.step == [1, 2, 3, 4]
    for checkpoint, expected in zip(mine.experiment.checkpoints, Weights.seen):
        checkpoint.checkout(f"out-{checkpoint.step}", quiet=True)
        weights = keras.models.load_model(f"out-{checkpoint.step}/model.keras").get_weights()
        assert np.array_equal(np.concatenate([np.ravel(one) for one in weights]), expected)
    assert abs(evaluate(f"out-{checkpoint.step}/model.keras") - checkpoint.metrics["val_loss"]) < 1e-5

    # Only a callback that counts batches makes Keras wait for each.
    model = train([], epochs=1)
    is_async = keras.backend.backend() != "tensorflow"
    for options in ({}, {"save_freq": 2}):
        listed = keras.callbacks.CallbackList([KeepsakeCallback(**options)], model=model)
        assert listed._async_train == (is_async and not options), options

    # Left by an exception.
    def fail(epoch):
        if epoch == 1:
            raise KeyboardInterrupt
    try:
        train([KeepsakeCallback(quiet=True)], at_epoch=fail)
    except KeyboardInterrupt:
        while exits.live():
            pass
    print("done", flush=True)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_k2_k3_k10_on_the_other_backends(project: Project, script: Start, backend: str) -> None:
    run = script(BACKEND, env={"KERAS_BACKEND": backend})
    assert run.wait() == 0, run.stderr
    first, second = project.experiments.list()
    assert (first.outcome, second.outcome) == ("finished", "failed")
    assert second.checkpoints.step == [4]


# --- Keras 2 --------------------------------------------------------------------------------------------------------


def fit_tf(callbacks: list[Any], *, epochs: int = 2, at_epoch: Callable[[int], None] | None = None) -> Any:
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    x, y = data()
    further = [tf_keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: at_epoch(epoch))] if at_epoch else []
    model.fit(x, y, batch_size=8, epochs=epochs, callbacks=[*callbacks, *further], verbose=0, validation_data=(x, y))
    return model


@pytest.mark.parametrize("filepath", ["saved", "model.keras", "model.h5"])
def test_k9_a_model_in_tensorflows_own_format_is_a_directory(project: Project, tmp_path: Path, filepath: str) -> None:
    fit_tf([TfKeepsakeCallback(filepath, quiet=True, primary_metric=("val_loss", "minimize"))], epochs=1)
    [checkpoint] = only(project).checkpoints
    assert (checkpoint.path, checkpoint.step) == (filepath, 4)
    path = restored(checkpoint, tmp_path)
    assert path.is_dir() == (filepath == "saved")
    loss = tf_keras.models.load_model(path).evaluate(*data(), verbose=0)[0]
    assert loss == pytest.approx(checkpoint.metrics["val_loss"], abs=1e-5)
    assert (only(project).params["optimizer"]["name"], only(project).params["metrics"]) == ("Adam", ["mae"])


def test_k9_weights_in_tensorflows_own_format_are_taken_together(project: Project, tmp_path: Path) -> None:
    model = fit_tf([TfKeepsakeCallback("weights", save_weights_only=True, quiet=True)], epochs=1)
    path = restored(only(project).checkpoints[0], tmp_path)
    weights = model.get_weights()
    model.set_weights([np.zeros_like(one) for one in weights])
    model.load_weights(path / "weights").expect_partial()
    assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), weights, strict=True))


def test_k10_of_tf_keras(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.05)
    with pytest.raises(RuntimeError, match="diverged"):
        fit_tf([TfKeepsakeCallback(quiet=True)], at_epoch=failing(RuntimeError("diverged")))
    until_nobody_records()
    assert (only(project).outcome, only(project).checkpoints.step) == ("failed", [4])


def test_k11_each_has_its_own_base_class(project: Project) -> None:
    assert issubclass(KeepsakeCallback, keras.callbacks.Callback)
    assert issubclass(TfKeepsakeCallback, tf_keras.callbacks.Callback)
    assert not issubclass(KeepsakeCallback, tf_keras.callbacks.Callback)
    assert not issubclass(TfKeepsakeCallback, keras.callbacks.Callback)
    fit([quiet()], epochs=1)
    fit_tf([TfKeepsakeCallback(quiet=True, save_freq=2)], epochs=1)
    assert [one.checkpoints.step for one in project.experiments.list()] == [[4], [2, 4]]


# --- several processes ----------------------------------------------------------------------------------------------


CLUSTER = {"worker": ["localhost:1", "localhost:2"]}


@pytest.mark.parametrize(
    ("cluster", "task", "records"),
    [
        (CLUSTER, {"type": "worker", "index": 0}, True),
        (CLUSTER, {"type": "worker", "index": 1}, False),
        ({**CLUSTER, "chief": ["localhost:3"]}, {"type": "worker", "index": 0}, False),
        ({**CLUSTER, "chief": ["localhost:3"]}, {"type": "chief", "index": 0}, True),
        ({**CLUSTER, "ps": ["localhost:3"]}, {"type": "ps", "index": 0}, False),
        ({}, {}, True),
    ],
)
def test_the_chief_records_and_the_others_write_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any], task: dict[str, Any], records: bool
) -> None:
    # Keras itself asks for these only within a strategy.
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    callback = quiet()
    fit([callback])
    assert len(project.experiments.list()) == records
    assert [path.name for path in project.directory.iterdir() if path.name != "keepsake.yaml"] == [".keepsake"] * records


WORKERS = """
    import json, os, sys
    index, ports = int(os.environ["INDEX"]), os.environ["PORTS"].split()
    workers = [f"127.0.0.1:{port}" for port in ports]
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
    import tensorflow as tf
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    import tf_keras
    from keepsake.integrations.tf_keras import KeepsakeCallback

    with strategy.scope():
        model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(1)])
        model.compile("adam", "mse")
    x = tf.random.stateless_normal((32, 4), (0, 0))
    data = tf.data.Dataset.from_tensor_slices((x, tf.reduce_sum(x, 1, keepdims=True))).repeat().batch(8)
    callback = KeepsakeCallback(quiet=True, path=None)
    model.fit(data, epochs=2, steps_per_epoch=4, callbacks=[callback], verbose=0)
    print("recorded" if callback.experiment.outcome == "finished" and callback.experiment.checkpoints else "nothing", flush=True)
    sys.stdin.readline()
"""


def test_two_workers_save_together_and_one_of_them_records(project: Project, script: Start) -> None:
    ports = " ".join(map(str, free_ports(2)))
    runs = [script(WORKERS, env={"INDEX": str(index), "PORTS": ports}) for index in range(2)]
    assert [run.line() for run in runs] == ["recorded", "nothing"], [run.wait() or run.stderr for run in runs]
    assert [run.wait() for run in runs] == [0, 0]
    assert only(project).checkpoints.step == [4, 8]
    assert not (project.directory / ".keepsake" / "staging").exists()


# --- going on -------------------------------------------------------------------------------------------------------


def test_a_training_goes_on_in_another_process_as_if_nothing_had_been(project: Project, tmp_path: Path) -> None:
    whole = fit([quiet()], epochs=4)
    fit([quiet()], epochs=2)
    _, experiment = project.experiments.list()
    path = keepsake.latest_checkpoint_path(experiment, tmp_path / "resumed")
    assert path is not None
    model = keras.models.load_model(path)
    fit([quiet(resume=experiment.id[:7])], model, epochs=4, initial_epoch=2)
    first, second = project.experiments.list()
    assert first.checkpoints.step == second.checkpoints.step == [4, 8, 12, 16]
    assert second.checkpoints.metrics["val_loss"] == pytest.approx(first.checkpoints.metrics["val_loss"], rel=1e-5)
    for one, other in zip(model.get_weights(), whole.get_weights(), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert len(second.record.resumed) == 1


def test_where_recording_is_disabled_nothing_is_saved(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_MODE", "disabled")
    saves: list[Any] = []
    model = make_model()
    monkeypatch.setattr(model, "save", lambda *args: saves.append(args))
    fit([quiet()], model)
    assert saves == []
    assert [path.name for path in project.directory.iterdir()] == ["keepsake.yaml"]


def test_without_a_repository_the_training_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    epochs: list[int] = []
    with pytest.raises(keepsake.exceptions.KeepsakeError):
        fit([KeepsakeCallback(), AtEpoch(epochs.append)])
    assert epochs == []
