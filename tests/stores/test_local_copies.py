"""Local copies of what lies in a store: little is fetched, once, and what is here is served without the store."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake import Checkpoint, Project
from keepsake.exceptions import StorageError
from tests.conftest import Script
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")

FILES = {"out/model.pt": random.Random(1).randbytes(300_000), "out/optimizer.pt": random.Random(2).randbytes(5_000_000)}


@pytest.fixture
def checkpoint(remote: Project, store: Proxy) -> Checkpoint:
    Path("out").mkdir()
    for name, content in FILES.items():
        Path(name).write_bytes(content)
    with remote.experiments.create(quiet=True) as experiment:
        experiment.checkpoint("out", metrics={"loss": 1}, primary_metric=("loss", "minimize"))
    found = Project().experiments.get(experiment.id).best()
    assert found is not None
    store.forget()
    return found


def archive_requests(store: Proxy) -> list[str]:
    return [line for line in store.requests if re.search("checkpoints(/|%2F)", line) and "prefix" not in line]


def test_one_file_is_fetched_alone_and_never_again(checkpoint: Checkpoint, store: Proxy) -> None:
    copy = checkpoint.path("out/model.pt")
    assert copy.read_bytes() == FILES["out/model.pt"]
    assert 0 < len(archive_requests(store)) <= 3
    assert not (copy.parent / "optimizer.pt").exists()
    store.forget()
    assert Project().experiments.get(checkpoint.experiment.id).best().path("out/model.pt") == copy
    assert archive_requests(store) == []


def test_the_rest_of_a_directory_is_fetched_without_what_is_here(checkpoint: Checkpoint, store: Proxy) -> None:
    copy = checkpoint.path("out/model.pt")
    inode = copy.stat().st_ino
    directory = checkpoint.directory()
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {Path(name).name: FILES[name] for name in FILES}
    assert copy.stat().st_ino == inode


def test_what_is_here_is_served_while_the_store_is_down(checkpoint: Checkpoint, store: Proxy) -> None:
    copy = checkpoint.path("out/model.pt")
    store.is_down = True
    assert checkpoint.path("out/model.pt") == copy
    with pytest.raises(StorageError):
        checkpoint.path("out/optimizer.pt")


def test_processes_that_ask_at_once_fetch_once(checkpoint: Checkpoint, store: Proxy, script: Callable[..., Script]) -> None:
    code = f"""
        import keepsake
        best = keepsake.experiments.get("{checkpoint.experiment.id}").best()
        print("ready", flush=True)
        input()
        print(len(best.path("out/optimizer.pt").read_bytes()), flush=True)
    """
    processes = [script(code) for _ in range(3)]
    assert [process.line() for process in processes] == ["ready"] * 3
    store.forget()
    for process in processes:
        process.process.stdin.write("\n")
        process.process.stdin.flush()
    assert [process.line() for process in processes] == ["5000000"] * 3
    many = len(archive_requests(store))
    kept = checkpoint.path("out/optimizer.pt")
    assert kept.read_bytes() == FILES["out/optimizer.pt"]
    for parent in kept.parents:
        if parent.name == checkpoint.id:
            (parent / "kept.json").unlink()
    store.forget()
    checkpoint.path("out/optimizer.pt")
    assert many == len(archive_requests(store)) > 0
