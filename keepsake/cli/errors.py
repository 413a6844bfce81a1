"""Errors as people read them, and the exit codes that scripts read."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress

import click

from keepsake.exceptions import (
    AccessDenied,
    AmbiguousID,
    ConfigInvalid,
    ConfigNotFound,
    DoesNotExist,
    InvalidQuery,
    KeepsakeError,
    NotConfirmed,
    RepositoryError,
    UnsavedFiles,
)

FAILED, USAGE, NOT_FOUND, REFUSED, NO_REPOSITORY, NEEDS_ANSWER, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130

EXIT_CODES: tuple[tuple[type[KeepsakeError], int], ...] = (
    (InvalidQuery, USAGE),
    (DoesNotExist, NOT_FOUND),
    (AmbiguousID, NOT_FOUND),
    (AccessDenied, REFUSED),
    (ConfigNotFound, NO_REPOSITORY),
    (ConfigInvalid, NO_REPOSITORY),
    (RepositoryError, NO_REPOSITORY),
    (UnsavedFiles, NEEDS_ANSWER),
    (NotConfirmed, NEEDS_ANSWER),
)
"""The code of each kind of error; what is not listed exits with 1."""


def exit_code_of(err: BaseException, *, verbose: bool) -> int:
    """Print an error on standard error and return its exit code.

    Args:
        err: What ended the command.
        verbose: Also print where it comes from.
    """
    if isinstance(err, BrokenPipeError):
        # The reader, such as head, has had enough. What is still in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(err, KeyboardInterrupt | click.exceptions.Abort):
        _print("interrupted")
        return INTERRUPTED
    if verbose or os.environ.get("KEEPSAKE_DEBUG") == "1":
        traceback.print_exception(err)
    if isinstance(err, SystemExit):
        return err.code if isinstance(err.code, int) else FAILED
    if isinstance(err, click.ClickException):
        return _usage_error(err)
    if isinstance(err, KeepsakeError):
        _print(f"error: {err.message}", *err.facts, *([f"hint: {err.hint}"] if err.hint else []))
        return next((code for kind, code in EXIT_CODES if isinstance(err, kind)), FAILED)
    _print(f"error: {type(err).__name__}: {err}", "hint: run it again with -v to see where this comes from")
    return FAILED


def _usage_error(err: click.ClickException) -> int:
    message = err.format_message()
    hint = []
    if isinstance(err, click.UsageError) and err.ctx is not None:
        hint = [f"hint: {err.ctx.command_path} --help"]
    _print(f"error: {message[:1].lower()}{message[1:].rstrip('.')}", *hint)
    return err.exit_code


def _print(*lines: str) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    for line in lines:
        click.echo(line, err=True)
