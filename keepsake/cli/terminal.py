"""What the terminal can do, and how a person is asked. Nothing here knows what is printed."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from keepsake import messages
from keepsake.exceptions import NotConfirmed

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

    from click._termui_impl import ProgressBar

    from keepsake.display.tables import Style

COLOR_CHOICES = ("auto", "always", "never", "true", "false")
"""Values of ``--color``; the last two are those of keepsake 0.4.2."""


@contextmanager
def prepared() -> Iterator[None]:
    """Make the standard streams and the log fit for a command line while a command runs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character must not end the command.
            stream.reconfigure(errors="backslashreplace")
    with messages.handled_by(_notices):
        yield


def _notices() -> logging.Handler:
    from keepsake.cli.notices import Notices

    return Notices()


def print_lines(*lines: str) -> None:
    """Print lines for people on standard error, without what could steer the terminal."""
    from keepsake.display.text import safe

    for line in lines:
        click.echo(safe(line), err=True)


def is_terminal() -> bool:
    """Tell whether a person reads the answer."""
    return sys.stdout.isatty()


def columns() -> int | None:
    """Return the width of the terminal; None for a pipe or a file, which have none."""
    if not is_terminal():
        return None
    import shutil

    return shutil.get_terminal_size().columns


DRAWING = "▁▂▃▄▅▆▇█│├└─"
"""What sparklines and trees are drawn with."""


def can_draw() -> bool:
    """Tell whether the encoding of standard output has what sparklines and trees are drawn with."""
    try:
        DRAWING.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# --- progress ---------------------------------------------------------------------------------------------------------


@contextmanager
def progress(label: str, *, wanted: bool = True) -> Iterator[Callable[[int], Callable[[int], None]] | None]:
    """Show on a terminal how far something is.

    Args:
        label: What is being done.
        wanted: False shows nothing.

    Yields:
        What is to be called with the number of bytes in all, and returns what is to be called with how many more are done; None where
        nobody watches.
    """
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as bars:
        yield lambda total_bytes: _Bar(label, total_bytes, bars).update


class _Bar:
    """A progress bar that appears only once it has taken a while.

    Args:
        label: What is being done.
        total_bytes: How much in all.
        bars: What ends it.
    """

    def __init__(self, label: str, total_bytes: int, bars: ExitStack) -> None:
        self._label = label
        self._total_bytes = total_bytes
        self._bars = bars
        self._begun_s = time.monotonic()
        self._done_bytes = 0
        self._shown: ProgressBar[int] | None = None
        self._lock = threading.Lock()

    def update(self, more_bytes: int) -> None:
        """Say that more is done; any thread may."""
        with self._lock:
            self._done_bytes += more_bytes
            if self._shown is not None:
                self._shown.update(more_bytes)
            elif time.monotonic() - self._begun_s > PATIENCE_S:
                bar = click.progressbar(length=self._total_bytes, label=self._label, file=sys.stderr)
                self._shown = self._bars.enter_context(bar)
                self._shown.update(self._done_bytes)


PATIENCE_S = 1.0
"""What takes less shows no progress."""


def repeat(show: Callable[[], None], interval_s: float) -> None:
    """Clear the screen and show something, again and again until Ctrl-C.

    Args:
        show: Prints it.
        interval_s: Seconds between two of them.
    """
    try:
        while True:
            click.clear()
            show()
            sys.stdout.flush()
            time.sleep(interval_s)
    except KeyboardInterrupt:
        click.echo(err=True)


# --- colours ----------------------------------------------------------------------------------------------------------


def style(color: str | None) -> Style:
    """Return how to colour.

    Args:
        color: What ``--color`` says: one of `COLOR_CHOICES`, or None where it is not given.
    """
    return _coloured if _wants_color(color) else _uncoloured


def _wants_color(color: str | None) -> bool:
    if color in ("always", "true"):
        return True
    if color in ("never", "false"):
        return False
    if _is_set("FORCE_COLOR") or _is_set("CLICOLOR_FORCE"):
        return True
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no")


def _coloured(text: str, name: str) -> str:
    words = name.split()
    color = next((word for word in words if word != "bold"), None)
    return click.style(text, fg=color, bold="bold" in words or None) if words else text


def _uncoloured(text: str, name: str) -> str:
    return text


# --- questions --------------------------------------------------------------------------------------------------------


def can_ask() -> bool:
    """Tell whether a person sits at the keyboard."""
    return sys.stdin is not None and sys.stdin.isatty() and not _forbidden()


def confirm(question: str, *, flag: str) -> bool:
    """Ask on standard error and read one line; anything but yes is no. A pipe may answer.

    Args:
        question: What is asked, without the choices.
        flag: The flag that answers it, named where nobody can be asked.

    Raises:
        NotConfirmed: Nobody can be asked: standard input is at its end, or this is a CI job.
    """
    return ask(f"{question} [y/N]", flag=flag).lower() in ("y", "yes")


def ask(question: str, *, flag: str) -> str:
    """Print a question on standard error and return the line that is typed, or sent by a pipe.

    Raises:
        NotConfirmed: Nobody can be asked: standard input is at its end, or this is a CI job.
    """
    forbidden = _forbidden()
    if forbidden:
        raise NotConfirmed(f'cannot ask "{question}": {forbidden} is set', hint=f"answer with {flag}")
    click.echo(f"{question} ", err=True, nl=False)
    line = _typed_line() if sys.stdin is not None else ""
    if not line:
        click.echo(err=True)
        raise NotConfirmed("no answer: standard input is at its end", hint=f"answer with {flag}")
    return line.strip()


def _typed_line() -> str:
    if os.name == "posix" and sys.stdin.isatty():
        import select

        # A Ctrl-C in the moment before Python begins to read would be noticed when the line is complete, and not before.
        while not select.select([sys.stdin], [], [], CTRL_C_S)[0]:
            continue
    return sys.stdin.readline()


CTRL_C_S = 0.2
"""How long it takes at most until a Ctrl-C at a question is noticed."""


def _forbidden() -> str:
    """Return the variable that says that nobody is there, if one does."""
    return next((name for name in ("CI", "KEEPSAKE_NO_PROMPT") if _is_set(name)), "")
