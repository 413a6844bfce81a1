"""Progress is shown where somebody waits for it, and nowhere else."""

from __future__ import annotations

import contextlib
import io

import pytest

from keepsake.cli import terminal


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
