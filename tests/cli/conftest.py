"""A repository with one experiment of each fate, and three ways to run the command line: in this process, in a real one, and on a
real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keepsake import cli, messages
from keepsake.capture.files import FileEntry
from keepsake.repository import layout
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from tests.archives import store_archive

START = datetime(2026, 3, 1, 8, 0, 0, tzinfo=UTC)
LOSS = PrimaryMetric("val_loss", "minimize")
DEAD_FOR_S = 7200


def full_id(short: str) -> str:
    """Return the ID with this beginning."""
    return short + "0" * (layout.ID_LENGTH - len(short))


FINISHED, FAILED, INTERRUPTED, KILLED, RUNNING = (
    full_id(short) for short in ("eb96def", "76ab171", "91af3b0", "4591273", "bfb06bc")
)
FINISHED_BEST, FINISHED_LATEST, KILLED_ONLY, RUNNING_ONLY = (
    full_id(short) for short in ("fe6a313", "0b77c4e", "45da0f8", "d01b7aa")
)
IN_ORDER = [FINISHED, FAILED, INTERRUPTED, KILLED, RUNNING]


@dataclass
class Repo:
    """A project directory with its repository."""

    directory: Path
    repository: Repository

    @property
    def root(self) -> Path:
        return self.directory / ".keepsake"

    def ids(self) -> list[str]:
        """Return the experiments that are there, oldest first."""
        return [record.id for record in self.repository.list_experiments()]

    def archive(self, key: str, files: Mapping[str, bytes]) -> Any:
        """Store an archive and return what is announced of it."""
        source = self.directory.parent / "sources" / key.replace("/", "-")
        entries = []
        for name, content in files.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (1_700_000_000, 1_700_000_000))
            entries.append(FileEntry(name, path, "file"))
        return store_archive(self.repository, key, entries, key.rpartition("/")[2].removesuffix(".tar.gz"))

    def add(self, short: str, **fields: Any) -> ExperimentRecord:
        """Save one more experiment."""
        fields = {"created": START, "user": "ana", "host": "gpu-07", "command": "python train.py", "outcome": "finished"} | fields
        record = ExperimentRecord(id=full_id(short), **fields)
        self.repository.save(record)
        return record


def checkpoint(id: str, step: int, minutes: int, *, primary: PrimaryMetric | None = LOSS, **fields: Any) -> CheckpointRecord:
    return CheckpointRecord(id=id, created=START + timedelta(minutes=minutes), step=step, primary_metric=primary, **fields)


@pytest.fixture
def repo(empty_repo: Repo) -> Repo:
    """Five experiments, oldest first: finished, failed, interrupted, killed and running."""
    repo = empty_repo
    shared: dict[str, Any] = {"batch_size": 64, "model": {"depth": 3}}
    code = repo.archive(
        layout.experiment_archive_key(FINISHED),
        {
            "train.py": b"print('train')\n",
            "lib/net.py": b"depth = 3\n",
            "keepsake.yaml": b'repository: "file:///somewhere/else"\n',
        },
    )
    best = repo.archive(layout.checkpoint_archive_key(FINISHED_BEST), {"model.pth": b"best weights"})
    latest = repo.archive(layout.checkpoint_archive_key(FINISHED_LATEST), {"model.pth": b"latest weights"})
    repo.add(
        "eb96def",
        params={"lr": 0.001, "optimizer": "sgd", **shared},
        path=".",
        archive=code,
        ended=START + timedelta(minutes=72),
        python_version="3.12.4",
        python_packages={"click": "8.1.7", "torch": "2.8.0"},
        git={"commit": "8f3c2ad" + "0" * 33, "branch": "main", "dirty": True, "remote": None},
        checkpoints=[
            checkpoint(FINISHED_BEST, 100, 30, path="model.pth", archive=best, metrics={"val_loss": 0.21211111, "acc": 0.9411}),
            checkpoint(FINISHED_LATEST, 200, 60, path="model.pth", archive=latest, metrics={"val_loss": 0.25, "acc": 0.9}),
        ],
    )
    repo.add(
        "76ab171",
        created=START + timedelta(hours=2),
        params={"lr": 0.003, "optimizer": "adamw", **shared},
        outcome="failed",
        error="RuntimeError: CUDA out of memory",
        ended=START + timedelta(hours=2, minutes=2),
    )
    repo.add(
        "91af3b0",
        created=START + timedelta(hours=3),
        params={"lr": 0.0001, "optimizer": "adamw", **shared},
        outcome="interrupted",
        error="SIGTERM",
        ended=START + timedelta(hours=4),
    )
    repo.add(
        "4591273",
        created=START + timedelta(hours=5),
        params={"lr": 0.001, "optimizer": "adamw", **shared},
        outcome=None,
        python_packages={"click": "8.1.7", "torch": "2.9.1"},
        heartbeat_interval_s=10.0,
        checkpoints=[checkpoint(KILLED_ONLY, 300, 320, metrics={"val_loss": 0.148449, "acc": 0.9641})],
    )
    repo.repository.beat(KILLED)
    heartbeat = repo.root / layout.heartbeat_key(KILLED)
    at = heartbeat.stat().st_mtime - DEAD_FOR_S
    os.utime(heartbeat, (at, at))
    repo.add(
        "bfb06bc",
        created=START + timedelta(hours=6),
        params={"lr": 0.0003, "optimizer": "adamw", **shared},
        outcome=None,
        heartbeat_interval_s=100_000.0,
        checkpoints=[checkpoint(RUNNING_ONLY, 50, 370, metrics={"val_loss": 0.15, "acc": 0.95})],
    )
    repo.repository.beat(RUNNING)
    return repo


@pytest.fixture
def empty_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A project directory with a repository that holds no experiments; the working directory while the test runs."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "keepsake.yaml").write_text('repository: "file://.keepsake"\n', encoding="utf-8")
    monkeypatch.chdir(directory)
    monkeypatch.setenv("TZ", "UTC")
    repository = Repository.at(f"file://{directory / '.keepsake'}", label="file://.keepsake")
    repository.prepare()
    return Repo(directory, repository)


# --- ways to run ----------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def keepsake() -> Callable[..., Result]:
    """Run ``python -m keepsake`` in a real process, as a script does: nothing is a terminal."""

    def run(*arguments: str, input: str = "", cwd: Path | None = None, **env: str) -> Result:
        process = subprocess.run(
            [sys.executable, "-W", "error", "-m", "keepsake", *arguments],
            input=input.encode(),
            capture_output=True,
            cwd=cwd,
            env={**os.environ, **env},
            timeout=120,
        )
        return Result(process.returncode, process.stdout.decode(), process.stderr.decode())

    return run


@pytest.fixture
def here() -> Callable[..., Result]:
    """Run the command line in this process, as the entry point does, for the many cases."""

    def run(*arguments: str, input: str = "") -> Result:
        messages.forget_said()
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        real = sys.stdin
        sys.stdin = io.StringIO(input)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.run(list(arguments))
        finally:
            sys.stdin = real
        texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        return Result(code, *texts)

    return run


class Terminal:
    """A command on a real terminal, which standard input, output and error all lead to.

    Args:
        arguments: What stands after ``keepsake``.
        width: Columns of the terminal.
        env: Further variables.
        code: The Python program that is run.
    """

    def __init__(self, arguments: tuple[str, ...], width: int, env: Mapping[str, str], code: str | None = None) -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _TAKE_THE_TERMINAL + (code or _KEEPSAKE), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **env},
            start_new_session=True,
        )
        os.close(slave)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 30)[0]:
            raise TimeoutError(self.seen)
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the last process has closed its side.
            data = b""
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def wait_for(self, text: str) -> None:
        """Read until a text has been printed."""
        while text not in self.seen:
            assert self._read(), f"ended without {text!r}: {self.seen}"

    def type(self, text: str) -> None:
        """Type keys; ``\\x03`` is Ctrl-C."""
        os.write(self._master, text.encode())

    def end(self) -> Result:
        """Read to the end and return everything that was on the screen as ``out``."""
        while self._read():
            pass
        os.close(self._master)
        return Result(self.process.wait(timeout=120), self.seen, "")

    def kill(self) -> None:
        """End what a failed test left behind."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


# The new session has to take the terminal as its own before Ctrl-C reaches it.
_TAKE_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
"""

_KEEPSAKE = """
from keepsake.__main__ import main
main(sys.argv[1:])
"""


@pytest.fixture
def terminal() -> Any:
    """Start commands on terminals of any width; `Terminal.end` waits for them."""
    started: list[Terminal] = []

    def start(*arguments: str, width: int = 80, code: str | None = None, **env: str) -> Terminal:
        started.append(Terminal(arguments, width, env, code))
        return started[-1]

    yield start
    for one in started:
        one.kill()
