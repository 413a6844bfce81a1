"""Histories in stores, and experiments that one machine begins and another one goes on with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake import Project
from keepsake.exceptions import DoesNotExist, StorageUnavailable
from keepsake.repository import layout, verify
from keepsake.repository.records import ExperimentRecord
from tests.conftest import Script
from tests.servers.proxy import Proxy
from tests.stores.test_remote import keepsake, outbox_files, there

# What google.api_core says on its first import about a package that nobody needs.
pytestmark = pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")

Start = Callable[..., Script]


@pytest.fixture
def elsewhere(remote: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same project on another machine: another directory, with an outbox of its own."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    (directory / "keepsake.yaml").write_bytes((remote.directory / "keepsake.yaml").read_bytes())
    return Project(directory=directory)


def stored(project: Project) -> ExperimentRecord:
    [record] = there(project).list_experiments()
    return record


def test_a_history_arrives(remote: Project) -> None:
    with remote.experiments.create(quiet=True) as experiment:
        for step in range(100):
            experiment.log({"loss": 1.0 / (step + 1)}, step)
        # Before it has arrived it is read from here.
        assert experiment.history().steps == list(range(100))
    assert outbox_files(remote) == []
    assert [point.step for point in there(remote).history(experiment.id)] == list(range(100))
    assert Project().experiments.get(experiment.id).history()["loss"][99] == 0.01
    assert verify.check(there(remote)).findings == []


def test_a_history_arrives_while_the_training_runs(remote: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepsake.recording.heartbeat.INTERVAL_S", 0.05)
    monkeypatch.setattr("keepsake.recording.uploader.MIN_INTERVAL_S", 0.05)
    experiment = remote.experiments.create(quiet=True)
    experiment.log({"loss": 3.0}, 0)
    while not there(remote).history(experiment.id):
        pass
    experiment.log({"loss": 2.0}, 1)
    while len(there(remote).history(experiment.id)) < 2:
        pass
    experiment.stop()
    # What grows is written again, and no second time beside.
    assert len(there(remote).history_keys(experiment.id)) == 1


def test_a_history_of_a_killed_process_is_uploaded_by_sync(remote: Project, store: Proxy, script: Start) -> None:
    run = script("""
        import os, signal
        import keepsake

        experiment = keepsake.init()
        for step in range(1000):
            experiment.log({"loss": 1 / (step + 1)}, step)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert run.wait() == -9
    assert keepsake("sync").returncode == 0
    assert [point.step for point in there(remote).history(stored(remote).id)] == list(range(1000))
    assert outbox_files(remote) == []


def test_another_machine_goes_on(remote: Project, elsewhere: Project) -> None:
    with remote.experiments.create(params={"lr": 0.1}, quiet=True) as first:
        first.log({"loss": 3.0}, 0)
        first.checkpoint(step=0, metrics={"loss": 3.0})
        first.log({"loss": 2.5}, 7)
    with elsewhere.experiments.create(params={"lr": 0.1}, quiet=True, resume=first.id) as second:
        second.log({"loss": 2.0})
        second.checkpoint(metrics={"loss": 2.0})
    record = stored(remote)
    assert [checkpoint.step for checkpoint in record.checkpoints] == [0, 1]
    assert len(record.resumed) == 1
    assert second.history().steps == [0, 7, 8, 1]
    assert outbox_files(elsewhere) == []


def test_what_the_first_machine_uploads_late_and_what_the_second_has_done_come_together(
    remote: Project, store: Proxy, elsewhere: Project, script: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = script("""
        import os, signal, sys
        import keepsake

        experiment = keepsake.init()
        experiment.log({"loss": 3.0}, 0)
        open("weights", "w").write("first")
        experiment.checkpoint("weights", step=0, metrics={"loss": 3.0})
        experiment.flush()
        print(experiment.id, flush=True)
        sys.stdin.readline()
        experiment.log({"loss": 2.5}, 1)
        experiment.checkpoint("weights", step=1, metrics={"loss": 2.5})
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    id = run.line()
    store.is_down = True
    assert run.wait() == -9
    store.is_down = False
    # The first machine is gone with what has not arrived, and the second one knows only that its heart does not beat.
    monkeypatch.setattr("keepsake.repository.status.MIN_TOLERANCE_S", 0.0)
    monkeypatch.setattr("keepsake.repository.status.MISSED_BEATS", 0)
    second = elsewhere.experiments.create(quiet=True, resume=id)
    second.log({"loss": 2.0}, 2)
    second.checkpoint(step=2, metrics={"loss": 2.0})
    assert second.flush()
    assert [checkpoint.step for checkpoint in stored(remote).checkpoints] == [0, 2]
    # The first one comes back, in the middle of it.
    assert keepsake("sync").returncode == 0
    assert [checkpoint.step for checkpoint in stored(remote).checkpoints] == [0, 1, 2]
    assert stored(remote).outcome is None
    assert outbox_files(remote) == []
    second.checkpoint(step=3, metrics={"loss": 1.0})
    second.stop()
    record = stored(remote)
    assert [checkpoint.step for checkpoint in record.checkpoints] == [0, 1, 2, 3]
    assert [checkpoint.archive is not None for checkpoint in record.checkpoints] == [True, True, False, False]
    assert (record.outcome, record.pid, len(record.resumed)) == ("finished", os.getpid(), 1)
    assert [point.step for point in there(remote).history(id)] in ([0, 1, 2], [0, 2, 1])
    assert Project().experiments.get(id).history().steps == [0, 1, 2, 3]
    assert verify.check(there(remote)).findings == []
    assert outbox_files(elsewhere) == []


def test_a_checkpoint_that_was_deleted_here_before_it_was_uploaded_stays_deleted(remote: Project, store: Proxy) -> None:
    experiment = remote.experiments.create(quiet=True)
    for step in range(3):
        experiment.checkpoint(step=step, metrics={"loss": step})
    assert experiment.flush()
    # Somebody else touches the record, and we delete one.
    there(remote).update(experiment.id, lambda record: record.params.update(touched=True))
    experiment.checkpoints[1].delete()
    experiment.checkpoint(step=3, metrics={"loss": 3})
    experiment.stop()
    assert [checkpoint.step for checkpoint in stored(remote).checkpoints] == [0, 2, 3]


def test_where_the_store_is_down_only_what_is_here_can_go_on(
    remote: Project, store: Proxy, elsewhere: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.is_down = True
    monkeypatch.setenv("KEEPSAKE_MODE", "offline")
    first = remote.experiments.create(quiet=True)
    first.checkpoint(step=0, metrics={"loss": 3.0})
    first.finish("interrupted")
    with Project().experiments.create(quiet=True, resume=first.id) as again:
        assert again.checkpoints.step == [0]
    with pytest.raises(DoesNotExist):
        elsewhere.experiments.create(quiet=True, resume=first.id)
    assert sum(store.requests.values()) == 0
    monkeypatch.delenv("KEEPSAKE_MODE")
    monkeypatch.setattr("keepsake.storage.gcs.errors.RETRY_FOR_S", 0.1)
    with pytest.raises(StorageUnavailable):
        elsewhere.experiments.create(quiet=True, resume="auto")
    store.is_down = False
    assert keepsake("sync").returncode == 0
    assert len(stored(remote).resumed) == 1


def test_rm_takes_the_history_with_it(remote: Project) -> None:
    with remote.experiments.create(quiet=True) as experiment:
        experiment.log({"loss": 1.0}, 0)
    assert keepsake("rm", "--force", experiment.short_id()).returncode == 0
    assert list(there(remote).storage.list(layout.METRICS_PREFIX)) == []
