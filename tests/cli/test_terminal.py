"""What a process shows and does from its start to its end: progress where somebody waits for it, and the end of a command."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from keepsake import cli
from keepsake.cli import terminal
from tests.cli.conftest import Repo


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown() -> str:
    """Fetch something, and return what was on the screen."""
    screen = Screen()
    with contextlib.redirect_stderr(screen), terminal.progress("fetching") as progress:
        assert progress is not None
        done = progress(1 << 30)
        for _ in range(16):
            done(1 << 26)
    return screen.getvalue()


def test_what_takes_long_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PATIENCE_S", -1.0)
    seen = shown()
    assert "fetching" in seen
    assert "100%" in seen


def test_what_is_done_at_once_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PATIENCE_S", float("inf"))
    assert shown() == ""


def test_without_a_terminal_nobody_watches() -> None:
    with terminal.progress("fetching") as progress:
        assert progress is None


@pytest.mark.parametrize(
    ("arguments", "label"), [(["fsck"], "reading"), (["checkout", "eb96def", "-o", "out"], "fetching")], ids=["fsck", "checkout"]
)
def test_commands_say_how_far_they_are(repo: Repo, monkeypatch: pytest.MonkeyPatch, arguments: list[str], label: str) -> None:
    monkeypatch.setattr(terminal, "PATIENCE_S", -1.0)
    screen = Screen()
    with contextlib.redirect_stderr(screen):
        assert cli.run(arguments) == 0
    assert label in screen.getvalue()


ENDING = """
import atexit, sys, tempfile, threading, time
from keepsake.__main__ import main
from keepsake import cli

def late():
    time.sleep(0.2)
    print("thread", flush=True)

def run(arguments):
    kept = tempfile.TemporaryDirectory()
    globals()["kept"] = kept
    print(kept.name)
    atexit.register(lambda: print("registered"))
    threading.Thread(target=late).start()
    return 3

cli.run = run
main([])
"""


def test_a_command_ends_with_its_code_when_all_that_waits_for_the_end_is_done() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60)
    directory, *said = done.stdout.splitlines()
    assert (said, done.stderr, done.returncode) == (["thread", "registered"], "", 3)
    assert not Path(directory).exists()


LATE = """
import sys
from keepsake import messages
from keepsake.cli import terminal
assert "logging" not in sys.modules
with terminal.prepared():
    messages.warning("one")
    import logging
    logging.getLogger("somebody").warning("two")
    messages.warning("one")
assert not logging.getLogger().handlers
messages.warning("three")
"""


def test_lines_of_all_are_printed_alike_though_logging_is_loaded_with_the_first() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("warning: one\nwarning: two\nkeepsake: warning: three\n", 0)
