"""What people say of experiments: names that only one of them has, and what `keepsake.init` is told at the start."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from keepsake import messages
from keepsake.exceptions import InvalidName, KeepsakeError, StorageError
from keepsake.repository import layout
from keepsake.repository.annotations import MAX_LABEL, change, check_label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keepsake.project import Project

NAME, TAGS, NOTES = "KEEPSAKE_NAME", "KEEPSAKE_TAGS", "KEEPSAKE_NOTES"
"""Variables that job scripts set."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be said of an experiment from the start.

    Args:
        name: Its name; empty for none.
        tags: Its tags.
        notes: Its notes.
    """

    name: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""


def wanted(name: str | None, tags: Iterable[str] | str | None, notes: str | None) -> Wanted:
    """Return what is to be said of an experiment: what is given, else what the environment says.

    Args:
        name: Its name.
        tags: Its tags, or one of them.
        notes: Its notes.

    Raises:
        InvalidName: Something cannot be a name or a tag.
        TypeError: Something is no text.
    """
    called = os.environ.get(NAME, "").strip() if name is None else name
    if tags is None:
        tags = [tag.strip() for tag in os.environ.get(TAGS, "").split(",") if tag.strip()]
    told = os.environ.get(NOTES, "") if notes is None else notes
    words = (tags,) if isinstance(tags, str) else tuple(tags)
    if not all(isinstance(one, str) for one in (called, told, *words)):
        raise TypeError("name, tags and notes must be texts")
    return Wanted(check_label(called, "name") if called else "", tuple(check_label(tag, "tag") for tag in words), told)


def say(project: Project, experiment_id: str, said: Wanted) -> None:
    """Say of an experiment that begins, or goes on, what was wanted from the start; never raises.

    Tags are added. A name or notes that it has already stay. A name that another experiment has gets a number.
    """
    if said == Wanted():
        return

    try:
        free = free_name(project, said.name, experiment_id) if said.name else ""
        name = change(
            project.repository_at_hand(),
            experiment_id,
            lambda before: replace(before.tagged(said.tags), name=before.name or free, notes=before.notes or said.notes),
        ).name
    except Exception as err:  # noqa: BLE001 - a training must not end for want of a name
        guarded(err, f"name, tags and notes of experiment {layout.short_id(experiment_id)} could not be stored")
        return
    if said.name and name == free != said.name:
        messages.warning(f'experiment {layout.short_id(experiment_id)} is named "{name}": "{said.name}" is taken')


def free_name(project: Project, name: str, experiment_id: str) -> str:
    """Return a name, with the first number behind it that makes it one that no other experiment has."""
    taken: set[str] = set()
    with suppress(StorageError):
        # A store that cannot be reached for the moment is no reason to have no name.
        taken = {one for one, ids in _ids_by_name(project).items() if ids != [experiment_id]}
    candidates = (f"{name[: MAX_LABEL - len(str(number)) - 1]}-{number}" for number in count(2))
    return name if name not in taken else next(one for one in candidates if one not in taken)


def require_free(project: Project, name: str, experiment_id: str) -> None:
    """Make sure that a name may be given to an experiment.

    Raises:
        InvalidName: It cannot be a name, or another experiment has it.
    """
    check_label(name, "name")
    others = [id for id in _ids_by_name(project).get(name, []) if id != experiment_id]
    if others:
        short = layout.short_id(others[0])
        raise InvalidName(f'"{name}" is the name of experiment {short}', hint=f"keepsake name {short} --clear")


def _ids_by_name(project: Project) -> dict[str, list[str]]:
    index = project.index()
    index.forget()
    return index.ids_by_name()


def guarded(err: Exception, what: str) -> None:
    """Report what went wrong with an experiment that is being recorded, whose training must go on.

    Args:
        err: What went wrong.
        what: What could not be done.
    """
    messages.debug_exception(err)
    why = str(err) if isinstance(err, KeepsakeError | ValueError | TypeError) else f"{type(err).__name__}: {err}"
    messages.error(f"{what}: {why}")
