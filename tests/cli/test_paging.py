"""A pager between the answer and a terminal: only where one is asked for, and only there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Repo, Result

Run = Callable[..., Result]

SHOUTING = "tr a-z A-Z"
"""A pager that can be told from none."""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("command", "shouted"), [(["ls"], "EB96DEF"), (["show", "eb96def"], "EB96DEF"), (["diff", "eb96def", "4591273"], "ADAMW")]
)
def test_an_answer_goes_through_it(repo: Repo, terminal: Any, command: list[str], shouted: str) -> None:
    result = terminal(*command, "--pager", KEEPSAKE_PAGER=SHOUTING).end()
    assert result.code == 0
    assert shouted in plain(result.out)


def test_the_variable_is_enough(repo: Repo, terminal: Any) -> None:
    assert "EB96DEF" in plain(terminal("ls", KEEPSAKE_PAGER=SHOUTING).end().out)
    assert "EB96DEF" not in plain(terminal("ls", PAGER=SHOUTING).end().out)
    assert "EB96DEF" in plain(terminal("ls", "--pager", PAGER=SHOUTING).end().out)


def test_the_table_is_as_wide_and_coloured_as_without(repo: Repo, terminal: Any) -> None:
    without, paged = (terminal("ls", width=120, **env).end().out for env in ({}, {"KEEPSAKE_PAGER": "cat"}))
    # What is said below goes to standard error, and may come before what the pager prints.
    assert sorted(paged.splitlines()) == sorted(without.splitlines())
    assert "\x1b[" in paged


def test_a_pipe_has_none(repo: Repo, keepsake: Run) -> None:
    assert keepsake("ls", "--pager", KEEPSAKE_PAGER=SHOUTING) == keepsake("ls")


def test_it_may_be_left_early(repo: Repo, terminal: Any) -> None:
    result = terminal("ls", KEEPSAKE_PAGER="true").end()
    assert result.code == 0
    assert "Traceback" not in result.out
    assert "rror" not in result.out


def test_an_error_is_seen_behind_it(repo: Repo, terminal: Any) -> None:
    result = terminal("ls", "-f", "vall_loss < 1", KEEPSAKE_PAGER=SHOUTING).end()
    assert result.code == 2
    assert 'no param, metric or field named "vall_loss"' in plain(result.out)


def test_ctrl_c_is_for_the_pager(repo: Repo, terminal: Any, tmp_path: Path) -> None:
    pager = tmp_path / "pager.py"
    pager.write_text(
        "import signal, sys\n"
        # Held back until it is waited for: a signal just before signal.pause() would be handled after it, which is never.
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "sys.stdin.read()\n"
        "print('reading', flush=True)\n"
        "signal.sigwait([signal.SIGINT])\n"
        "print('noticed', flush=True)\n",
        encoding="utf-8",
    )
    started = terminal("ls", KEEPSAKE_PAGER=f"{sys.executable} {pager}")
    started.wait_for("reading")
    started.type("\x03")
    result = started.end()
    assert result.code == 0
    assert "noticed" in result.out
    assert "interrupted" not in result.out


def test_one_that_is_missing(repo: Repo, terminal: Any) -> None:
    result = terminal("ls", "--pager", KEEPSAKE_PAGER="no-such-pager").end()
    assert result.code == 2
    assert 'error: cannot run the pager "no-such-pager": ' in plain(result.out)


def test_what_is_shown_again_and_again_has_none(repo: Repo, keepsake: Run) -> None:
    assert keepsake("ls", "--watch", "--pager").code == 2
