"""One saved file on its way to standard output."""

from __future__ import annotations

import codecs
import io
import os
import posixpath
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

from keepsake.cli import terminal
from keepsake.display import text
from keepsake.exceptions import DoesNotExist, KeepsakeError
from keepsake.repository.archive import close_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from keepsake.checkpoint import Checkpoint
    from keepsake.experiment import Experiment

LOOKED_AT_BYTES = 8192
"""How much of a file is looked at to tell whether it is text."""

BLOCK_CHARACTERS = 1 << 16
NAMES_SHOWN = 10


def print_file(experiment: Experiment, checkpoint: Checkpoint | None, path: str, *, reference: str) -> None:
    """Print a saved file: its bytes into a pipe or a file, and to a terminal what is safe there.

    Of an experiment it is a file of the code, else of the best checkpoint, else of the latest; of a checkpoint one of its own, else of
    the code. Where it is not the first of these, that is said on standard error.

    Args:
        experiment: The experiment.
        checkpoint: The checkpoint, if one was named.
        path: The file's path as it was saved.
        reference: How the experiment or the checkpoint was named, for hints.

    Raises:
        DoesNotExist: There is no such file.
        ReadError: The archive is missing or damaged.
        KeepsakeError: It is binary, and would go to a terminal.
    """
    with _opened(experiment, checkpoint, path, reference) as file:
        if terminal.is_terminal():
            _print_text(file, path, reference)
        else:
            sys.stdout.flush()
            shutil.copyfileobj(file, sys.stdout.buffer)


def _opened(experiment: Experiment, checkpoint: Checkpoint | None, path: str, reference: str) -> BinaryIO:
    places = _places(experiment, checkpoint)
    for place in places:
        try:
            file = place.open(path)
        except DoesNotExist:
            continue
        if place is not (checkpoint or experiment):
            terminal.print_lines(f"from {_told(experiment, place)}")
        return file
    raise _no_such_file(experiment, places, path, reference)


def _places(experiment: Experiment, checkpoint: Checkpoint | None) -> list[Experiment | Checkpoint]:
    """Return where to look for a file, in order."""
    chosen = checkpoint or experiment.best() or experiment.latest()
    in_order: list[Experiment | Checkpoint | None] = [experiment, chosen] if checkpoint is None else [checkpoint, experiment]
    return [place for place in in_order if place is not None and place.path is not None]


def _told(experiment: Experiment, place: Experiment | Checkpoint) -> str:
    if place is experiment:
        return f"the code of experiment {place.short_id()}"
    return f"checkpoint {place.short_id()}{', the best one' if place == experiment.best() else ''}"


def _no_such_file(experiment: Experiment, places: Sequence[Experiment | Checkpoint], path: str, reference: str) -> DoesNotExist:
    if not places:
        return DoesNotExist(f"nothing was saved with {reference}: neither code nor files of a checkpoint")
    files = {file.path: file for place in places for file in place.files() if file.kind != "directory"}
    wanted = posixpath.normpath(path)
    where = " or in ".join(_told(experiment, place) for place in places)
    if wanted in files:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(wanted), files[wanted].link_target or ""))
        return DoesNotExist(f'"{path}" is a link to "{target}"', hint=f"keepsake show {reference} --path {shlex.quote(target)}")
    close = close_names(wanted, files)
    more = f", … {len(files) - NAMES_SHOWN} more" if len(files) > NAMES_SHOWN else ""
    fact = f"close to it: {', '.join(close)}" if close else f"there are: {', '.join(list(files)[:NAMES_SHOWN])}{more}"
    return DoesNotExist(f'no file "{path}" in {where}', facts=[fact], hint=f"keepsake show {reference} --files")


# --- on a terminal ----------------------------------------------------------------------------------------------------


def _print_text(file: BinaryIO, path: str, reference: str) -> None:
    """Print a text file; control characters are escaped, and bytes that are not Unicode shown as such."""
    if not _is_text(file.read(LOOKED_AT_BYTES)):
        size = text.size(file.seek(0, os.SEEK_END))
        name = shlex.quote(path)
        raise KeepsakeError(
            f'"{path}" is binary ({size}), which is not for a terminal',
            hint=f"keepsake show {reference} --path {name} > {shlex.quote(posixpath.basename(path))}"
            f"   or   keepsake checkout {reference} --path {name} -o DIR",
        )
    file.seek(0)
    with io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace") as characters:
        while block := characters.read(BLOCK_CHARACTERS):
            sys.stdout.write(text.safe_block(block))


def _is_text(beginning: bytes) -> bool:
    if b"\0" in beginning:
        return False
    try:
        # What is looked at may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(beginning, final=False)
    except UnicodeDecodeError:
        return False
    return True
