"""Asking Git about a directory, in a way that changes nothing there and runs nothing that its settings name."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


class Git:
    """Asks Git about a directory, within a time limit for all questions together.

    Args:
        program: Path of the program.
        directory: The directory.
        timeout_s: The limit.
    """

    def __init__(self, program: str, directory: Path, timeout_s: float) -> None:
        # A repository's own settings may name programs to run; a lock would disturb a person who works there.
        self._start = [program, "-C", str(directory), "-c", "core.fsmonitor=false"]
        self._env = {name: value for name, value in os.environ.items() if name not in _PLACES}
        self._env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        self._deadline = time.monotonic() + timeout_s

    @classmethod
    def at(cls, directory: Path, *, timeout_s: float) -> Self | None:
        """Return Git for a directory, or None where Git is not installed."""
        program = shutil.which("git")
        return cls(program, directory, timeout_s) if program is not None else None

    def ask(self, *arguments: str) -> tuple[int | None, str]:
        """Return Git's exit status, None if there was no answer in time, and what it printed."""
        status, output = self.exchange(*arguments)
        return status, output.decode(errors="replace").strip()

    def exchange(self, *arguments: str, input: bytes = b"") -> tuple[int | None, bytes]:
        """Return Git's exit status, None if there was no answer in time, and the bytes that it printed.

        Args:
            arguments: What to ask.
            input: What it is given to read.
        """
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            return None, b""
        process = subprocess.Popen(
            [*self._start, *arguments],
            env=self._env,
            stdin=subprocess.PIPE if input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(input or None, timeout=left_s)
        except subprocess.TimeoutExpired:
            _kill_all(process)
            process.communicate()
            return None, b""
        return process.returncode, output


_PLACES = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX"})
"""Variables that make Git look elsewhere than in the directory it is given; set while a hook runs."""


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those it started, which would keep its output open."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
