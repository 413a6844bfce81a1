"""Projects, and what is found again in them, through the public Python API."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import keepsake
from keepsake import CheckpointList, ExperimentList, Project
from keepsake.exceptions import (
    AmbiguousID,
    ConfigInvalid,
    ConfigNotFound,
    CorruptedRepositorySpec,
    DoesNotExist,
    IncompatibleRepositoryVersion,
    InvalidQuery,
    RepositoryConfigurationError,
)
from keepsake.repository import layout


def test_two_lines_in_a_loop_record_a_run(project: Project) -> None:
    Path("train.py").write_text("pass\n", encoding="utf-8")
    experiment = keepsake.init(path=".", params={"lr": 0.1})
    for step in range(3):
        experiment.checkpoint(step=step, metrics={"loss": 1 / (step + 1)}, primary_metric=("loss", "minimize"))
    assert experiment.is_running()
    experiment.stop()

    [found] = keepsake.experiments.list()
    assert found == experiment
    assert found.params == {"lr": 0.1}
    best, latest = found.best(), found.latest()
    assert best is not None
    assert latest is not None
    assert best.step == latest.step == 2
    assert found.duration is not None
    assert timedelta() <= found.duration < timedelta(minutes=5)
    assert found.created <= datetime.now(UTC)
    assert not found.is_running()
    assert keepsake.experiments.get(found.short_id()) == found


def test_start_and_end_are_said_in_a_line_each_and_not_when_quiet(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.py").write_text("pass\n", encoding="utf-8")
    experiment = keepsake.init(path=".")
    experiment.checkpoint(metrics={"loss": 0.123456}, primary_metric=("loss", "minimize"))
    experiment.stop()
    out, err = capsys.readouterr()
    id = experiment.short_id()
    assert out == ""
    assert err.splitlines() == [
        f"keepsake: experiment {id} started (code 2 files, saving to file://.keepsake)",
        f"keepsake: {id} finished after 0s, best loss 0.1235 at step 0",
    ]
    keepsake.init(path=".", quiet=True).stop()
    assert capsys.readouterr() == ("", "")


def test_lists_are_filtered_sorted_and_cut_as_on_the_command_line(project: Project) -> None:
    for number in (2, 1, 3):
        with project.experiments.create(params={"number": number}, quiet=True) as experiment:
            experiment.checkpoint(metrics={"loss": 1 / number}, primary_metric=("loss", "minimize"))

    def numbers(*arguments: Any, **named: Any) -> list[int]:
        return [experiment.params["number"] for experiment in project.experiments.list(*arguments, **named)]

    assert numbers("loss < 0.9") == [2, 3]
    assert numbers("loss < 0.9 or number = 1", sort="loss") == [3, 2, 1]
    assert numbers(sort=["-number"], limit=2) == [2, 1]
    assert numbers(lambda experiment: experiment.params["number"] > 1, sort="number", limit=1) == [3]
    assert numbers(limit=0) == []
    assert numbers("loss > 5") == []
    with pytest.raises(InvalidQuery, match="number"):
        project.experiments.list("numbr > 1")
    with project.experiments.create(params={"number": 4}, quiet=True):
        # One that runs now is found by what it has accepted.
        assert numbers("status = running") == [4]


def test_lists_slice_and_stay_lists(project: Project) -> None:
    for lr in (1, 2, 3):
        with project.experiments.create(params={"lr": lr}, quiet=True) as experiment:
            for step in range(4):
                experiment.checkpoint(step=step, metrics={"loss": lr * step} if step else {})
    found = project.experiments.list()
    assert [e.params["lr"] for e in found] == [1, 2, 3]
    assert isinstance(found[1:], ExperimentList)
    checkpoints = found[2].checkpoints
    assert isinstance(checkpoints[-2:], CheckpointList)
    assert checkpoints[-2:].step == [2, 3]
    assert checkpoints.metrics["loss"] == [None, 3, 6, 9]
    assert list(checkpoints.metrics) == ["loss"]
    with pytest.raises(KeyError):
        checkpoints.metrics["los"]


def test_a_filter_chooses_and_its_mistakes_show(project: Project) -> None:
    for lr in (0.1, 0.2):
        project.experiments.create(params={"lr": lr}, quiet=True).stop()
    assert [e.params["lr"] for e in project.experiments.list(filter=lambda e: e.params["lr"] > 0.1)] == [0.2]
    with pytest.raises(KeyError):
        project.experiments.list(filter=lambda e: e.params["typo"] > 0.1)


def test_refresh_loads_what_somebody_else_wrote(project: Project) -> None:
    experiment = project.experiments.create(quiet=True)
    seen = project.experiments.get(experiment.id)
    experiment.checkpoint(metrics={"loss": 1})
    assert len(seen.checkpoints) == 0
    seen.refresh()
    assert len(seen.checkpoints) == 1
    experiment.stop()
    assert seen.is_running() is False


def test_delete_leaves_nothing(project: Project) -> None:
    Path("weights").write_bytes(b"w")
    experiment = project.experiments.create(path=".", quiet=True)
    experiment.checkpoint("weights", metrics={"loss": 1})
    kept = project.experiments.create(quiet=True)
    experiment.delete()
    kept.stop()
    keys = [info.key for info in project.repository_at_hand().storage.list()]
    assert keys == [layout.record_key(kept.id), layout.SPEC_KEY]


def test_deleting_a_checkpoint_takes_it_out_of_the_record(project: Project) -> None:
    Path("weights").write_bytes(b"w")
    experiment = project.experiments.create(quiet=True)
    first, second = (experiment.checkpoint("weights") for _ in range(2))
    first.delete()
    found = project.experiments.get(experiment.id)
    assert list(found.checkpoints) == [second]
    archives = [info.key for info in found.repository.storage.list(layout.CHECKPOINT_ARCHIVES_PREFIX)]
    assert archives == [layout.checkpoint_archive_key(second.id)]
    experiment.checkpoint("weights")
    experiment.stop()
    assert len(project.experiments.get(experiment.id).checkpoints) == 2


# --- lookup ---------------------------------------------------------------------------------------------------------


def test_any_prefix_of_an_experiment_or_checkpoint_finds_it(project: Project) -> None:
    experiment = project.experiments.create(quiet=True)
    checkpoint = experiment.checkpoint(metrics={"loss": 1})
    experiment.stop()
    assert project.experiments.find(experiment.id[:10]) == (experiment, None)
    assert project.experiments.find(experiment.id.upper()) == (experiment, None)
    assert project.experiments.find(checkpoint.id[:10]) == (experiment, checkpoint)
    assert project.experiments.get(checkpoint.id) == experiment


def test_an_id_that_nothing_has_says_where_it_was_looked_for(project: Project) -> None:
    project.experiments.create(quiet=True).stop()
    for prefix in ("zzz", "", "0" * 64, "../x"):
        with pytest.raises(DoesNotExist, match="searched 1 experiment, 0 checkpoints in file://.keepsake") as caught:
            project.experiments.get(prefix)
        assert caught.value.hint == "keepsake ls"


def test_an_ambiguous_prefix_lists_what_it_matches_and_what_would_do(project: Project) -> None:
    ids = ["4a" + "0" * 62, "4b" + "0" * 62]
    for id, lr in zip(ids, (0.1, 0.2), strict=True):
        experiment = project.experiments.create(params={"lr": lr}, quiet=True)
        experiment.stop()
        record = project.experiments.get(experiment.id).record
        project.repository_at_hand().delete_experiment(record)
        record.id, record.raw = id, {}
        project.repository_at_hand().save(record)
    with pytest.raises(AmbiguousID, match='"4" matches 2 things') as caught:
        project.experiments.get("4")
    assert [fact.split()[0] for fact in caught.value.facts] == ["4a00000", "4b00000"]
    assert "lr=0.1" in caught.value.facts[0]
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("type at least 2 characters, e.g. 4")


# --- configuration and format ---------------------------------------------------------------------------------------


def test_init_without_a_repository_fails_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigNotFound, match="no repository: found no keepsake.yaml"):
        keepsake.init()
    assert list(tmp_path.iterdir()) == []


def test_a_named_repository_needs_no_config(tmp_path: Path) -> None:
    project = Project(repository=f"file://{tmp_path}/runs", directory=tmp_path)
    project.experiments.create(quiet=True).stop()
    assert len(Project(repository=f"file://{tmp_path}/runs").experiments.list()) == 1


def test_init_works_from_below_the_project_directory(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project.directory / "deep" / "down"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    (project.directory / "weights").write_bytes(b"w")
    experiment = keepsake.init(quiet=True)
    checkpoint = experiment.checkpoint("weights")
    experiment.stop()
    assert checkpoint.open("weights").read() == b"w"
    assert (project.directory / ".keepsake" / "repository.json").read_text() == '{"version":1}'


@pytest.mark.parametrize(
    ("path", "error"), [("missing", FileNotFoundError), ("..", ValueError), ("/", ValueError), ("", ValueError)]
)
def test_a_bad_path_fails_before_anything_is_written(project: Project, path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        keepsake.init(path=path)
    assert project.experiments.list() == []


def test_an_unknown_mode_is_an_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_MODE", "ofline")
    with pytest.raises(ConfigInvalid, match='KEEPSAKE_MODE is "ofline", it must be one of online, offline, disabled'):
        keepsake.init()


def test_an_unknown_scheme_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryConfigurationError, match="ftp"):
        Project(repository="ftp://example.org/runs", directory=tmp_path).experiments.list()


def test_a_newer_format_is_refused_for_reading_and_writing(project: Project) -> None:
    spec = project.directory / ".keepsake" / "repository.json"
    spec.parent.mkdir()
    spec.write_text('{"version": 2}')
    for use in (project.experiments.list, project.experiments.create):
        with pytest.raises(IncompatibleRepositoryVersion, match="is format 2, this keepsake .* reads format 1") as caught:
            use()
        assert caught.value.hint == "pip install -U keepsake"
    assert [path.name for path in spec.parent.iterdir()] == ["repository.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": "1"}', '{"version": true}', '{"version": 0}'])
def test_a_damaged_spec_is_named(project: Project, content: str) -> None:
    spec = project.directory / ".keepsake" / "repository.json"
    spec.parent.mkdir()
    spec.write_text(content)
    with pytest.raises(CorruptedRepositorySpec, match=r"repository\.json in file://\.keepsake is damaged"):
        project.experiments.list()


def test_a_damaged_record_is_named_and_hides_no_other(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = (project.experiments.create(quiet=True) for _ in range(2))
    good.stop()
    bad.stop()
    key = layout.record_key(bad.id)
    (project.directory / ".keepsake" / key).write_text('{"id": "')
    assert list(project.experiments.list()) == [good]
    assert key in capsys.readouterr().err


def test_a_run_on_a_full_or_forbidden_place_fails_at_init(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(keepsake.exceptions.StorageError):
        Project(repository=f"file://{tmp_path}/file/runs", directory=tmp_path).experiments.create()


def test_the_host_name_is_recorded_and_can_be_overridden(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_HOST", "gpu-07")
    monkeypatch.setenv("KEEPSAKE_USER", "ana")
    experiment = project.experiments.create(quiet=True)
    experiment.stop()
    assert (experiment.host, experiment.user, experiment.pid) == ("gpu-07", "ana", os.getpid())


def test_many_things_are_deleted_at_once(project: Project) -> None:
    experiments = [project.experiments.create(quiet=True) for _ in range(3)]
    for experiment in experiments:
        for step in range(3):
            experiment.checkpoint(step=step)
        experiment.stop()
    first, second, third = project.experiments.list()
    project.experiments.delete([first], [*first.checkpoints, *second.checkpoints[:2]])
    assert project.experiments.list() == [second, third]
    assert [checkpoint.step for checkpoint in project.experiments.get(second.id).checkpoints] == [2]
    assert [checkpoint.step for checkpoint in second.checkpoints] == [2]
    project.experiments.delete(project.experiments.list())
    assert project.experiments.list() == []
    project.experiments.delete()


class TestSettings:
    """What the configuration sets for recording; each is read once, when the experiment begins."""

    def configure(self, project: Project, text: str) -> None:
        (project.directory / "keepsake.yaml").write_text(f"repository: file://.keepsake\n{text}", encoding="utf-8")

    def test_the_primary_metric_holds_until_a_checkpoint_gives_another(self, project: Project) -> None:
        self.configure(project, "primary_metric: {name: loss, goal: Minimize}\n")
        with keepsake.init() as experiment:
            experiment.checkpoint(metrics={"loss": 0.3, "acc": 0.5})
            experiment.checkpoint(metrics={"acc": 0.6})
            experiment.checkpoint(metrics={"loss": 0.4, "acc": 0.7}, primary_metric=("acc", "maximize"))
            experiment.checkpoint(metrics={"loss": 0.5, "acc": 0.8})
        found = [one.primary_metric and tuple(one.primary_metric) for one in keepsake.experiments.get(experiment.id).checkpoints]
        assert found == [("loss", "minimize"), None, ("acc", "maximize"), ("acc", "maximize")]

    def test_it_holds_for_an_experiment_that_was_found_and_a_mistake_there_stops_nothing(
        self, project: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        keepsake.init().stop()
        self.configure(project, "primary_metric: {name: loss, goal: minimize}\n")
        keepsake.experiments.list()[0].checkpoint(metrics={"loss": 0.3})
        [experiment] = keepsake.experiments.list()
        assert [tuple(one.primary_metric or ()) for one in experiment.checkpoints] == [("loss", "minimize")]
        keepsake.init().stop()
        self.configure(project, "primary_metric: loss\n")
        capsys.readouterr()
        keepsake.experiments.list()[-1].checkpoint(metrics={"loss": 0.3})
        assert "line 2: primary_metric must be a name and a goal" in capsys.readouterr().err
        assert keepsake.experiments.list()[-1].checkpoints[0].primary_metric is None

    def test_what_is_captured(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", "88123")
        self.configure(project, "capture: {git: false, gpu: false, packages: none, argv: false, env: [SLURM_JOB_ID]}\n")
        with keepsake.init() as experiment:
            pass
        found = keepsake.experiments.get(experiment.id)
        assert found.system is not None
        assert (found.git, found.python_packages, found.system["env"]) == (None, {}, {"SLURM_JOB_ID": "88123"})
        assert "gpus" not in found.system
        assert len(found.command.split()) < 4
        self.configure(project, "")
        with keepsake.init() as experiment:
            pass
        assert experiment.python_packages
        assert experiment.system is not None
        assert "gpus" in experiment.system
        assert "env" not in experiment.system

    def test_what_is_redacted(self, project: Project) -> None:
        self.configure(project, "redact: {keys: ['internal_*'], allow: [login_token]}\n")
        with keepsake.init(params={"internal_url": "x", "login_token": "y", "password": "z"}) as experiment:
            pass
        assert experiment.params == {"internal_url": "[redacted]", "login_token": "y", "password": "[redacted]"}
        self.configure(project, "")
        with keepsake.init(params={"internal_url": "x"}) as experiment:
            pass
        assert experiment.params == {"internal_url": "x"}

    @pytest.mark.parametrize(
        "text", ["capture: {git: maybe}", "redact: {keys: all}", "primary_metric: {name: loss}", "ls: {a: 1} b"]
    )
    def test_a_mistake_stops_before_anything_is_recorded(self, project: Project, text: str) -> None:
        self.configure(project, f"{text}\n")
        with pytest.raises(ConfigInvalid, match=r"keepsake\.yaml line 2"):
            keepsake.init()
        assert not (project.directory / ".keepsake").exists()

    def test_a_change_in_the_middle_of_a_training_stops_nothing(self, project: Project) -> None:
        self.configure(project, "primary_metric: {name: loss, goal: minimize}\n")
        with keepsake.init() as experiment:
            self.configure(project, "capture: {git: maybe}\nprimary_metric: [\n")
            experiment.checkpoint(metrics={"loss": 0.3})
        (project.directory / "keepsake.yaml").write_text("repository: file://.keepsake\n", encoding="utf-8")
        assert keepsake.experiments.list()[0].best() is not None

    def test_what_only_listings_need_stops_no_training(self, project: Project) -> None:
        self.configure(project, "ls: {limit: many}\n")
        keepsake.init().stop()

    def test_with_nothing_to_record_a_mistake_is_none(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEEPSAKE_MODE", "disabled")
        self.configure(project, "capture: {git: maybe}\n")
        keepsake.init().checkpoint(metrics={"loss": 0.3})
