"""Questions to many experiments through the Python API: lists that read no record, the best of them, and their rows."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import keepsake
from keepsake import Experiment, ExperimentList, Project
from keepsake.exceptions import AmbiguousID, DoesNotExist, InvalidQuery
from keepsake.repository import layout
from keepsake.repository.records import ExperimentRecord


def record(
    project: Project, losses: list[Any], primary: tuple[str, str] | None = ("loss", "minimize"), **params: Any
) -> Experiment:
    with project.experiments.create(params=params, quiet=True) as experiment:
        for step, loss in enumerate(losses):
            experiment.checkpoint(step=step, metrics={"loss": loss, "acc": 1 - step / 10}, primary_metric=primary)
    return experiment


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of records that are parsed as a whole."""
    found: list[str] = []
    parse = ExperimentRecord.from_bytes.__func__  # type: ignore[attr-defined]

    def counted(cls: type[ExperimentRecord], content: bytes, *, key: str) -> ExperimentRecord:
        found.append(key)
        return parse(cls, content, key=key)  # type: ignore[no-any-return]

    monkeypatch.setattr(ExperimentRecord, "from_bytes", classmethod(counted))
    return found


# --- lists ------------------------------------------------------------------------------------------------------------


def test_what_a_listing_knows_reads_no_record_and_agrees_with_it(project: Project, reads: list[str]) -> None:
    made = record(project, [0.5, 0.25, math.nan], lr=0.1, model={"depth": 3})
    made.tag("prod")
    made.rename("warm-up")
    reads.clear()
    [found] = project.experiments.list("loss < 1", sort="loss")
    fields = ("id", "created", "params", "host", "user", "command", "path", "python_version", "keepsake_version", "git", "ended")
    words = ("outcome", "error", "name", "tags", "notes", "status", "duration", "num_checkpoints")
    known = {field: getattr(found, field) for field in fields + words}
    best, latest = found.best(), found.latest()
    assert best is not None
    assert latest is not None
    assert (best.step, latest.step, found.primary_metric()) == (1, 2, "loss")
    assert repr(found) == f"<Experiment {found.short_id()} stopped, 3 checkpoints: lr=0.1, model={{'depth': 3}}>"
    assert reads == []
    whole = project.experiments.get(found.id)
    assert known == {field: getattr(whole, field) for field in fields + words}
    reads.clear()
    assert [one.metrics["loss"] for one in found.checkpoints[:2]] == [0.5, 0.25]
    assert (found.pid, found.python_packages) == (whole.pid, whole.python_packages)
    assert reads == [layout.record_key(found.id)]
    assert known == {field: getattr(found, field) for field in fields + words}


def test_a_listed_experiment_that_was_deleted_is_said_to_be_gone(project: Project) -> None:
    record(project, [0.5])
    [found] = project.experiments.list()
    project.experiments.get(found.id).delete()
    with pytest.raises(DoesNotExist):
        _ = found.checkpoints
    found.delete()
    project.experiments.delete([found])


def test_one_that_is_deleted_while_a_function_chooses_is_left_out(project: Project) -> None:
    kept, gone = record(project, [0.5]), record(project, [0.5])

    def chosen(experiment: Experiment) -> bool:
        if experiment == gone:
            project.experiments.get(gone.id).delete()
        return len(experiment.checkpoints) == 1

    assert project.experiments.list(chosen) == [kept]

    def lookup(experiment: Experiment) -> bool:
        raise DoesNotExist("something else")

    with pytest.raises(DoesNotExist, match="something else"):
        project.experiments.list(lookup)


def test_listed_experiments_survive_pickling_whole(project: Project) -> None:
    record(project, [0.5], lr=0.1).tag("prod")
    [found] = project.experiments.list()
    copy = pickle.loads(pickle.dumps(found))
    assert (copy, copy.tags, [one.step for one in copy.checkpoints]) == (found, ("prod",), [0])


def test_a_list_is_refreshed_and_loses_what_was_deleted(project: Project) -> None:
    with project.experiments.create(quiet=True) as running:
        gone = record(project, [0.5])
        found = project.experiments.list()
        gone.delete()
        running.checkpoint(metrics={"loss": 1})
        running.tag("prod")
        found.refresh()
        assert found == [running]
        assert (found[0].num_checkpoints, found[0].tags) == (1, ("prod",))


def test_a_listed_experiment_takes_more_checkpoints(project: Project) -> None:
    record(project, [0.5])
    [found] = project.experiments.list()
    found.checkpoint(metrics={"loss": 0.1})
    assert found.num_checkpoints == 2
    best = found.best()
    assert best is not None
    assert best.step == 1


# --- the best ---------------------------------------------------------------------------------------------------------


def test_the_best_goes_by_what_is_recorded_and_never_by_nan(project: Project) -> None:
    record(project, [math.nan, math.nan])
    good = record(project, [0.5, 0.1, 0.9])
    record(project, [0.2])
    record(project, [0.01], primary=None)
    assert project.experiments.best("loss") != good, "the value counts, whoever said what is better"
    assert project.experiments.list()[:3].best("loss") == good
    assert project.experiments.list()[:3].best() == good
    assert project.experiments.list(lambda e: e.num_checkpoints == 3).best("acc", goal="maximize") == good
    assert ExperimentList().best("loss") is None
    best = good.best("acc", goal="minimize")
    assert best is not None
    assert best.step == 2
    sliced = good.checkpoints[2:].best()
    assert sliced is not None
    assert sliced.step == 2


def test_the_best_says_what_it_lacks(project: Project) -> None:
    record(project, [0.5])
    with pytest.raises(ValueError, match='"acc" is nobody\'s primary metric: say what is better'):
        project.experiments.best("acc")
    with pytest.raises(InvalidQuery, match='no metric named "los"'):
        project.experiments.best("los")
    with pytest.raises(ValueError, match="goal must be"):
        project.experiments.best("loss", goal="lowest")  # type: ignore[arg-type]
    record(project, [0.5], primary=("acc", "maximize"))
    with pytest.raises(AmbiguousID, match=r"several: acc \(maximize\), loss \(minimize\)"):
        project.experiments.best()
    record(project, [0.5], primary=("loss", "maximize"))
    with pytest.raises(ValueError, match="to be minimized and to be maximized"):
        project.experiments.best("loss")


# --- one of them, and two compared ------------------------------------------------------------------------------------


def test_a_checkpoint_is_found_by_whatever_names_it(project: Project) -> None:
    made = record(project, [0.5, 0.25, 0.75])
    made.rename("warm-up")
    made.checkpoints[2].alias("production")
    steps = {text: project.checkpoints.get(text).step for text in (made.checkpoints[0].id[:12], "@production", "warm-up@best")}
    assert list(steps.values()) == [0, 2, 1]
    assert keepsake.checkpoints.get("last@step:1").experiment == made
    with pytest.raises(DoesNotExist, match='"warm-up" is an experiment, not a checkpoint') as caught:
        keepsake.checkpoints.get("warm-up")
    assert caught.value.hint == "warm-up@best and warm-up@latest are checkpoints of it"


def test_a_difference_is_data_and_prints_as_the_command_does(project: Project) -> None:
    def save(text: str, losses: list[float], **params: Any) -> Experiment:
        Path("train.py").write_text(text)
        Path("weights").write_text(text)
        with project.experiments.create(path="train.py", params=params, quiet=True) as experiment:
            for loss in losses:
                experiment.checkpoint("weights", metrics={"loss": loss}, primary_metric=("loss", "minimize"))
        return experiment

    one, other = save("a\nb\n", [0.5, 0.75], lr=0.1, same=1), save("a\nc\n", [0.25], lr=0.2, same=1)
    difference = project.experiments.list()[0].diff(other)
    assert difference.differs
    assert [(pair.name, pair.left, pair.right) for pair in difference.params or () if pair.differs] == [("lr", 0.1, 0.2)]
    assert [(pair.delta, pair.better) for pair in difference.metrics or ()] == [(-0.25, True)]
    assert difference.code is not None
    assert (difference.code.added, difference.code.deleted) == (1, 1)
    assert difference.files is not None
    assert [pair.path for pair in difference.files.differing] == ["weights"]
    command = [sys.executable, "-m", "keepsake", "diff", one.id, other.id]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "120"}).stdout
    assert [line.split() for line in str(difference).splitlines()][3:12] == [line.split() for line in printed.splitlines()][3:12]
    assert repr(one.diff(other.id[:9])) == str(difference)
    last = str(one.checkpoints[1].diff(one.checkpoints[0], only="metrics")).splitlines()[-1]
    assert last.split() == ["loss", "(min)", "0.75", "0.50", "-0.25", "-33%", "better"]
    assert not one.diff(one).differs


def test_the_working_directory_and_running_experiments_are_compared(project: Project) -> None:
    Path("train.py").write_text("a\n")
    with project.experiments.create(path="train.py", quiet=True) as running:
        assert running.flush()  # the code is packed in the background
        Path("train.py").write_text("b\n")
        difference = running.diff(only="code", path="*.py")
        assert difference.code is not None
        assert [pair.path for pair in difference.code.differing] == ["train.py"]
        assert difference.params is None
    with pytest.raises(ValueError, match="no section 'weights' to compare, there are params, metrics"):
        running.diff(only=["weights"])
    elsewhere = Project(repository="file://elsewhere").experiments.create(quiet=True)
    with pytest.raises(ValueError, match="both must lie in one repository"):
        running.diff(elsewhere)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_records_have_a_row_for_each_experiment_and_need_nothing(project: Project) -> None:
    first = record(project, [0.5, 0.25, 0.75], lr=0.1, model={"depth": 3}, loss="l1", id="param")
    first.tag("prod", "a")
    second = record(project, [])
    rows = project.experiments.list().to_records()
    assert [row["id"] for row in rows] == [first.id, second.id]
    assert rows[0].keys() == rows[1].keys()
    row = rows[0]
    assert (row["param.lr"], row["param.model.depth"], row["param.loss"], row["param.id"]) == (0.1, 3, "l1", "param")
    assert (row["metric.loss"], row["best.step"], row["latest.step"], row["checkpoints"]) == (0.25, 1, 2, 3)
    assert (row["tags"], row["name"], row["status"], row["outcome"]) == (["a", "prod"], None, "stopped", "finished")
    assert (row["primary_metric"], row["goal"]) == ("loss", "minimize")
    assert first.ended is not None
    assert row["duration_s"] == (first.ended - first.created).total_seconds()
    assert rows[1]["metric.loss"] is rows[1]["best.id"] is rows[1]["param.lr"] is None
    [latest] = project.experiments.list()[:1].to_records(metrics="latest")
    assert latest["metric.loss"] == 0.75
    with pytest.raises(ValueError, match="metrics must be"):
        project.experiments.list().to_records(metrics="last")  # type: ignore[arg-type]


def test_records_of_checkpoints_are_the_same_from_a_list_and_from_an_experiment(project: Project) -> None:
    first, second = record(project, [0.5, math.nan], lr=0.1), record(project, [0.3], lr=0.2)
    listed = project.experiments.list().to_records(checkpoints=True)
    loaded = [row for id in (first.id, second.id) for row in project.experiments.get(id).checkpoints.to_records()]
    assert repr(listed) == repr(loaded)
    assert [(row["experiment"], row["step"], row["best"], row["param.lr"]) for row in listed] == [
        (first.id, 0, True, 0.1),
        (first.id, 1, False, 0.1),
        (second.id, 0, True, 0.2),
    ]
    assert math.isnan(listed[1]["metric.loss"])


def test_checkpoints_that_are_being_recorded_have_rows_too(project: Project) -> None:
    with project.experiments.create(params={"lr": 0.1}, quiet=True) as running:
        running.checkpoint(metrics={"loss": 0.5})
        [row] = project.experiments.list().to_records(checkpoints=True)
        assert row["metric.loss"] == 0.5
        assert ExperimentList([running]).to_records()[0]["status"] == "running"


def test_a_history_has_rows(project: Project) -> None:
    with project.experiments.create(quiet=True) as experiment:
        experiment.log({"loss": 0.5}, step=0)
        experiment.log({"step": 3}, step=1)
    rows = experiment.history().to_records()
    assert [{**row, "time": None} for row in rows] == [
        {"step": 0, "time": None, "metric.loss": 0.5, "metric.step": None},
        {"step": 1, "time": None, "metric.loss": None, "metric.step": 3},
    ]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_missing_library_is_said_with_the_install_line(project: Project, library: str) -> None:
    code = f"""
import sys; sys.modules[{library!r}] = None
import keepsake
keepsake.ExperimentList().to_dataframe(library={library!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert done.stderr.splitlines()[-2:] == [
        f"keepsake.exceptions.MissingDependency: data frames need {library}, which is not installed; to_records() needs nothing",
        f'hint: pip install "keepsake[{library}]"',
    ]


def test_another_library_is_refused() -> None:
    with pytest.raises(ValueError, match='library must be "pandas" or "polars", not \'arrow\''):
        ExperimentList().to_dataframe(library="arrow")  # type: ignore[arg-type]
