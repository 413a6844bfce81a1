"""Where things lie in a repository: IDs to keys and back. Pure functions; no input or output belongs here."""

from __future__ import annotations

import os
import re

SPEC_KEY = "repository.json"
METADATA_PREFIX = "metadata"
RECORDS_PREFIX = "metadata/experiments"
HEARTBEATS_PREFIX = "metadata/heartbeats"
ANNOTATIONS_PREFIX = "metadata/annotations"
ALIASES_PREFIX = "metadata/aliases"
EXPERIMENT_ARCHIVES_PREFIX = "experiments"
CHECKPOINT_ARCHIVES_PREFIX = "checkpoints"
METRICS_PREFIX = "metrics"

ID_LENGTH = 64
SHORT_ID_LENGTH = 7

_ID = re.compile(r"[0-9a-f]{64}")
_JSON_KEY = re.compile(r"(?:.*/)?([0-9a-f]{64})\.json", re.DOTALL)
_ID_PREFIX = re.compile(r"[0-9a-f]{1,64}")


def new_id() -> str:
    """Draw an ID: 64 lower-case hexadecimal characters from the system's random source."""
    return os.urandom(ID_LENGTH // 2).hex()


def is_id(text: str) -> bool:
    """Tell whether a text is a whole ID."""
    return _ID.fullmatch(text) is not None


def is_id_prefix(text: str) -> bool:
    """Tell whether a text could be the start of an ID."""
    return _ID_PREFIX.fullmatch(text) is not None


def short_id(id: str) -> str:
    """Return the form of an ID that people read: its first 7 characters."""
    return id[:SHORT_ID_LENGTH]


def record_key(experiment_id: str) -> str:
    """Return the key of an experiment's record."""
    return f"{RECORDS_PREFIX}/{experiment_id}.json"


def heartbeat_key(experiment_id: str) -> str:
    """Return the key of an experiment's heartbeat."""
    return f"{HEARTBEATS_PREFIX}/{experiment_id}.json"


def annotations_key(experiment_id: str) -> str:
    """Return the key of what people say of an experiment."""
    return f"{ANNOTATIONS_PREFIX}/{experiment_id}.json"


def alias_key(alias: str) -> str:
    """Return the key of an alias of a checkpoint."""
    return f"{ALIASES_PREFIX}/{alias}.json"


def alias_of_key(key: str) -> str | None:
    """Return the alias that a key is about, or None for a foreign file."""
    name = key.removeprefix(f"{ALIASES_PREFIX}/")
    return name.removesuffix(".json") if name != key and name.endswith(".json") else None


def experiment_archive_key(experiment_id: str) -> str:
    """Return the key of the archive with an experiment's code."""
    return f"{EXPERIMENT_ARCHIVES_PREFIX}/{experiment_id}.tar.gz"


def checkpoint_archive_key(checkpoint_id: str) -> str:
    """Return the key of the archive with a checkpoint's files."""
    return f"{CHECKPOINT_ARCHIVES_PREFIX}/{checkpoint_id}.tar.gz"


def metrics_prefix(experiment_id: str) -> str:
    """Return the prefix of the segments of an experiment's history."""
    return f"{METRICS_PREFIX}/{experiment_id}"


def id_of_segment_key(key: str) -> str | None:
    """Return the experiment whose history a key is a segment of, or None for a foreign file."""
    id, _, name = key.removeprefix(f"{METRICS_PREFIX}/").partition("/")
    return id if is_id(id) and name.endswith(".jsonl") and "/" not in name else None


def id_of_json_key(key: str) -> str | None:
    """Return the ID that a record's or a heartbeat's key is about, or None for a foreign file."""
    match = _JSON_KEY.fullmatch(key)
    return match[1] if match is not None else None
