"""What all callbacks share: which experiment a training is, what is recorded twice, and the end that nobody tells of."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from keepsake import Experiment, Project
from keepsake.integrations import _base
from keepsake.integrations._base import Run
from keepsake.recording import exits


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A framework with a function that trains, and tells nobody when it ends."""
    module = ModuleType("framework.trainer")
    exec("def fit(work):\n    return work()\n", module.__dict__)
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.01)
    return module


def make(**options: Any) -> Run:
    return Run(
        options.pop("params", None),
        options.pop("primary_metric", None),
        options.pop("path", None),
        options.pop("experiment", None),
        quiet=True,
        **options,
    )


def start(run: Run, **options: Any) -> Experiment:
    run.start(options.pop("params", []), goes_on=options.pop("goes_on", False), exclude=[], is_rank_zero=True, **options)
    assert run.experiment is not None
    return run.experiment


# --- which experiment -----------------------------------------------------------------------------------------------


def test_a_checkpoint_of_the_framework_names_the_experiment(project: Project) -> None:
    first = start(make())
    first.stop()
    assert start(make(), restored_id=first.id) == first
    assert len(project.experiments.list()) == 1


def test_what_the_user_says_outweighs_the_checkpoint(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = start(make()), start(make())
    first.stop()
    second.stop()
    assert start(make(resume=second.id), restored_id=first.id) == second
    second.stop()
    for one in exits.live():
        one.finish("finished")
    monkeypatch.setenv("KEEPSAKE_EXPERIMENT", second.id)
    assert start(make(), restored_id=first.id) == second
    for one in exits.live():
        one.finish("finished")
    assert start(make(resume=False), restored_id=first.id) not in (first, second)


def test_a_checkpoint_of_an_experiment_that_is_gone_makes_a_new_one(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    first = start(make())
    first.delete()
    second = start(make(), restored_id=first.id)
    assert second != first
    assert f"is of experiment {first.short_id()}" in capsys.readouterr().err


def test_a_checkpoint_that_names_no_experiment_is_said_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    start(make(), from_checkpoint=True)
    assert capsys.readouterr().err.count("names no experiment, so this is a new one") == 1
    # Said by the user, known from the checkpoint, or not the beginning of an experiment at all.
    first = start(make(resume=False), from_checkpoint=True)
    first.stop()
    start(make(resume=first.id), from_checkpoint=True).stop()
    start(make(), from_checkpoint=True, restored_id=first.id).stop()
    start(make(experiment=first), from_checkpoint=True)
    assert "names no experiment" not in capsys.readouterr().err


def test_nonsense_is_refused_before_any_training(project: Project) -> None:
    with pytest.raises(ValueError, match="resume must name"):
        make(resume="the last one")
    with pytest.raises(ValueError, match="primary_metric must be"):
        make(primary_metric="loss")
    assert project.experiments.list() == []


def test_the_framework_may_know_the_primary_metric(project: Project) -> None:
    run = make()
    experiment = start(run, primary_metric=("val_loss", "minimize"))
    run.checkpoint(None, None, step=1, metrics={"val_loss": 0.5})
    assert experiment.primary_metric() == "val_loss"
    users = make(primary_metric=("accuracy", "maximize"))
    experiment = start(users, primary_metric=("val_loss", "minimize"))
    users.checkpoint(None, None, step=1, metrics={"val_loss": 0.5, "accuracy": 0.9})
    assert experiment.primary_metric() == "accuracy"


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_after_a_resume_the_same_checkpoint_is_not_recorded_twice_and_another_is(project: Project) -> None:
    first = start(make())
    for step in range(3):
        first.checkpoint(step=step, metrics={"loss": 3.0 - step, "nan": float("nan")})
    first.stop()
    run = make(resume=first.id)
    experiment = start(run)
    run.checkpoint(None, None, step=1, metrics={"loss": 2.0, "nan": float("nan")})
    run.checkpoint(None, None, step=2, metrics={"loss": 1.5, "nan": float("nan")})
    run.checkpoint(None, None, step=3, metrics={"loss": 0.5})
    run.checkpoint(None, None, step=3, metrics={"loss": 0.5})
    assert experiment.checkpoints.step == [0, 1, 2, 2, 3, 3]


def test_a_file_is_taken_or_left(project: Project) -> None:
    run = make()
    experiment = start(run)
    for move in (True, False):
        file = run.staging_path("weights")
        file.write_bytes(b"weights")
        run.checkpoint(file, "out/weights", step=int(move), metrics={}, move=move)
        assert file.exists() is not move
    experiment.flush()
    assert [checkpoint.open("out/weights").read() for checkpoint in experiment.checkpoints] == [b"weights"] * 2


def test_points_are_numbers(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run = make()
    experiment = start(run)
    for step in range(2):
        run.log({"loss": 1.0, "note": "text", "many": [1, 2]}, step=step)
    run.log({"note": "text"}, step=2)
    assert dict(experiment.history()) == {"loss": [1.0, 1.0]}
    assert capsys.readouterr().err.count("is no single number") == 2


def test_before_the_start_and_on_other_ranks_nothing_is_recorded(project: Project) -> None:
    run = make()
    run.log({"loss": 1.0}, step=1)
    run.checkpoint(None, None, step=1, metrics={})
    run.start([], goes_on=False, exclude=[], is_rank_zero=False)
    run.log({"loss": 1.0}, step=1)
    run.checkpoint(None, None, step=1, metrics={})
    run.finish("finished")
    assert project.experiments.list() == []


def test_copies_leave_the_live_part_behind(project: Project) -> None:
    run = make(params={"lr": 0.1}, resume="auto")
    start(run)
    for twin in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert twin.experiment is None
        assert start(twin).params == {"lr": 0.1}


# --- the end that nobody tells of -----------------------------------------------------------------------------------


def until_nobody_records() -> None:
    """Wait; a test that hangs here has found what it looks for."""
    while exits.live():
        pass
    for thread in threading.enumerate():
        if thread.name == "keepsake-heartbeat":
            thread.join()


@pytest.mark.parametrize("error", [RuntimeError("diverged"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_fit_that_is_left_ends_the_experiment(
    project: Project, framework: ModuleType, monkeypatch: pytest.MonkeyPatch, error: BaseException, is_known: bool
) -> None:
    monkeypatch.setattr(sys, "last_value", None, raising=False)

    def train() -> None:
        start(make(), fit=("framework", "fit"))
        raise error

    try:
        framework.fit(train)
    except BaseException as err:
        if is_known:
            # As an interactive session does.
            sys.last_value = err  # type: ignore[assignment]
    until_nobody_records()
    [experiment] = project.experiments.list()
    if is_known:
        assert experiment.outcome == ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        assert experiment.error is not None
        assert experiment.error.startswith(type(error).__name__)
    else:
        assert experiment.outcome == "failed"
        assert experiment.error == "the training was left without an end, as by an exception that was caught"


def test_a_fit_that_goes_on_is_left_alone(project: Project, framework: ModuleType) -> None:
    beats = threading.Event()

    def train() -> None:
        experiment = start(make(), fit=("framework", "fit"))
        assert experiment._recording is not None
        watched = experiment._recording._ending  # type: ignore[attr-defined]

        def ending() -> Any:
            beats.set()
            return watched()

        experiment.watch(ending)
        assert beats.wait(30)
        beats.clear()
        assert beats.wait(30)
        assert experiment.is_running()

    framework.fit(lambda: framework.fit(train))
    until_nobody_records()


def test_where_no_such_function_is_called_nothing_is_watched(project: Project, framework: ModuleType) -> None:
    experiment = start(make(), fit=("framework", "fit"))
    assert experiment._recording is not None
    assert experiment._recording._ending() is None  # type: ignore[attr-defined]


def test_an_experiment_of_the_user_is_not_ended(project: Project, framework: ModuleType) -> None:
    own = project.experiments.create(quiet=True)

    def train() -> None:
        start(make(experiment=own), fit=("framework", "fit"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        framework.fit(train)
    assert own._recording is not None
    assert own._recording._ending is None  # type: ignore[attr-defined]
    assert own.is_running()


def test_the_next_training_ends_one_that_was_left(
    project: Project, framework: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody looks in between.
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 3600.0)
    run = make()

    def train() -> None:
        start(run, fit=("framework", "fit"))
        raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            framework.fit(train)
    first, second = project.experiments.list()
    assert first.outcome == "failed"
    assert second.is_running()


def test_staging_is_beside_the_repository_and_removed(project: Project) -> None:
    run = make()
    start(run)
    file = run.staging_path("weights")
    assert file.is_relative_to(project.directory / _base.STAGING_DIRECTORY)
    run.finish("finished")
    assert not Path(file).parent.exists()
