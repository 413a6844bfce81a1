"""checkpoint() keeps what can be kept, reports what cannot, and never raises."""

from __future__ import annotations

import json
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from keepsake import Experiment, PrimaryMetric, Project
from keepsake.exceptions import DoesNotExist
from keepsake.repository import layout
from keepsake.repository.records import ArchiveInfo
from keepsake.repository.repository import Repository
from keepsake.repository.staging import Staging


@pytest.fixture
def experiment(project: Project) -> Experiment:
    return project.experiments.create(params={"lr": 0.1}, quiet=True)


def stored(experiment: Experiment) -> Experiment:
    """The same experiment as somebody else reads it."""
    return experiment.project.experiments.get(experiment.id)


def record_file(experiment: Experiment) -> Path:
    return experiment.project.directory / ".keepsake" / layout.record_key(experiment.id)


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_files_and_metrics_come_back(experiment: Experiment) -> None:
    Path("model.pth").write_bytes(b"weights")
    checkpoint = experiment.checkpoint("model.pth", step=3, metrics={"loss": 0.5}, primary_metric=("loss", "minimize"))

    [found] = stored(experiment).checkpoints
    assert found == checkpoint
    assert (found.step, found.metrics, found.path) == (3, {"loss": 0.5}, "model.pth")
    assert found.primary_metric == PrimaryMetric("loss", "minimize")
    with found.open("model.pth") as file:
        assert file.read() == b"weights"
    assert found.archive is not None
    archive = experiment.project.directory / ".keepsake" / layout.checkpoint_archive_key(found.id)
    assert found.archive.size_bytes == archive.stat().st_size


def test_later_changes_of_a_file_do_not_reach_its_checkpoint(experiment: Experiment) -> None:
    for content in (b"first", b"second"):
        Path("model.pth").write_bytes(content)
        experiment.checkpoint("model.pth")
    Path("model.pth").write_bytes(b"third")
    assert [c.open("model.pth").read() for c in stored(experiment).checkpoints] == [b"first", b"second"]


def test_a_checkpoint_does_not_wait_for_the_disk(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others do, in the background, before it is announced."""
    experiment.flush()
    waiting: set[int] = set()
    really_sync = os.fsync

    def sync(descriptor: int) -> None:
        waiting.add(threading.get_ident())
        really_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    Path("weights").write_bytes(os.urandom(5_000_000))
    Path("out").mkdir()
    Path("out/a").write_bytes(b"a")
    Path("ours").write_bytes(b"to be moved")
    for path, move in ((None, False), ("weights", False), ("out", False), ("ours", True)):
        experiment.checkpoint(path, metrics={"loss": 1}, move=move)
    assert threading.get_ident() not in waiting
    assert experiment.flush()
    assert waiting - {threading.get_ident()}
    assert [checkpoint.archive is not None for checkpoint in stored(experiment).checkpoints] == [False, True, True, True]


def test_waiting_for_what_is_stored_is_not_waiting_for_what_is_removed(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, sweep = threading.Event(), Staging.sweep

    def slow(staging: Staging, id: str) -> None:
        assert flushed.wait(60)
        sweep(staging, id)

    monkeypatch.setattr(Staging, "sweep", slow)
    Path("owned").write_bytes(b"weights")
    experiment.checkpoint("owned", move=True)
    experiment.flush()
    flushed.set()
    assert experiment.checkpoints[0].open("owned").read() == b"weights"


def test_what_is_stored_next_waits_for_the_room_of_what_is_removed(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    sweep, store, both_are_taken, second = Staging.sweep, Staging.store, threading.Event(), threading.Event()

    def slow(staging: Staging, id: str) -> None:
        assert both_are_taken.wait(60)
        # Time enough for the second to begin, if it does not wait.
        second.wait(0.5)
        happened.append("removed")
        sweep(staging, id)

    def noticed(staging: Staging, *arguments: Any) -> ArchiveInfo:
        if "stored" in happened:
            second.set()
        happened.append("stored")
        return store(staging, *arguments)

    monkeypatch.setattr(Staging, "sweep", slow)
    monkeypatch.setattr(Staging, "store", noticed)
    for name in ("first", "next"):
        Path(name).write_bytes(b"weights")
        experiment.checkpoint(name, move=True)
    both_are_taken.set()
    experiment.stop()
    assert happened == ["stored", "removed", "stored", "removed"]


def test_steps_count_up_from_the_highest(experiment: Experiment) -> None:
    for step in (None, None, 10, None, 4, None):
        experiment.checkpoint(step=step)
    assert stored(experiment).checkpoints.step == [0, 1, 10, 11, 4, 12]


def test_an_experiment_fetched_later_takes_further_checkpoints_and_goes_on_counting(experiment: Experiment) -> None:
    experiment.checkpoint(metrics={"loss": 3}, primary_metric=("loss", "minimize"))
    experiment.stop()
    again = stored(experiment)
    again.checkpoint(metrics={"loss": 1})
    again.checkpoint(metrics={"loss": 2})
    assert again.checkpoints.step == [0, 1, 2]
    assert stored(experiment).checkpoints.metrics["loss"] == [3, 1, 2]
    best = stored(experiment).best()
    assert best is not None
    assert best.metrics["loss"] == 1
    assert stored(experiment).outcome == "finished"


def test_the_primary_metric_holds_until_it_is_changed(experiment: Experiment) -> None:
    experiment.checkpoint(metrics={"loss": 1.0, "acc": 0.1}, primary_metric=("loss", "minimize"))
    experiment.checkpoint(metrics={"loss": 0.5, "acc": 0.2})
    experiment.checkpoint(metrics={"other": 1})
    assert [c.primary_metric and c.primary_metric.name for c in stored(experiment).checkpoints] == ["loss", "loss", None]
    best = stored(experiment).best()
    assert best is not None
    assert best.step == 1

    experiment.checkpoint(metrics={"loss": 0.1, "acc": 0.05}, primary_metric=("acc", "maximize"))
    best = stored(experiment).best()
    assert best is not None
    assert best.step == 1
    assert stored(experiment).primary_metric() == "acc"


@pytest.mark.parametrize("given", [("loss", "minimize"), ["loss", "MINIMIZE"], {"name": "loss", "goal": "minimize"}])
def test_primary_metrics_of_any_sensible_form_are_taken(experiment: Experiment, given: object) -> None:
    experiment.checkpoint(metrics={"loss": 1}, primary_metric=given)  # type: ignore[arg-type]
    assert stored(experiment).primary_metric() == "loss"


def test_nan_and_infinity_are_kept_and_never_best(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    for value in (math.nan, 0.3, math.inf, math.nan, 0.2):
        experiment.checkpoint(metrics={"loss": value}, primary_metric=("loss", "minimize"))
    found = stored(experiment)
    assert math.isnan(found.checkpoints.metrics["loss"][0])
    assert found.checkpoints.metrics["loss"][2] == math.inf
    best = found.best()
    assert best is not None
    assert best.metrics["loss"] == 0.2
    assert capsys.readouterr().err == "keepsake: warning: loss is NaN at step 0\n"  # once, not at each
    assert "NaN" not in record_file(experiment).read_text(encoding="utf-8").replace('"[NaN]"', "")


def test_params_with_secrets_are_recorded_without_them(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = project.experiments.create(params={"api_key": "abc123", "num_tokens": 5}, quiet=True)
    assert stored(experiment).params == {"api_key": "[redacted]", "num_tokens": 5}
    assert "1 secret in params recorded as [redacted]" in capsys.readouterr().err
    assert "abc123" not in record_file(experiment).read_text(encoding="utf-8")


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_missing_file_is_reported_and_the_metrics_are_kept(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.pth").write_bytes(b"w")
    checkpoint = experiment.checkpoint("model.pt", metrics={"loss": 1})
    error = capsys.readouterr().err
    assert 'keepsake: error: checkpoint(path="model.pt"): no such file' in error
    assert str(experiment.project.directory) in error
    assert "model.pth" in error  # the close name
    assert "its metrics and earlier checkpoints are" in error
    assert checkpoint.path is None
    assert stored(experiment).checkpoints.metrics["loss"] == [1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"step": "three"},
        {"step": -1},
        {"step": 1.5},
        {"step": math.nan},
        {"step": object()},
        {"metrics": 3},
        {"metrics": [("loss", 1)]},
        {"metrics": {"loss": object()}},
        {"primary_metric": "loss"},
        {"primary_metric": ("loss", "smallest")},
        {"primary_metric": ("loss",)},
        {"primary_metric": 5},
        {"primary_metric": (None, None)},
        {"path": ""},
        {"path": 5},
        {"path": "a\0b"},
        {"path": "/nowhere/at/all"},
    ],
    ids=lambda arguments: re.sub(r" at 0x\w+", "", repr(arguments)),
)
def test_wrong_arguments_are_reported_and_never_raise(
    experiment: Experiment, arguments: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    experiment.checkpoint(**{"metrics": {"kept": 1}, **arguments})  # type: ignore[arg-type]
    assert "keepsake: " in capsys.readouterr().err
    assert len(stored(experiment).checkpoints) == 1


def test_the_same_trouble_is_reported_once(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        experiment.checkpoint("missing")
    assert capsys.readouterr().err.count("no such file") == 1
    assert len(stored(experiment).checkpoints) == 5


@pytest.mark.parametrize("in_its_place", ["nothing", "a file"])
def test_a_repository_that_is_gone_for_a_while_does_not_stop_the_training(
    experiment: Experiment, in_its_place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = experiment.project.directory / ".keepsake"
    Path("weights").write_bytes(b"w")
    experiment.checkpoint("weights", metrics={"loss": 1})
    repository.rename("aside")
    if in_its_place == "a file":
        repository.write_text("not a directory")
    experiment.checkpoint("weights", metrics={"loss": 2})
    assert 'keepsake: error: checkpoint(path="weights")' in capsys.readouterr().err

    if in_its_place == "a file":
        repository.unlink()
    assert not repository.exists()  # what is mounted there later is not hidden by what we make now
    Path("aside").rename(repository)
    experiment.checkpoint("weights", metrics={"loss": 3})
    experiment.stop()
    found = stored(experiment)
    assert found.checkpoints.metrics["loss"] == [1, 2, 3]
    assert [checkpoint.path for checkpoint in found.checkpoints] == ["weights", None, "weights"]
    assert [checkpoint.archive is None for checkpoint in found.checkpoints] == [False, True, False]
    assert found.outcome == "finished"


def test_a_repository_that_comes_back_while_it_is_looked_for_is_no_deletion(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, aside = experiment.project.directory / ".keepsake", Path("aside")
    look = Repository.exists

    def come_back(self: Repository) -> bool:
        aside.rename(repository)
        monkeypatch.undo()
        return look(self)

    experiment.checkpoint(metrics={"loss": 1})
    experiment.flush()
    repository.rename(aside)
    monkeypatch.setattr(Repository, "exists", come_back)
    experiment.checkpoint(metrics={"loss": 2})
    experiment.flush()
    experiment.stop()
    assert stored(experiment).checkpoints.metrics["loss"] == [1, 2]


def test_an_experiment_deleted_meanwhile_is_not_created_again(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    stored(experiment).delete()
    experiment.checkpoint(metrics={"loss": 1})
    experiment.checkpoint(metrics={"loss": 2})
    experiment.stop()
    assert capsys.readouterr().err.count("was deleted meanwhile") == 1
    with pytest.raises(DoesNotExist):
        stored(experiment)
    left = [info.key for info in experiment.repository.storage.list()]
    assert left == [layout.SPEC_KEY]


def test_a_deletion_that_is_noticed_at_the_end_is_said(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    stored(experiment).delete()
    experiment.repository.beat(experiment.id)  # as the heartbeat may do in the very moment of the deletion
    experiment.stop()
    assert "was deleted meanwhile; nothing more of it is recorded" in capsys.readouterr().err
    assert [info.key for info in experiment.repository.storage.list()] == [layout.SPEC_KEY]


def test_two_writers_of_one_experiment_keep_each_others_checkpoints(experiment: Experiment) -> None:
    other = stored(experiment)
    for number in range(3):
        experiment.checkpoint(metrics={"live": number})
        other.checkpoint(metrics={"other": number})
    experiment.stop()
    assert len(stored(experiment).checkpoints) == 6
    assert stored(experiment).outcome == "finished"


def test_threads_may_checkpoint_at_the_same_time(experiment: Experiment) -> None:
    def work(name: str) -> None:
        for number in range(10):
            experiment.checkpoint(metrics={name: number})

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = stored(experiment)
    assert len(found.checkpoints) == 40
    assert sorted(found.checkpoints.step) == list(range(40))


def test_unknown_keys_of_the_record_survive_our_rewriting(experiment: Experiment) -> None:
    experiment.checkpoint(metrics={"loss": 1})
    assert experiment.flush()
    content = json.loads(record_file(experiment).read_text(encoding="utf-8"))
    content["from_the_future"] = {"x": 1}
    content["checkpoints"][0]["also"] = [1, 2]
    record_file(experiment).write_text(json.dumps(content), encoding="utf-8")
    experiment.checkpoint(metrics={"loss": 2})
    experiment.stop()
    rewritten = json.loads(record_file(experiment).read_text(encoding="utf-8"))
    assert rewritten["from_the_future"] == {"x": 1}
    assert rewritten["checkpoints"][0]["also"] == [1, 2]
    assert len(rewritten["checkpoints"]) == 2


def test_stop_twice_and_a_checkpoint_after_it_are_harmless(experiment: Experiment) -> None:
    experiment.stop()
    experiment.finish("failed", "too late")
    experiment.checkpoint(metrics={"loss": 1})
    found = stored(experiment)
    assert (found.outcome, found.error) == ("finished", None)
    assert len(found.checkpoints) == 1
    assert found.status.word == "stopped"


# --- the code -------------------------------------------------------------------------------------------------------


def test_the_code_is_saved_without_the_repository_wherever_it_lies(project: Project) -> None:
    (project.directory / "keepsake.yaml").write_text("repository: file://deep/runs\n", encoding="utf-8")
    (project.directory / "train.py").write_text("print(1)\n", encoding="utf-8")
    for _ in range(2):
        experiment = Project().experiments.create(path=".", quiet=True)
        experiment.stop()
    names = [f.path for f in experiment.repository.archives.files(layout.experiment_archive_key(experiment.id))]
    assert "train.py" in names
    assert not [name for name in names if "runs" in name]


def test_code_that_cannot_be_saved_is_reported_and_training_goes_on(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.directory / ".keepsake").mkdir()
    (project.directory / ".keepsake" / "experiments").write_text("in the way")
    experiment = project.experiments.create(path=".", quiet=True)
    experiment.checkpoint(metrics={"loss": 1})
    experiment.stop()
    assert "the code of this experiment is not saved" in capsys.readouterr().err
    found = stored(experiment)
    assert found.outcome == "finished"
    assert len(found.checkpoints) == 1


def test_the_record_says_what_was_asked_for(project: Project) -> None:
    experiment = project.experiments.create(path=".", params={"optim": {"lr": 0.1}}, quiet=True)
    experiment.stop()
    found = stored(experiment)
    assert found.params == {"optim": {"lr": 0.1}}
    assert found.config["repository"] == "file://.keepsake"
    assert str(project.directory) not in record_file(experiment).read_text(encoding="utf-8").replace(found.command, "")
    assert found.pid == os.getpid()
    assert found.python_packages["pytest"] == pytest.__version__
    assert found.system is not None
    assert found.system["cpus"] >= 1
    assert found.record.archive is not None
