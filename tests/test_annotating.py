"""Names, tags, notes and aliases in Python: kept, found again, and never in the way of a training."""

from __future__ import annotations

import pickle
import threading

import pytest

from keepsake import Project
from keepsake.exceptions import DoesNotExist, InvalidName
from keepsake.experiment import Experiment


@pytest.fixture
def experiment(project: Project) -> Experiment:
    """One that has ended, as somebody else finds it."""
    running = project.experiments.create(quiet=True)
    running.checkpoint(step=3, metrics={"loss": 1.0}, primary_metric=("loss", "minimize"))
    running.stop()
    return project.experiments.get(running.id)


def test_what_is_said_is_found_again(project: Project, experiment: Experiment) -> None:
    assert (experiment.name, experiment.tags, experiment.notes) == ("", (), "")
    experiment.tag("prod", "old")
    experiment.tag("base", "-old")
    experiment.rename("warm-up")
    experiment.note("lower dropout\nafter sweep 3")
    for same in (experiment, project.experiments.get("warm-up")):
        assert (same.name, same.tags, same.notes) == ("warm-up", ("base", "prod"), "lower dropout\nafter sweep 3")
    experiment.rename("")
    with pytest.raises(DoesNotExist):
        project.experiments.get("warm-up")


def test_refreshing_shows_what_others_say(project: Project, experiment: Experiment) -> None:
    assert experiment.tags == ()
    project.experiments.get(experiment.id).tag("prod")
    assert experiment.tags == ()
    experiment.refresh()
    assert experiment.tags == ("prod",)


def test_an_alias_finds_its_checkpoint(project: Project, experiment: Experiment) -> None:
    [checkpoint] = experiment.checkpoints
    checkpoint.alias("production")
    assert project.experiments.find("@production") == (experiment, checkpoint)
    assert project.experiments.get("@production") == experiment
    assert project.experiments.find("last@step:3") == (experiment, checkpoint)
    checkpoint.delete()
    with pytest.raises(DoesNotExist, match='no checkpoint has the alias "production"'):
        project.experiments.find("@production")


def test_a_name_belongs_to_one_experiment(project: Project, experiment: Experiment) -> None:
    other = project.experiments.create(quiet=True)
    other.stop()
    experiment.rename("warm-up")
    experiment.rename("warm-up")
    with pytest.raises(InvalidName, match=f'"warm-up" is the name of experiment {experiment.short_id()}'):
        project.experiments.get(other.id).rename("warm-up")


@pytest.mark.parametrize("name", ["last", "2026", "a b", "../x"])
def test_what_cannot_be_a_name_is_refused(experiment: Experiment, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        experiment.rename(name)
    with pytest.raises(ValueError, match="cannot be an alias"):
        experiment.checkpoints[0].alias(name)
    with pytest.raises(ValueError, match="cannot be a tag"):
        experiment.tag("good", "not good")
    assert experiment.tags == ()


# --- while it is recorded -------------------------------------------------------------------------------------------


def test_nothing_is_raised_into_a_training(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    running = project.experiments.create(quiet=True)
    checkpoint = running.checkpoint(metrics={"loss": 1.0})
    running.tag("not good")
    running.rename("last")
    checkpoint.alias("best")
    running.note("kept")
    running.note(3)  # type: ignore[arg-type]
    said = capsys.readouterr().err
    for what in ('"not good" cannot be a tag', '"last" cannot be a name', '"best" cannot be an alias', "notes must be a text"):
        assert what in said
    running.tag("good")
    checkpoint.alias("prod")
    running.stop()
    assert project.experiments.find("@prod") == (running, checkpoint)
    found = project.experiments.get(running.id)
    assert (found.tags, found.notes) == (("good",), "kept")


def test_init_says_it_from_the_start(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_NAME", "sweep")
    monkeypatch.setenv("KEEPSAKE_TAGS", "a, b,")
    monkeypatch.setenv("KEEPSAKE_NOTES", "from the job")
    first, second = (project.experiments.create(quiet=True) for _ in range(2))
    third = project.experiments.create(quiet=True, name="mine", tags="c", notes="")
    assert [(one.name, one.tags, one.notes) for one in (first, second, third)] == [
        ("sweep", ("a", "b"), "from the job"),
        ("sweep-2", ("a", "b"), "from the job"),
        ("mine", ("c",), ""),
    ]
    for one in (first, second, third):
        one.stop()
    again = project.experiments.create(quiet=True, resume=second.id, tags=["d"], notes="again")
    assert (again.name, again.tags, again.notes) == ("sweep-2", ("a", "b", "d"), "from the job")


def test_init_refuses_what_cannot_be_a_name_before_anything_is_recorded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidName, match="cannot be a name"):
        project.experiments.create(name="a b")
    with pytest.raises(InvalidName, match="cannot be a tag"):
        project.experiments.create(tags=["a b"])
    with pytest.raises(TypeError):
        project.experiments.create(notes=3)  # type: ignore[arg-type]
    monkeypatch.setenv("KEEPSAKE_NAME", "last")
    with pytest.raises(InvalidName):
        project.experiments.create()
    assert project.experiments.list() == []


def test_an_experiment_that_is_not_recorded_takes_it_all(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_MODE", "disabled")
    nobody = project.experiments.create()
    nobody.tag("prod")
    nobody.rename("x")
    nobody.checkpoint().alias("prod")
    nobody.refresh()
    assert (nobody.name, nobody.tags) == ("x", ("prod",))
    assert not (project.directory / ".keepsake").exists()


# --- one project, many users ----------------------------------------------------------------------------------------


def test_threads_and_copies_look_things_up_for_themselves(project: Project, experiment: Experiment) -> None:
    found: list[Experiment] = []
    threads = [threading.Thread(target=lambda: found.append(project.experiments.get("last"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    copy = pickle.loads(pickle.dumps(experiment))
    assert found == [experiment] * 4
    assert copy.project.experiments.get("last") == experiment
