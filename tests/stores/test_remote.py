"""Recording into a store that is far away, slow, broken or gone: the training does not notice, and nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepsake import Experiment, Project
from keepsake.repository import layout, verify
from keepsake.repository.repository import Repository
from tests.conftest import Script
from tests.servers.proxy import Fault, Proxy

# What google.api_core says on its first import about a package that nobody needs.
pytestmark = pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")

Start = Callable[..., Script]
EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


TRAIN = """
    import os, random, sys
    import keepsake

    experiment = keepsake.init(path=None, params={"lr": 0.1})
    for step in range(int(os.environ.get("STEPS", "5"))):
        open("weights", "wb").write(random.Random(step).randbytes(50_000))
        experiment.checkpoint("weights", metrics={"loss": step}, move=step % 2 == 0)
        if os.environ.get("TALKS"):
            print(step, flush=True)
            sys.stdin.readline()
"""


def keepsake(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "keepsake", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=cwd)


def there(project: Project) -> Repository:
    """The store itself, without what the outbox holds in front of it."""
    return Repository.at(project.repository_url)


def outbox_files(project: Project) -> list[str]:
    root = project.directory / ".keepsake" / "outbox"
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name not in ("outbox.json", "repository.json"))


def assert_complete(project: Project, steps: int) -> Experiment:
    """Assert that the store has everything, intact, and the outbox nothing."""
    report = verify.check(there(project))
    assert report.findings == []
    assert report.checkpoints == steps
    assert outbox_files(project) == []
    [experiment] = project.experiments.list()
    for step, checkpoint in enumerate(experiment.checkpoints):
        assert checkpoint.metrics == {"loss": step}
        assert checkpoint.open("weights").read() == random.Random(step).randbytes(50_000)
    return experiment


def test_what_is_recorded_arrives(remote: Project, script: Start) -> None:
    run = script(TRAIN.replace("path=None", 'path="."'))
    assert run.wait() == 0, run.stderr
    assert [line for line in run.stderr.splitlines() if "warning" in line or "error" in line] == []
    experiment = assert_complete(remote, 5)
    assert experiment.outcome == "finished"
    assert not experiment.is_running()
    assert b"import keepsake" in experiment.open("train.py").read()
    assert list(there(remote).storage.list(layout.HEARTBEATS_PREFIX)) == []


def test_it_can_be_seen_while_it_runs(remote: Project, script: Start) -> None:
    run = script(TRAIN, env={"TALKS": "1"})
    assert run.process.stdin is not None
    assert run.line() == "0"
    elsewhere = there(remote)
    while not elsewhere.list_experiments():
        pass
    [record] = elsewhere.list_experiments()
    assert record.status.word == "running"
    # On this machine also what has not arrived.
    assert [checkpoint.metrics for checkpoint in remote.experiments.list()[0].checkpoints] == [{"loss": 0}]
    assert run.wait() == 0
    assert_complete(remote, 5)


def test_outages_cost_the_training_nothing(remote: Project, store: Proxy, script: Start) -> None:
    store.share = 0.2
    run = script(TRAIN, env={"TALKS": "1", "STEPS": "50"})
    assert run.process.stdin is not None
    for step in range(50):
        # It goes on whatever happens to the store.
        assert run.line() == str(step)
        store.is_down = 15 <= step < 40
        run.process.stdin.write("\n")
        run.process.stdin.flush()
    assert run.wait() == 0, run.stderr
    store.share = 0.0
    if outbox_files(remote):
        assert keepsake("sync").returncode == 0
    assert_complete(remote, 50)


def test_a_slow_line_does_not_hold_up_the_training(remote: Project, store: Proxy, script: Start) -> None:
    store.bytes_per_s = 100_000
    run = script(TRAIN + '    print("trained", flush=True)\n', env={"STEPS": "12"})
    assert run.line() == "trained"
    # The line takes half a second for each of them, the loop made them all before.
    assert len(list(there(remote).storage.list(layout.CHECKPOINT_ARCHIVES_PREFIX))) < 12
    store.bytes_per_s = None
    assert run.wait() == 0, run.stderr
    assert_complete(remote, 12)


def test_the_end_says_what_it_waits_for_and_how_far_it_is(
    remote: Project, store: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keepsake.recording.recorder.WORTH_ANNOUNCING_BYTES", 0)
    monkeypatch.setattr("keepsake.recording.reports.PROGRESS_INTERVAL_S", 0.0)
    experiment = remote.experiments.create()
    store.latency_s = 0.05
    for step in range(3):
        Path("weights").write_bytes(os.urandom(50_000))
        experiment.checkpoint("weights", step=step)
    experiment.stop()
    said = capsys.readouterr().err
    assert "Ctrl-C leaves that to keepsake sync" in said
    assert "uploaded 51 kB of 153 kB" in said
    assert outbox_files(remote) == []


def test_a_kill_in_the_middle_of_an_upload_is_mended_by_sync(remote: Project, store: Proxy, script: Start) -> None:
    run = script(TRAIN, env={"TALKS": "1"})
    assert run.process.stdin is not None
    for step in range(4):
        assert run.line() == str(step)
        run.process.stdin.write("\n")
        run.process.stdin.flush()
    # The answer to some upload is on its way.
    store.latency_s = 0.05
    before = sum(store.requests.values())
    while sum(store.requests.values()) == before:
        pass
    run.process.kill()
    run.wait()
    store.latency_s = 0.0
    dry = keepsake("sync", "--dry-run")
    assert (dry.returncode, "Would upload 1 experiment (" in dry.stderr) == (0, True)
    done = keepsake("sync")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.splitlines()[-1] == "Uploaded."
    steps = len(remote.experiments.list()[0].checkpoints)
    assert steps >= 4
    assert_complete(remote, steps)
    assert keepsake("sync").stderr == "Nothing to upload.\n"


def test_offline_it_waits_in_the_outbox_and_is_listed_all_the_same(
    remote: Project, store: Proxy, script: Start, tmp_path: Path
) -> None:
    store.is_down = True
    run = script(TRAIN, env={"KEEPSAKE_MODE": "offline"})
    assert run.wait() == 0
    assert "warning" not in run.stderr
    assert sum(store.requests.values()) == 0
    store.is_down = False
    listed = keepsake("ls")
    [experiment] = remote.experiments.list()
    assert experiment.short_id() in listed.stdout
    assert "1 experiment (5 checkpoints, " in listed.stderr
    assert "not uploaded yet; run: keepsake sync" in listed.stderr
    assert experiment.checkpoints[3].open("weights").read() == random.Random(3).randbytes(50_000)
    assert there(remote).list_experiments() == []
    # As a person does who has no network where the training runs.
    elsewhere = tmp_path / "laptop"
    shutil.copytree(remote.directory / ".keepsake", elsewhere / ".keepsake")
    done = keepsake("sync", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert verify.check(there(remote)).checkpoints == 5
    # Here it has nothing to do but to find that out.
    assert keepsake("sync").returncode == 0
    assert_complete(remote, 5)


def test_a_store_that_is_down_is_no_reason_not_to_train(
    remote: Project, store: Proxy, script: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.is_down = True
    run = script(
        "from keepsake.recording import recorder, uploader\n"
        "recorder.EXIT_PATIENCE_S = 0.0\n" + "\n".join(line.removeprefix("    ") for line in TRAIN.splitlines())
    )
    assert run.wait() == 0
    warnings = [line for line in run.stderr.splitlines() if "warning" in line]
    assert any("recording into" in line and "until it can be reached" in line for line in warnings)
    assert any("run: keepsake sync" in line for line in warnings)
    assert len(warnings) <= 3, run.stderr
    failed = keepsake("sync")
    assert failed.returncode == 75
    assert failed.stderr.splitlines()[-1].startswith("error: cannot ")
    store.is_down = False
    assert keepsake("sync").returncode == 0
    assert assert_complete(remote, 5).outcome == "finished"


def test_credentials_that_expire_are_said_once_and_the_training_goes_on(remote: Project, store: Proxy, script: Start) -> None:
    run = script(TRAIN, env={"TALKS": "1", "STEPS": "6"})
    assert run.process.stdin is not None
    assert run.line() == "0"
    elsewhere = there(remote)
    while not elsewhere.list_experiments():
        pass
    status = 400 if "s3://" in remote.repository_url else 401
    store.plan(Fault("status", times=10_000, status=status, body=EXPIRED))
    for step in range(1, 6):
        run.process.stdin.write("\n")
        run.process.stdin.flush()
        assert run.line() == str(step)
    assert run.wait() == 0
    warnings = [line for line in run.stderr.splitlines() if "credentials" in line]
    assert len(warnings) == 1, run.stderr
    assert "renew the credentials, then run: keepsake sync" in warnings[0]
    refused = keepsake("sync")
    assert refused.returncode == 4
    store.plan_nothing()
    assert keepsake("sync").returncode == 0
    assert_complete(remote, 6)


def test_what_somebody_deletes_meanwhile_stays_deleted(remote: Project, store: Proxy, script: Start) -> None:
    run = script(TRAIN, env={"TALKS": "1", "STEPS": "4"})
    assert run.process.stdin is not None
    assert run.line() == "0"
    elsewhere = there(remote)
    while not (found := elsewhere.list_experiments()) or not found[0].checkpoints or found[0].checkpoints[0].archive is None:
        pass
    elsewhere.delete_checkpoint(found[0].id, found[0].checkpoints[0].id)
    assert run.wait() == 0, run.stderr
    [record] = elsewhere.list_experiments()
    assert [checkpoint.metrics["loss"] for checkpoint in record.checkpoints] == [1, 2, 3]
    assert verify.check(elsewhere).findings == []
    assert outbox_files(remote) == []


def test_an_experiment_that_somebody_deletes_is_not_made_again(remote: Project, store: Proxy, script: Start) -> None:
    run = script(TRAIN, env={"TALKS": "1", "STEPS": "4"})
    assert run.line() == "0"
    elsewhere = there(remote)
    while not (found := elsewhere.list_experiments()):
        pass
    elsewhere.delete_experiment(found[0])
    assert run.wait() == 0, run.stderr
    assert list(elsewhere.storage.list("metadata")) == []
    assert list(elsewhere.storage.list("checkpoints")) == []
    assert outbox_files(remote) == [], run.stderr


def test_a_fetched_experiment_takes_more_checkpoints(remote: Project, script: Start) -> None:
    assert script(TRAIN).wait() == 0
    experiment = remote.experiments.list()[0]
    Path("weights").write_bytes(random.Random(5).randbytes(50_000))
    experiment.checkpoint("weights", metrics={"loss": 5})
    assert_complete(remote, 6)


def test_sync_may_run_while_the_training_does(remote: Project, store: Proxy, script: Start) -> None:
    run = script(TRAIN, env={"TALKS": "1", "STEPS": "6", "KEEPSAKE_MODE": "offline"})
    assert run.process.stdin is not None
    for step in range(6):
        assert run.line() == str(step)
        done = keepsake("sync")
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "Uploaded; 1 experiment still being recorded, of which more will come."
        [record] = there(remote).list_experiments()
        assert len(record.checkpoints) >= step
        run.process.stdin.write("\n")
        run.process.stdin.flush()
    assert run.wait() == 0, run.stderr
    assert keepsake("sync").stderr.splitlines()[-1] == "Uploaded."
    assert assert_complete(remote, 6).outcome == "finished"


def test_a_sync_that_is_killed_is_gone_on_with(remote: Project, store: Proxy, script: Start) -> None:
    assert script(TRAIN, env={"KEEPSAKE_MODE": "offline"}).wait() == 0
    archives = sum("checkpoints/" in str(path) for path in (remote.directory / ".keepsake").rglob("*.tar.gz"))
    # The second one of the archives never gets its answer.
    store.plan(Fault("hang", match="checkpoints", skip=3))
    sync = subprocess.Popen([sys.executable, "-m", "keepsake", "sync"], stderr=subprocess.DEVNULL)
    store.hanging.wait(60)
    sync.kill()
    sync.wait()
    store.hang_up()
    left = [name for name in outbox_files(remote) if name.endswith(".tar.gz")]
    assert 0 < len(left) <= archives
    store.forget()
    assert keepsake("sync").returncode == 0
    assert_complete(remote, 5)


def test_every_command_says_what_a_dead_process_has_left(remote: Project, store: Proxy, script: Start) -> None:
    assert script(TRAIN, env={"KEEPSAKE_MODE": "offline"}).wait() == 0
    [experiment] = remote.experiments.list()
    for arguments in (["ls"], ["show", experiment.id], ["diff", experiment.id, experiment.id], ["fsck"], ["ps"]):
        done = keepsake(*arguments)
        said = [line for line in done.stderr.splitlines() if "run: keepsake sync" in line]
        assert len(said) == 1, (arguments, done.stderr)
    assert "not uploaded" in keepsake("show", experiment.id).stdout
    assert "not uploaded" in keepsake("ls").stdout
    assert keepsake("sync").returncode == 0
    assert "keepsake sync" not in keepsake("ls").stderr


def test_one_small_file_of_a_large_checkpoint_costs_little(remote: Project, store: Proxy) -> None:
    with remote.experiments.create(quiet=True) as experiment:
        Path("model").mkdir()
        Path("model/config.json").write_text('{"depth": 3}', encoding="utf-8")
        Path("model/weights").write_bytes(os.urandom(30_000_000))
        experiment.checkpoint("model")
    [found] = Project().experiments.list()
    store.forget()
    assert found.checkpoints[0].open("model/config.json").read() == b'{"depth": 3}'
    assert sum(store.received_bytes.values()) < 1_000_000
    store.forget()
    done = keepsake("checkout", experiment.id, "--path", "model/config.json", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert Path("out/model/config.json").read_bytes() == b'{"depth": 3}'
    assert sum(store.received_bytes.values()) < 1_000_000


@pytest.mark.parametrize("missing", ["bucket", "credentials"])
def test_what_will_never_work_is_said_before_the_training_begins(
    remote: Project, store: Proxy, missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from keepsake.exceptions import AccessDenied, StorageError

    if missing == "bucket":
        scheme = remote.repository_url.partition(":")[0]
        (remote.directory / "keepsake.yaml").write_text(f"repository: {scheme}://nowhere-to-be-found/runs\n", encoding="utf-8")
        with pytest.raises(StorageError, match="bucket nowhere-to-be-found does not exist") as caught:
            Project().experiments.create(quiet=True)
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("keepsake init ")
    else:
        store.plan(Fault("status", times=100, status=403, body=b"<Error><Code>InvalidAccessKeyId</Code></Error>"))
        with pytest.raises(AccessDenied):
            Project().experiments.create(quiet=True)


def test_no_secret_is_written_down(
    remote: Project, request: pytest.FixtureRequest, script: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if "real" not in request.node.callspec.params["store"]:
        # A real store knows a wrong one; the others would find their own word in many a place.
        secret = "hunter2hunter2"
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    run = script(TRAIN)
    assert run.wait() == 0, run.stderr
    repository: Any = there(remote)
    texts = [repository.storage.read(info.key) for info in repository.storage.list("metadata")]
    texts += [path.read_bytes() for path in (remote.directory / ".keepsake").rglob("*") if path.is_file()]
    if secret:
        assert not any(secret.encode() in text for text in texts)
        assert secret not in run.stderr
