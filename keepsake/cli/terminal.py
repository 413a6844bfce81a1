"""What the terminal can do, and how a person is asked. Nothing here knows what is printed."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from keepsake.exceptions import NotConfirmed

if TYPE_CHECKING:
    from keepsake.display.tables import Style


def is_terminal() -> bool:
    """Tell whether a person reads the answer."""
    return sys.stdout.isatty()


def columns() -> int | None:
    """Return the width of the terminal; None for a pipe or a file, which have none."""
    return shutil.get_terminal_size().columns if is_terminal() else None


def style(color: str | None) -> Style:
    """Return how to colour.

    Args:
        color: What ``--color`` says: ``auto``, ``always`` or ``never``; ``true`` and ``false`` as in keepsake 0.4.2.
    """
    return _coloured if _wants_color(color) else _uncoloured


def _wants_color(color: str | None) -> bool:
    if color in ("always", "true"):
        return True
    if color in ("never", "false"):
        return False
    if os.environ.get("FORCE_COLOR") or os.environ.get("CLICOLOR_FORCE"):
        return True
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _coloured(text: str, name: str) -> str:
    words = name.split()
    color = next((word for word in words if word != "bold"), None)
    return click.style(text, fg=color, bold="bold" in words) if words else text


def _uncoloured(text: str, name: str) -> str:
    return text


def confirm(question: str, *, flag: str) -> bool:
    """Ask on standard error and read one line; anything but yes is no. A pipe may answer.

    Args:
        question: What is asked, without the choices.
        flag: The flag that answers it, named where nobody can be asked.

    Raises:
        NotConfirmed: Standard input is at its end, or this is a CI job.
    """
    if os.environ.get("CI") or os.environ.get("KEEPSAKE_NO_PROMPT"):
        raise NotConfirmed(f"{question} Nobody can be asked here", hint=f"answer with {flag}")
    answer = ask(f"{question} [y/N] ", flag=flag)
    return answer.lower() in ("y", "yes")


def ask(prompt: str, *, flag: str) -> str:
    """Print a prompt on standard error and return the line that is typed.

    Raises:
        NotConfirmed: Standard input is at its end.
    """
    click.echo(prompt, err=True, nl=False)
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line:
        click.echo(err=True)
        raise NotConfirmed("no answer: standard input is at its end", hint=f"answer with {flag}")
    return line.strip()
