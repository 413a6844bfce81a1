"""Going on with an experiment: in another process, after any end of the first, and never where somebody still records it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import keepsake
from keepsake import Experiment, Project, resuming
from keepsake.exceptions import DoesNotExist, WriteError
from keepsake.repository import layout, verify
from tests.conftest import Script

Start = Callable[..., Script]

TRAIN = """
    import os, signal, sys
    import keepsake

    experiment = keepsake.init(path=".", params={"lr": 0.1}, resume="auto")
    path = keepsake.latest_checkpoint_path(experiment, "resumed")
    first = int(path.read_text()) + 1 if path is not None else 0
    for step in range(first, 10):
        experiment.log({"loss": 10 - step}, step)
        open("weights", "w").write(str(step))
        experiment.checkpoint("weights", step=step, metrics={"loss": 10 - step})
        if step == int(os.environ.get("KILL_AT", "-1")):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == int(os.environ.get("WAIT_AT", "-1")):
            print(experiment.id, flush=True)
            sys.stdin.readline()
"""


def only(project: Project) -> Experiment:
    [experiment] = project.experiments.list()
    return experiment


def test_a_killed_training_goes_on_as_if_nothing_had_been(project: Project, script: Start) -> None:
    assert script(TRAIN, env={"KILL_AT": "3"}).wait() == -9
    first = only(project)
    assert script(TRAIN, env={"KILL_AT": "6"}).wait() == -9
    run = script(TRAIN)
    assert run.wait() == 0, run.stderr
    assert f"experiment {first.short_id()} resumed (after step 6, 7 checkpoints" in run.stderr
    experiment = only(project)
    assert experiment.id == first.id
    assert experiment.checkpoints.step == list(range(10))
    assert experiment.history().steps == list(range(10))
    assert (experiment.outcome, len(experiment.record.resumed)) == ("finished", 2)
    assert verify.check(experiment.repository).findings == []


def test_what_has_finished_is_not_gone_on_with_by_itself(project: Project, script: Start) -> None:
    assert script(TRAIN).wait() == 0
    assert script(TRAIN).wait() == 0
    assert [len(one.checkpoints) for one in project.experiments.list()] == [10, 10]


def test_auto_goes_on_with_the_same_command_and_params_only(project: Project) -> None:
    project.experiments.create(params={"lr": 0.1}, quiet=True).finish("failed", "out of memory")
    other = project.experiments.create(params={"lr": 0.2}, quiet=True, resume="auto")
    other.finish("interrupted")
    again = project.experiments.create(params={"lr": 0.1}, quiet=True, resume="auto")
    assert [one.id for one in project.experiments.list()] == [again.id, other.id]
    assert again.outcome is None
    assert again.error is None


def test_auto_that_finds_nothing_says_so(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.experiments.create(params={"lr": 0.1}, resume="auto").finish("failed", "out of memory")
    assert capsys.readouterr().err.count("waits to be gone on with, so this is a new one") == 1
    project.experiments.create(params={"lr": 0.1}, resume="auto")
    project.experiments.create(params={"lr": 0.2}, resume="auto", quiet=True)
    assert "waits to be gone on with" not in capsys.readouterr().err


def test_resume_by_id_takes_what_has_finished_as_well(project: Project) -> None:
    first = project.experiments.create(params={"lr": 0.1}, quiet=True)
    first.checkpoint(metrics={"loss": 1.0})
    first.stop()
    again = project.experiments.create(params={"lr": 0.1}, quiet=True, resume=first.short_id())
    assert again.checkpoint(metrics={"loss": 0.5}).step == 1
    again.stop()
    stored = only(project)
    assert stored.checkpoints.step == [0, 1]
    assert len(stored.record.resumed) == 1
    assert stored.record.resumed[0] > first.created


def test_an_id_of_nothing_is_an_error_before_anything_begins(project: Project) -> None:
    with pytest.raises(DoesNotExist, match="abcdef"):
        project.experiments.create(quiet=True, resume="abcdef")
    assert project.experiments.list() == []


def test_resume_takes_whatever_names_an_experiment(project: Project) -> None:
    first = project.experiments.create(quiet=True, name="warm-up")
    first.checkpoint(metrics={"loss": 1.0}).alias("production")
    first.stop()
    for reference in ("warm-up", "@production", "last", first.id[:9].upper(), "warm-up@latest"):
        again = project.experiments.create(quiet=True, resume=reference)
        assert again.id == first.id
        again.stop()
    with pytest.raises(DoesNotExist, match='no experiment named "warm-down"'):
        project.experiments.create(quiet=True, resume="warm-down")
    assert len(project.experiments.list()) == 1


@pytest.mark.parametrize("nonsense", ["", "  ", 7.5])
def test_nonsense_is_an_error(project: Project, nonsense: object) -> None:
    with pytest.raises(ValueError, match="resume must name an experiment, or be"):
        project.experiments.create(quiet=True, resume=nonsense)  # type: ignore[arg-type]


def test_params_that_differ_are_said_and_stay(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    first = project.experiments.create(params={"lr": 0.1, "model": {"depth": 3}}, quiet=True)
    first.stop()
    again = project.experiments.create(params={"lr": 0.2, "model": {"depth": 3}}, quiet=True, resume=first.id)
    assert again.params == {"lr": 0.1, "model": {"depth": 3}}
    assert (
        f"params differ from those of experiment {first.short_id()}, which stay: lr=0.2 (recorded: 0.1)"
        in capsys.readouterr().err
    )


def test_the_same_process_gets_the_experiment_that_it_records(project: Project) -> None:
    first = project.experiments.create(quiet=True)
    again = project.experiments.create(quiet=True, resume=first.id)
    again.checkpoint(metrics={"loss": 1.0})
    assert first.record is again.record
    assert first.record.resumed == []


def test_who_goes_on_is_the_process_of_the_record(project: Project, script: Start) -> None:
    assert script(TRAIN, env={"KILL_AT": "3"}).wait() == -9
    assert only(project).pid != os.getpid()
    again = project.experiments.create(quiet=True, resume=only(project).id)
    again.flush()
    assert only(project).pid == os.getpid()


# --- somebody else records it ---------------------------------------------------------------------------------------


def test_what_another_process_records_is_refused(project: Project, script: Start) -> None:
    run = script(TRAIN, env={"WAIT_AT": "2"})
    id = run.line()
    with pytest.raises(WriteError, match=f"experiment {id[:7]} runs on .*process {run.process.pid}"):
        project.experiments.create(quiet=True, resume=id)
    assert run.wait() == 0, run.stderr
    assert only(project).checkpoints.step == list(range(10))


def test_auto_does_not_disturb_what_runs(project: Project, script: Start) -> None:
    first = script(TRAIN, env={"WAIT_AT": "2"})
    first.line()
    second = script(TRAIN)
    assert second.wait() == 0
    assert "of the same command runs, so this is another one" in second.stderr
    assert first.wait() == 0
    assert [one.checkpoints.step for one in project.experiments.list()] == [list(range(10))] * 2


def elsewhere(project: Project) -> Experiment:
    """An experiment without an outcome that another machine has recorded, with its last beat."""
    first = project.experiments.create(quiet=True)
    first.checkpoint(metrics={"loss": 1.0})
    first.stop()
    record = first.repository.load_stored(first.id)
    record.outcome, record.ended, record.host, record.heartbeat_interval_s = None, None, "another", 0.01
    first.repository.save(record)
    first.repository.beat(first.id)
    return first


def test_of_another_machine_the_heartbeat_is_waited_for(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keepsake.repository.status.MIN_TOLERANCE_S", 0.5)
    monkeypatch.setattr(resuming, "POLL_S", 0.01)
    first = elsewhere(project)
    again = project.experiments.create(quiet=True, resume=first.id)
    assert again.id == first.id
    assert f"to see whether experiment {first.short_id()} still runs on another" in capsys.readouterr().err


def test_another_machine_that_beats_while_we_wait_is_alive(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "POLL_S", 0.05)
    first = elsewhere(project)
    heartbeat = Path(".keepsake") / layout.heartbeat_key(first.id)
    os.utime(heartbeat, (heartbeat.stat().st_mtime - 5,) * 2)
    listed = type(first.repository).heartbeat

    def beating(self: object, id: str) -> object:
        found = listed(self, id)  # type: ignore[arg-type]
        first.repository.beat(id)
        return found

    monkeypatch.setattr(type(first.repository), "heartbeat", beating)
    with pytest.raises(WriteError, match="runs on another"):
        project.experiments.create(quiet=True, resume=first.id)


# --- the variable ---------------------------------------------------------------------------------------------------


def test_the_variable_names_the_experiment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    first = project.experiments.create(quiet=True)
    first.stop()
    monkeypatch.setenv("KEEPSAKE_EXPERIMENT", first.id[:12])
    assert project.experiments.create(quiet=True).id == first.id
    assert project.experiments.create(quiet=True, resume=False).id != first.id


def test_a_whole_id_in_the_variable_is_given_to_a_new_experiment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    id = layout.new_id()
    monkeypatch.setenv("KEEPSAKE_EXPERIMENT", id)
    first = project.experiments.create(quiet=True)
    assert first.id == id
    first.checkpoint(metrics={"loss": 1.0})
    first.finish("interrupted")
    again = project.experiments.create(quiet=True)
    again.checkpoint(metrics={"loss": 0.5})
    assert only(project).checkpoints.step == [0, 1]


def test_a_short_id_of_nothing_in_the_variable_is_an_error_that_names_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPSAKE_EXPERIMENT", "abcdef")
    with pytest.raises(DoesNotExist, match="KEEPSAKE_EXPERIMENT"):
        project.experiments.create(quiet=True)


# --- the files to go on from ----------------------------------------------------------------------------------------


def test_the_latest_files_are_given_and_earlier_ones_removed(project: Project, tmp_path: Path) -> None:
    experiment = project.experiments.create(quiet=True)
    assert keepsake.latest_checkpoint_path(experiment, tmp_path / "resumed") is None
    paths = []
    for step in range(2):
        Path("model").mkdir(exist_ok=True)
        Path("model", f"shard{step}").write_text("weights", encoding="utf-8")
        experiment.checkpoint("model", step=step)
        path = keepsake.latest_checkpoint_path(experiment, tmp_path / "resumed")
        assert path is not None
        paths.append(path)
        shutil.rmtree("model")
    experiment.checkpoint(metrics={"loss": 1.0})
    assert keepsake.latest_checkpoint_path(experiment, tmp_path / "resumed") == paths[1]
    assert [path.name for path in paths[1].iterdir()] == ["shard1"]
    assert not paths[0].exists()


def test_files_that_are_lost_are_passed_over(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = project.experiments.create(quiet=True)
    for step in range(2):
        Path("weights").write_text(str(step), encoding="utf-8")
        experiment.checkpoint("weights", step=step)
    experiment.stop()
    Path(".keepsake", layout.checkpoint_archive_key(experiment.checkpoints[1].id)).unlink()
    path = keepsake.latest_checkpoint_path(experiment, tmp_path / "resumed")
    assert path is not None
    assert path.read_text(encoding="utf-8") == "0"
    assert "(step 1) cannot be had" in capsys.readouterr().err
