"""A pager, such as less, between the answer and the terminal, where somebody asks for one."""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from keepsake.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "KEEPSAKE_PAGER"

LESS = "FRX"
"""How less behaves unless the variable LESS says otherwise: it ends at once where all fits on the screen, lets colours through, and leaves
the text on the screen. The same as Git's ("core.pager", git-config)."""

pager_option = click.option(
    "--pager", is_flag=True, help=f"Show it through ${VARIABLE}, else $PAGER, else less; with ${VARIABLE} set always."
)


def page(ctx: click.Context, *, wanted: bool) -> None:
    """Send what the command prints from here on through a pager, if one is wanted and a person reads it.

    Raises:
        UsageError: The pager cannot be started.
    """
    command = os.environ.get(VARIABLE) or (os.environ.get("PAGER") or "less" if wanted else "")
    if command and terminal.is_terminal():
        ctx.with_resource(_paged(command, ctx))


@contextmanager
def _paged(command: str, ctx: click.Context) -> Iterator[None]:
    import shlex
    import signal
    import subprocess

    try:
        process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, env={"LESS": LESS, **os.environ})
    except (OSError, ValueError) as err:
        raise click.UsageError(f'cannot run the pager "{command}": {getattr(err, "strerror", None) or err}', ctx) from err
    if process.stdin is None:
        raise RuntimeError("the pager has no standard input")
    screen, sys.stdout = sys.stdout, _Terminal(process.stdin, encoding=sys.stdout.encoding, errors="backslashreplace")
    try:
        yield
    finally:
        # From here on Ctrl-C is for the pager alone, which knows better what to do with it.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        with suppress(BrokenPipeError):
            sys.stdout.close()
        sys.stdout = screen
        process.wait()
        signal.signal(signal.SIGINT, before)


class _Terminal(io.TextIOWrapper):
    """What leads to a pager on a terminal, and so to a terminal."""

    def isatty(self) -> bool:
        return True
