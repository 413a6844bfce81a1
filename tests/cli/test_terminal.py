"""Progress is shown where somebody waits for it, and nowhere else."""

from __future__ import annotations

import contextlib
import io

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
    with contextlib.redirect_stderr(screen), pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert not ended.value.code
    assert label in screen.getvalue()
