"""experiment.log() and experiment.history(): a table of all steps, whoever recorded them and however its process ended."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from keepsake import History, Project
from keepsake.recording import exits
from keepsake.repository.history import Point
from tests.conftest import Script

Start = Callable[..., Script]
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def point(step: int, second: int, **metrics: float) -> Point:
    return Point(step, NOW + timedelta(seconds=second), metrics)


# --- the table ------------------------------------------------------------------------------------------------------


def test_points_of_one_step_are_one_row() -> None:
    history = History.merged([point(1, 0, loss=3.0), point(1, 1, val_loss=4.0), point(2, 2, loss=2.0)])
    assert history.steps == [1, 2]
    assert dict(history) == {"loss": [3.0, 2.0], "val_loss": [4.0, None]}
    assert history.series("val_loss") == ([1], [4.0])
    assert history.times == [NOW + timedelta(seconds=1), NOW + timedelta(seconds=2)]


def test_points_that_disagree_are_rows_of_their_own() -> None:
    history = History.merged([point(1, 0, loss=3.0), point(1, 1, loss=2.0), point(1, 2, loss=2.0, lr=0.1)])
    assert history.steps == [1, 1]
    assert dict(history) == {"loss": [3.0, 2.0], "lr": [None, 0.1]}


def test_nan_agrees_with_nan() -> None:
    history = History.merged([point(1, 0, loss=math.nan), point(1, 1, loss=math.nan, lr=0.1)])
    assert history.steps == [1]


def test_a_metric_that_was_never_logged_is_a_key_error() -> None:
    history = History.merged([point(1, 0, loss=3.0)])
    with pytest.raises(KeyError, match="accuracy"):
        history["accuracy"]
    assert "accuracy" not in history


# --- recording it ---------------------------------------------------------------------------------------------------


def test_what_was_logged_can_be_read_at_once_and_with_the_checkpoints(project: Project) -> None:
    experiment = project.experiments.create(quiet=True)
    for step in range(3):
        experiment.log({"loss": 1.0 / (step + 1)}, step)
    experiment.checkpoint(step=2, metrics={"val_loss": 0.4})
    history = project.experiments.get(experiment.id).history()
    assert history.steps == [0, 1, 2]
    assert dict(history) == {"loss": [1.0, 0.5, 1 / 3], "val_loss": [None, None, 0.4]}


def test_steps_count_by_themselves(project: Project) -> None:
    experiment = project.experiments.create(quiet=True)
    experiment.log({"loss": 3})
    experiment.log({"loss": 2})
    experiment.log({"loss": 1}, step=10)
    experiment.log({"loss": 0})
    assert experiment.history().steps == [0, 1, 10, 11]
    experiment.stop()
    # Also in another process, or as here through another object, which knows none of it.
    project.experiments.get(experiment.id).log({"loss": -1})
    assert experiment.history().steps == [0, 1, 10, 11, 12]


def test_values_that_cannot_be_logged_do_not_stop_anything(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = project.experiments.create(quiet=True)
    for _ in range(3):
        experiment.log({"loss": float("nan"), "note": object()}, step=-1)
    experiment.log(7)  # type: ignore[arg-type]
    history = experiment.history()
    assert len(history.steps) == 4
    assert all(math.isnan(value) for value in history["loss"][:3])
    said = capsys.readouterr().err
    assert said.count("step must be a whole number that is not negative") == 1
    assert "Traceback" not in said


def test_threads_log_together(project: Project) -> None:
    experiment = project.experiments.create(quiet=True)

    def log(name: str) -> None:
        for step in range(200):
            experiment.log({name: step}, step)

    threads = [threading.Thread(target=log, args=(f"loss{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = experiment.history()
    assert [len(history.series(f"loss{number}")[0]) for number in range(4)] == [200] * 4


def test_a_disabled_experiment_logs_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_MODE", "disabled")
    experiment = project.experiments.create(quiet=True)
    experiment.log({"loss": 1})
    assert experiment.history().steps == []
    assert not (project.directory / ".keepsake").exists()


def test_every_point_outlives_a_kill(project: Project, script: Start) -> None:
    run = script("""
        import os, signal
        import keepsake

        experiment = keepsake.init()
        for step in range(5000):
            experiment.log({"loss": 1 / (step + 1)}, step)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert run.wait() == -9
    [experiment] = project.experiments.list()
    assert experiment.history()["loss"] == [1 / (step + 1) for step in range(5000)]


def test_a_forked_child_logs_nothing(project: Project, script: Start) -> None:
    run = script("""
        import os
        import keepsake

        experiment = keepsake.init()
        experiment.log({"loss": 1}, 1)
        if os.fork() == 0:
            experiment.log({"loss": 2}, 2)
            os._exit(0)
        os.wait()
    """)
    assert run.wait() == 0, run.stderr
    [experiment] = project.experiments.list()
    assert experiment.history().steps == [1]


# --- an end that nobody tells of ------------------------------------------------------------------------------------


def test_an_experiment_ends_with_what_it_watches(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.01)
    experiment = project.experiments.create(quiet=True)
    over = threading.Event()
    asked = threading.Event()

    def ending() -> tuple[str, str] | None:
        asked.set()
        return ("failed", "left") if over.is_set() else None

    experiment.watch(ending)  # type: ignore[arg-type]
    assert asked.wait(30)
    assert experiment.is_running()
    over.set()
    while exits.live():
        pass
    stored = project.experiments.get(experiment.id)
    assert (stored.outcome, stored.error) == ("failed", "left")
    # It can go on, and then nobody watches it.
    experiment.reopen()
    assert experiment.is_running()
