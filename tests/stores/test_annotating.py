"""What people say of an experiment in a store that is far away arrives with it, and lays nothing over what others say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keepsake import Project
from keepsake.repository import annotations, layout
from keepsake.repository.annotations import Annotation
from keepsake.repository.repository import Repository
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")


def there(project: Project) -> Repository:
    return Repository.at(project.repository_url)


def outbox_annotations(project: Project) -> list[str]:
    root = project.directory / ".keepsake" / "outbox"
    return [path.name for path in root.rglob(f"{layout.ANNOTATIONS_PREFIX}/*.json")]


def keepsake(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "keepsake", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_it_arrives_with_the_experiment(remote: Project) -> None:
    running = remote.experiments.create(quiet=True, name="warm-up", tags=["base"])
    running.tag("prod")
    running.stop()
    assert annotations.read(there(remote), running.id) == Annotation("warm-up", ("base", "prod"))
    assert outbox_annotations(remote) == []
    assert remote.experiments.get("warm-up") == running
    running.tag("later", "-base")
    assert annotations.read(there(remote), running.id).tags == ("later", "prod")
    assert outbox_annotations(remote) == []


def test_offline_it_waits_and_commands_may_change_it(remote: Project, store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSAKE_MODE", "offline")
    waiting = remote.experiments.create(quiet=True, tags=["base"])
    waiting.stop()
    store.is_down = True
    waiting.tag("prod")
    assert outbox_annotations(remote) == [f"{waiting.id}.json"]
    store.is_down = False
    monkeypatch.delenv("KEEPSAKE_MODE")
    keepsake("name", waiting.id, "warm-up")
    assert list(there(remote).storage.list(layout.ANNOTATIONS_PREFIX)) == []
    keepsake("sync")
    assert annotations.read(there(remote), waiting.id) == Annotation("warm-up", ("base", "prod"))
    assert outbox_annotations(remote) == []


def test_what_others_have_said_meanwhile_stays(remote: Project) -> None:
    first = remote.experiments.create(quiet=True)
    first.checkpoint(metrics={"loss": 1.0})
    first.stop()
    annotations.change(there(remote), first.id, lambda _: Annotation("theirs", ("their-tag",), "their notes"))
    again = remote.experiments.create(quiet=True, resume=first.id, name="mine", tags=["my-tag"])
    again.stop()
    assert annotations.read(there(remote), first.id) == Annotation("theirs", ("my-tag", "their-tag"), "their notes")


def test_an_alias_is_seen_by_everybody(remote: Project) -> None:
    running = remote.experiments.create(quiet=True)
    checkpoint = running.checkpoint(metrics={"loss": 1.0})
    running.stop()
    checkpoint.alias("production")
    elsewhere = Project(repository=remote.repository_url, directory=remote.directory)
    assert elsewhere.experiments.find("@production") == (running, checkpoint)
