"""One contract for all integrations: the same trainings under the real frameworks, whatever each of them calls its hooks.

Each ``training_<framework>.py`` beside this says how a small training is done there; see `Training`.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import pytest

import keepsake
from keepsake import Experiment, Project
from keepsake.recording import exits
from keepsake.repository import verify
from keepsake.repository.repository import Repository
from tests.conftest import Script
from tests.integrations.ports import free_ports
from tests.servers.proxy import Proxy, proxy
from tests.servers.s3 import CREDENTIALS, moto_server

Start = Callable[..., Script]
FRAMEWORKS = ["lightning", "keras", "huggingface"]


class Training(Protocol):
    """What a module says of its framework."""

    METRIC: tuple[str, str]

    def make_callback(self, **options: Any) -> Any:
        """Return the framework's callback with `METRIC` as its primary metric."""

    def train(
        self,
        callbacks: list[Any],
        *,
        epochs: int = 3,
        at_epoch: Callable[[int], None] | None = None,
        resume_from: Path | None = None,
        directory: Path | None = None,
        **trainer_options: Any,
    ) -> Any:
        """Train, the same each time, and return the trainer."""

    def evaluate(self, path: Path) -> float:
        """Return the primary metric of what was recorded, on the same data."""

    def picklable(self, trainer: Any) -> Any:
        """Return what of a trainer can be pickled once it has trained without any callback of ours: all of it, or its callbacks."""

    def rank_environment(self, rank: int, ports: list[int]) -> dict[str, str]:
        """Return what the framework's launcher tells a process of two, which train with `DISTRIBUTED` among their options."""


@pytest.fixture(params=FRAMEWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def training(name: str) -> Training:
    return cast("Training", import_module(f"tests.integrations.training_{name}"))


def only(project: Project) -> Experiment:
    [experiment] = project.experiments.list()
    return experiment


def raising(error: BaseException, at: int = 1) -> Callable[[int], None]:
    def at_epoch(epoch: int) -> None:
        if epoch == at:
            raise error

    return at_epoch


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_params_steps_metrics_and_one_checkpoint_for_each_save(project: Project, training: Training) -> None:
    training.train([training.make_callback(params={"note": "mine", "nested": {"depth": 3}})])
    experiment = only(project)
    assert (experiment.params["note"], experiment.params["nested"]) == ("mine", {"depth": 3})
    steps = experiment.checkpoints.step
    assert len(steps) == 3
    assert steps == sorted(set(steps))
    for checkpoint in experiment.checkpoints:
        assert checkpoint.path is not None
        assert checkpoint.metrics
        assert all(type(value) in (int, float) for value in checkpoint.metrics.values())
        assert training.METRIC[0] in checkpoint.metrics
        assert "epoch" in checkpoint.metrics
    assert experiment.primary_metric() == training.METRIC[0]
    assert (experiment.outcome, experiment.error) == ("finished", None)
    assert verify.check(experiment.repository).findings == []


def test_the_best_checkpoint_gives_the_recorded_metric(project: Project, training: Training, tmp_path: Path) -> None:
    training.train([training.make_callback()])
    best = only(project).best()
    assert best is not None
    assert best.path is not None
    best.checkout(tmp_path / "out", quiet=True)
    assert training.evaluate(tmp_path / "out" / best.path) == pytest.approx(best.metrics[training.METRIC[0]], abs=1e-5)


def test_two_fits_of_one_callback(project: Project, training: Training) -> None:
    callback = training.make_callback()
    training.train([callback], epochs=1)
    training.train([callback], epochs=1)
    # Two trainings from the beginning are two experiments.
    assert [len(experiment.checkpoints) for experiment in project.experiments.list()] == [1, 1]
    assert all(experiment.outcome == "finished" for experiment in project.experiments.list())


def test_an_experiment_of_the_user_is_used_and_not_ended(project: Project, training: Training) -> None:
    with project.experiments.create(quiet=True) as own:
        training.train([training.make_callback(experiment=own)], epochs=1)
        assert own.is_running()
    assert len(only(project).checkpoints) == 1


def test_copies_of_the_trainer(project: Project, training: Training) -> None:
    callback = training.make_callback()
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        training.train([twin], epochs=1)
    training.train([callback], epochs=1)
    after = pickle.loads(pickle.dumps(callback))
    training.train([after], epochs=1)
    assert [len(experiment.checkpoints) for experiment in project.experiments.list()] == [1] * 4


def test_copies_of_the_whole_trainer_have_no_part_in_its_experiment(project: Project, training: Training) -> None:
    callback = training.make_callback()
    trainer = training.train([callback], epochs=1)
    copied = copy.deepcopy(trainer)
    pickled = pickle.loads(pickle.dumps(training.picklable(trainer)))
    assert (type(copied), type(pickled)) == (type(trainer), type(training.picklable(trainer)))
    assert callback.experiment is not None
    assert all(getattr(one, "experiment", None) is None for one in (*callbacks_of(copied), *callbacks_of(pickled)))
    assert len(only(project).checkpoints) == 1


def callbacks_of(copied: Any) -> list[Any]:
    """Return the callbacks of a trainer's copy, or of those alone; a model of Keras has none."""
    found = copied if isinstance(copied, list) else getattr(getattr(copied, "callback_handler", copied), "callbacks", [])
    return list(found)


RANK = """
    import os
    import tests.integrations.training_{name} as training

    os.chdir(os.environ["PLACE"])
    callback = training.make_callback()
    training.train([callback], epochs=2, **training.DISTRIBUTED)
    print(callback.experiment is not None and callback.experiment.outcome, flush=True)
    # Else threads of gloo may abort the process at its end.
    os._exit(0)
"""


def test_a_process_of_non_zero_rank_writes_nothing(project: Project, script: Start, training: Training, name: str) -> None:
    elsewhere = project.directory.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keepsake.yaml").write_text("repository: file://.keepsake\n", encoding="utf-8")
    ports = free_ports(2)
    places = [str(project.directory), str(elsewhere)]
    runs = [
        script(RANK.format(name=name), env={"PLACE": place, **training.rank_environment(rank, ports)})
        for rank, place in enumerate(places)
    ]
    assert [run.wait() for run in runs] == [0, 0], [run.stderr[-3000:] for run in runs]
    experiment = only(project)
    assert (experiment.outcome, len(experiment.checkpoints)) == ("finished", 2)
    written = {path.relative_to(elsewhere).parts[0] for path in elsewhere.rglob("*") if path.is_file()}
    assert ".keepsake" not in written
    assert not (elsewhere / ".keepsake").exists()
    assert "keepsake:" not in runs[1].stderr


# --- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"), [(RuntimeError("diverged"), "failed"), (KeyboardInterrupt(), "interrupted")], ids=["error", "ctrl-c"]
)
def test_a_training_that_fails_within_a_process_that_lives_on(
    project: Project, training: Training, monkeypatch: pytest.MonkeyPatch, error: BaseException, outcome: str
) -> None:
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.05)
    with pytest.raises((type(error), SystemExit)):
        training.train([training.make_callback()], at_epoch=raising(error))
    while exits.live():
        pass
    experiment = only(project)
    assert experiment.outcome in (outcome, "failed")
    assert len(experiment.checkpoints) == 1


SCRIPT = """
    import os, signal, sys
    from pathlib import Path

    import keepsake
    import tests.integrations.training_{name} as training

    def at_epoch(epoch):
        if epoch == 2 and {what!r} == "error":
            raise RuntimeError("diverged")
        if epoch == 2 and {what!r} == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)
        if epoch == 2 and {what!r} == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if {what!r} == "talk":
            print(epoch, flush=True)
            sys.stdin.readline()

    if __name__ == "__main__":
        experiment, path = None, None
        if {resumes!r}:
            experiment = keepsake.init(resume={resumes!r})
            path = keepsake.latest_checkpoint_path(experiment, "resumed")
        callback = training.make_callback(experiment=experiment)
        training.train([callback], epochs=4, at_epoch=at_epoch, resume_from=path, directory=Path("out"))
"""


def script_of(name: str, what: str = "", resumes: str = "") -> str:
    return SCRIPT.format(name=name, what=what, resumes=resumes)


@pytest.mark.parametrize(("what", "outcome"), [("error", "failed"), ("ctrl-c", "interrupted")])
def test_a_training_that_ends_its_process(project: Project, script: Start, name: str, what: str, outcome: str) -> None:
    run = script(script_of(name, what))
    assert run.wait() != 0
    experiment = only(project)
    assert experiment.outcome == outcome, run.stderr
    assert len(experiment.checkpoints) == 2
    assert verify.check(experiment.repository).findings == []


def test_a_training_that_was_killed_goes_on_with_the_same_steps(project: Project, script: Start, name: str) -> None:
    whole = script(script_of(name))
    assert whole.wait() == 0, whole.stderr
    expected = only(project)
    killed = script(script_of(name, "kill"))
    assert killed.wait() == -signal.SIGKILL, killed.stderr
    _, experiment = project.experiments.list()
    assert experiment.checkpoints.step == expected.checkpoints.step[:2]
    again = script(script_of(name, resumes=experiment.id))
    assert again.wait() == 0, again.stderr
    experiment.refresh()
    assert experiment.checkpoints.step == expected.checkpoints.step
    assert (experiment.outcome, len(experiment.record.resumed)) == ("finished", 1)
    metric = training_metric(name)
    assert experiment.checkpoints.metrics[metric] == pytest.approx(expected.checkpoints.metrics[metric], rel=1e-4)


def training_metric(name: str) -> str:
    return str(import_module(f"tests.integrations.training_{name}").METRIC[0])


# --- trouble --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """A bucket that the project records into, behind a proxy."""
    with moto_server() as server, proxy(server.url) as between:
        server.client.create_bucket(Bucket="acme-hotdog")
        for variable, value in CREDENTIALS.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        (project.directory / "keepsake.yaml").write_text("repository: s3://acme-hotdog/runs\n", encoding="utf-8")
        yield between


def test_a_store_that_goes_down_costs_the_training_nothing(store: Proxy, script: Start, name: str, project: Project) -> None:
    run = script(script_of(name, "talk"), env={"KEEPSAKE_MODE": "online"})
    for epoch in range(4):
        # It goes on whether there is a store or not.
        assert run.line() == str(epoch), run.wait() or run.stderr
        store.is_down = 2 <= epoch < 3
        assert run.process.stdin is not None
        run.process.stdin.write("\n")
        run.process.stdin.flush()
    assert run.wait() == 0, run.stderr
    assert os.system("python -m keepsake sync > /dev/null 2>&1") == 0
    there = Repository.at(Project().repository_url)
    [record] = there.list_experiments()
    assert len(record.checkpoints) == 4
    assert all(checkpoint.archive is not None for checkpoint in record.checkpoints)
    assert verify.check(there).findings == []


def test_a_repository_that_breaks_in_the_middle_does_not_stop_the_training(
    project: Project, training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    aside = project.directory.parent / "aside"

    def at_epoch(epoch: int) -> None:
        if epoch == 1:
            # As with a file system that is not mounted any more.
            (project.directory / ".keepsake").rename(aside)

    training.train([training.make_callback()], at_epoch=at_epoch)
    said = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert 0 < len(said) < 10
    assert "Traceback" not in "".join(said)


def test_an_experiment_of_the_name_that_is_asked_for(
    project: Project, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPSAKE_EXPERIMENT", "ab" * 32)
    training.train([training.make_callback()], epochs=1)
    assert only(project).id == "ab" * 32
    assert keepsake.experiments.get("abab").outcome == "finished"
