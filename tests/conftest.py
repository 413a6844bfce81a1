"""What every test gets: a clean environment, a project directory of its own, and real processes to run scripts in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

from keepsake import Project, messages
from keepsake.capture import redaction
from keepsake.recording import exits

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("any-speed", deadline=None)
hypothesis.settings.load_profile("any-speed")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Take away what would change behaviour: our variables, launchers' ranks, the person's own Git and home."""
    for name in list(os.environ):
        if name.startswith(("KEEPSAKE_", "SLURM_", "OMPI_", "PMI")) and name not in KEPT_VARIABLES:
            monkeypatch.delenv(name)
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "CI", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    messages.forget_said()
    redaction.use_names()


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """Start processes that no signal is ignored in, as they would be where the tests run under ``nohup`` or as a shell's background job.

    What is ignored is inherited; what is handled begins anew in another program. Here nothing comes of these signals as before.
    """
    ignored = [signum for signum in ENDING_SIGNALS if signal.getsignal(signum) is signal.SIG_IGN]
    for signum in ignored:
        signal.signal(signum, lambda *_: None)
    yield
    for signum in ignored:
        signal.signal(signum, signal.SIG_IGN)


ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM") if hasattr(signal, name)]
"""Signals that tests send to processes, and that a shell may ignore for what it starts."""


@pytest.fixture(autouse=True)
def _no_experiment_outlives_its_test() -> Iterator[None]:
    """Let go of what is still being recorded: its threads would work in the middle of the tests that follow."""
    yield
    for recorder in exits.live():
        recorder.abandon()


KEPT_VARIABLES = ("KEEPSAKE_ORIGINAL", "KEEPSAKE_REQUIRE_RIGS", "KEEPSAKE_NO_ANALYTICS")
"""Variables of ours that steer the tests themselves."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project directory with a local repository; the working directory while the test runs."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "keepsake.yaml").write_text("repository: file://.keepsake\n", encoding="utf-8")
    monkeypatch.chdir(directory)
    return Project()


@contextmanager
def bound_by_permissions(*directories: Path) -> Iterator[None]:
    """Be somebody whom permissions bind: in a container the tests may run as root."""
    if os.geteuid() != 0:
        yield
        return
    for path in directories:
        for parent in (path, *path.parents):
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class Script:
    """A Python script in a real process of its own.

    It talks by whole lines: what it prints is read by `line`, so that a test waits for a condition and never for a time.
    """

    def __init__(self, path: Path, cwd: Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.stderr = ""

    def line(self) -> str:
        """Wait for the next line that the script prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wait(self) -> int:
        """Let the script go on (its standard input ends) and wait for its end."""
        _, self.stderr = self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def script(project: Project) -> Iterator[Callable[..., Script]]:
    """Start scripts in the project directory; whatever is still running at the end is killed."""
    started: list[Script] = []

    def start(code: str, env: dict[str, str] | None = None) -> Script:
        path = project.directory / "train.py"
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        started.append(Script(path, project.directory, env))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        for pipe in (one.process.stdin, one.process.stdout, one.process.stderr):
            if pipe is not None:
                pipe.close()
        one.process.wait()
