"""Errors as people read them, and the exit codes that scripts read."""

from __future__ import annotations

import contextlib
import os
import sys

import click

from keepsake.cli.terminal import print_lines
from keepsake.exceptions import (
    AccessDenied,
    AmbiguousID,
    ConfigInvalid,
    ConfigNotFound,
    DoesNotExist,
    InvalidName,
    InvalidQuery,
    KeepsakeError,
    NotConfirmed,
    RepositoryError,
    StorageUnavailable,
    UnsavedFiles,
)

DONE, FAILED, USAGE, NOT_FOUND, REFUSED, NO_REPOSITORY, NEEDS_ANSWER, DAMAGED, UNREACHABLE, INTERRUPTED = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    75,
    130,
)

EXIT_CODES = {
    DONE: "done; also for an empty list",
    FAILED: "failed; with diff --exit-code: something differs",
    USAGE: "bad option, bad filter, a name that no experiment has, or one that cannot be given",
    NOT_FOUND: "no experiment or checkpoint is called so, or several are",
    REFUSED: "the store refused access",
    NO_REPOSITORY: "no repository here, or one that cannot be read",
    NEEDS_ANSWER: "needs an answer, was answered with no, or would lose files",
    DAMAGED: "fsck found damage",
    UNREACHABLE: "the store cannot be reached for the moment; trying again is safe",
    INTERRUPTED: "interrupted with Ctrl-C",
}
"""What each exit code means."""

_CODES: tuple[tuple[type[KeepsakeError], int], ...] = (
    (InvalidQuery, USAGE),
    (InvalidName, USAGE),
    (DoesNotExist, NOT_FOUND),
    (AmbiguousID, NOT_FOUND),
    (AccessDenied, REFUSED),
    (StorageUnavailable, UNREACHABLE),
    (ConfigNotFound, NO_REPOSITORY),
    (ConfigInvalid, NO_REPOSITORY),
    (RepositoryError, NO_REPOSITORY),
    (UnsavedFiles, NEEDS_ANSWER),
    (NotConfirmed, NEEDS_ANSWER),
)
"""The code of each kind of error; what is not listed exits with `FAILED`."""


def exit_code_of(err: BaseException, *, verbose: bool) -> int:
    """Print an error on standard error and return its exit code.

    Args:
        err: What ended the command.
        verbose: Also print where it comes from.
    """
    if isinstance(err, BrokenPipeError):
        # The reader, such as head, has had enough. What is still in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    if isinstance(err, KeyboardInterrupt | click.exceptions.Abort):
        # The terminal has just shown ^C, and perhaps a question.
        print_lines(*([""] if sys.stderr.isatty() else []), "interrupted")
        return INTERRUPTED
    if verbose or os.environ.get("KEEPSAKE_DEBUG") == "1":
        import traceback

        print_lines(*"".join(traceback.format_exception(err)).rstrip().split("\n"))
    if isinstance(err, click.ClickException):
        return _usage_error(err)
    if isinstance(err, KeepsakeError):
        print_lines(f"error: {err.message}", *err.facts, *([f"hint: {err.hint}"] if err.hint else []))
        return next((code for kind, code in _CODES if isinstance(err, kind)), FAILED)
    print_lines(f"error: {type(err).__name__}: {err}", "hint: run it again with -v to see where this comes from")
    return FAILED


def _usage_error(err: click.ClickException) -> int:
    message = err.format_message()
    print_lines(f"error: {message[:1].lower()}{message[1:].rstrip('.')}")
    if isinstance(err, click.UsageError) and err.ctx is not None:
        print_lines(f"hint: {err.ctx.command_path} --help")
    return err.exit_code
