"""What people say of experiments after they were recorded: names, tags and notes, and aliases of checkpoints.

Kept beside the records, which their writers own. Who may be called how is `check_label`'s business; whether a name is taken is not known
here, because that takes all of them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from keepsake.exceptions import CorruptedRecord, DoesNotExist, InvalidName, ObjectNotFound, StorageUnavailable
from keepsake.repository import fast_json, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from keepsake.repository.repository import Repository

T = TypeVar("T")

MAX_LABEL = 100
"""Most characters of a name, a tag or an alias."""

RESERVED = ("best", "last", "latest")
"""Words that stand for experiments and checkpoints, and so are no names."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_LIKE_AN_ID = re.compile(r"[0-9A-Fa-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Annotation:
    """What people say of one experiment.

    Args:
        name: What they call it; empty for nothing.
        tags: Words that group experiments, sorted.
        notes: Free text.
        raw: The JSON that it was read from: keys that this version does not know survive.

    Example:
        >>> annotation = Annotation.from_json({"name": "warm-up", "tags": ["prod"], "color": "red"})
        >>> annotation.tagged(["base"], ["prod"]).to_json()
        {'name': 'warm-up', 'tags': ['base'], 'notes': '', 'color': 'red'}
    """

    name: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: object) -> Annotation:
        """Build it from its JSON.

        Raises:
            ValueError: It is no annotation.
        """
        if not isinstance(raw, dict):
            raise ValueError("it is no object")
        name, tags, notes = raw.get("name") or "", raw.get("tags") or [], raw.get("notes") or ""
        if not isinstance(name, str) or not isinstance(notes, str):
            raise ValueError("name and notes must be texts")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise ValueError("tags must be an array of texts")
        return cls(name, tuple(sorted(set(tags))), notes, raw)

    @classmethod
    def from_bytes(cls, content: bytes, *, key: str) -> Annotation:
        """Build it from its file.

        Raises:
            CorruptedRecord: The file is damaged; the message names its key.
        """
        return _parsed(content, key, "annotation", cls.from_json)

    def to_json(self) -> dict[str, Any]:
        """Return its JSON, with what this version does not know."""
        return {"name": self.name, "tags": list(self.tags), "notes": self.notes} | {
            key: value for key, value in self.raw.items() if key not in ("name", "tags", "notes")
        }

    def to_bytes(self) -> bytes:
        """Return its file."""
        return _file(self.to_json())

    def tagged(self, added: Iterable[str], removed: Iterable[str] = ()) -> Annotation:
        """Return it with other tags."""
        return replace(self, tags=tuple(sorted({*self.tags, *added}.difference(removed))))

    def or_else(self, other: Annotation) -> Annotation:
        """Return it with all tags of both, and with what only the other one says.

        Example:
            >>> Annotation(tags=("prod",)).or_else(Annotation("warm-up", ("base",)))
            Annotation(name='warm-up', tags=('base', 'prod'), notes='')
        """
        raw = {**other.raw, **self.raw}
        return replace(self.tagged(other.tags), name=self.name or other.name, notes=self.notes or other.notes, raw=raw)


@dataclass(frozen=True, slots=True)
class Alias:
    """What an alias stands for.

    Args:
        checkpoint: The ID of the checkpoint.
        experiment: The ID of its experiment; empty where whoever wrote it left that out.
    """

    checkpoint: str
    experiment: str = ""

    @classmethod
    def from_json(cls, raw: object) -> Alias:
        """Build it from its JSON.

        Raises:
            ValueError: It is no alias.
        """
        if not isinstance(raw, dict) or not layout.is_id(str(raw.get("checkpoint"))):
            raise ValueError("it names no checkpoint")
        experiment = raw.get("experiment")
        return cls(raw["checkpoint"], experiment if isinstance(experiment, str) and layout.is_id(experiment) else "")

    @classmethod
    def from_bytes(cls, content: bytes, *, key: str) -> Alias:
        """Build it from its file.

        Raises:
            CorruptedRecord: The file is damaged; the message names its key.
        """
        return _parsed(content, key, "alias", cls.from_json)

    def to_bytes(self) -> bytes:
        """Return its file."""
        return _file({"checkpoint": self.checkpoint, "experiment": self.experiment})


def _parsed(content: bytes, key: str, noun: str, build: Callable[[object], T]) -> T:
    try:
        return build(fast_json.loads(content))
    except (ValueError, RecursionError) as err:
        raise CorruptedRecord(f"the {noun} {key} is damaged: {err}") from err


def _file(value: dict[str, Any]) -> bytes:
    # Half a surrogate pair, as an argument of a command line may hold, is written as its escape.
    return json.dumps(value, indent=1).encode()


# --- what may be called how -----------------------------------------------------------------------------------------


def check_label(label: str, noun: str) -> str:
    """Return a name, a tag or an alias if it may be one.

    Args:
        label: What was typed.
        noun: What it is to be: ``"name"``, ``"tag"`` or ``"alias"``. A tag is never looked up, so that it may also be a number or a word
            that stands for something.

    Raises:
        InvalidName: It cannot be one.

    Example:
        >>> check_label("sweep/3.warm-up", "name")
        'sweep/3.warm-up'
    """
    if len(label) > MAX_LABEL or not _LABEL.fullmatch(label) or ".json/" in f"{label}/":
        raise InvalidName(
            f'"{label[:MAX_LABEL]}" cannot be {_a(noun)}',
            facts=[
                f"it takes at most {MAX_LABEL} letters, digits and . _ - /, begins with a letter or a digit, also behind each /,"
                " and does not end with .json"
            ],
        )
    if noun != "tag" and label.lower() in RESERVED:
        raise InvalidName(f'"{label}" cannot be {_a(noun)}: it stands for an experiment or a checkpoint already')
    if noun != "tag" and _LIKE_AN_ID.fullmatch(label):
        raise InvalidName(f'"{label}" cannot be {_a(noun)}: it looks like the start of an ID')
    return label


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


# --- in a repository ------------------------------------------------------------------------------------------------


def read(repository: Repository, experiment_id: str) -> Annotation:
    """Return what people say of an experiment; what is damaged is as if it were not there.

    Raises:
        StorageError: The store failed.
    """
    key = layout.annotations_key(experiment_id)
    try:
        return Annotation.from_bytes(repository.storage.read(key), key=key)
    except (ObjectNotFound, CorruptedRecord):
        return Annotation()


def change(repository: Repository, experiment_id: str, changed: Callable[[Annotation], Annotation]) -> Annotation:
    """Change what people say of an experiment, and return it.

    Of an experiment that waits in the outbox in front of a store, it is kept there as well, and uploaded with it.

    Args:
        repository: The repository.
        experiment_id: The experiment.
        changed: Returns the new annotation for the present one.

    Raises:
        DoesNotExist: There is no such experiment.
        StorageError: The store failed.
    """
    local = repository.local
    # A store that cannot be reached must not be asked for anything then.
    waits = local is not None and local.record_etag(experiment_id) is not None
    home = local if local is not None and waits else repository
    home.check_format()
    with repository.rewriting(experiment_id):
        _require(home, experiment_id)
        try:
            before = read(repository, experiment_id)
        except StorageUnavailable:
            if not waits:
                raise
            # What the store has is laid under it when it is uploaded.
            before = Annotation()
        after = changed(before)
        if after != before:
            home.storage.write(layout.annotations_key(experiment_id), after.to_bytes())
    return after


def aliases(repository: Repository) -> dict[str, Alias]:
    """Return all aliases, read anew; what is damaged is left out."""
    infos = [info for info in repository.storage.list(layout.ALIASES_PREFIX) if layout.alias_of_key(info.key) is not None]
    return dict(_aliases(repository.small_objects(infos)))


def _aliases(contents: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Alias]]:
    for key, content in contents:
        try:
            yield layout.alias_of_key(key) or "", Alias.from_bytes(content, key=key)
        except CorruptedRecord:
            continue


def aliases_of(repository: Repository, ids: Iterable[str]) -> list[str]:
    """Return the keys of the aliases of checkpoints, named by their own IDs or those of their experiments: they go with them."""
    wanted = set(ids)
    return [
        layout.alias_key(name)
        for name, alias in aliases(repository).items()
        if alias.checkpoint in wanted or alias.experiment in wanted
    ]


def set_alias(repository: Repository, name: str, alias: Alias) -> None:
    """Let an alias stand for a checkpoint; what it stood for before is forgotten.

    Raises:
        InvalidName: It cannot be an alias.
        DoesNotExist: There is no such experiment.
        StorageError: The store failed.
    """
    check_label(name, "alias")
    repository.check_format()
    with repository.rewriting(alias.experiment):
        _require(repository, alias.experiment)
        repository.storage.write(layout.alias_key(name), alias.to_bytes())


def remove_alias(repository: Repository, name: str) -> None:
    """Forget an alias; one that is not there is forgotten already.

    Raises:
        InvalidName: It cannot be an alias.
        StorageError: The store failed.
    """
    repository.storage.delete([layout.alias_key(check_label(name, "alias"))])


def _require(repository: Repository, experiment_id: str) -> None:
    if repository.record_etag(experiment_id) is None:
        raise DoesNotExist(f'no experiment "{layout.short_id(experiment_id)}" in {repository.label}', hint="keepsake ls")
