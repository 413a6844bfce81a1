"""Experiments as ``keepsake ls --json`` prints them: every key of keepsake 0.4.2, and ours after them.

The index keeps the text of each, because to make ten thousand of them anew takes as long as all the rest of the command. That is the text
of an experiment of which nothing is known but its record, as of nearly all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from keepsake.repository import fast_json
from keepsake.repository.json_values import format_time

if TYPE_CHECKING:
    from keepsake.repository.records import ExperimentRecord
    from keepsake.repository.summary import Summary

_CHECKSUM_BYTES = 4


def listed(record: Summary) -> dict[str, Any]:
    """Return what is printed of an experiment."""
    said = record.annotation
    return {
        "id": record.id,
        "created": record.created_text,
        "params": record.params_json,
        "command": record.command,
        "num_checkpoints": record.num_checkpoints,
        "latest_checkpoint": record.latest_json,
        "best_checkpoint": record.best_json,
        "user": record.user,
        "host": record.host,
        **status(record),
        "git": record.git,
        "name": said.name if said is not None else "",
        "tags": said.tags if said is not None else (),
        "notes": said.notes if said is not None else "",
        "aliases": dict(record.aliases),
        "size_bytes": record.size_bytes,
    }


def status(record: ExperimentRecord | Summary) -> dict[str, Any]:
    """Return what is printed of an experiment's status."""
    status, ended = record.status, record.ended
    duration = (ended - record.created).total_seconds() if ended is not None else None
    return {
        "running": status.word == "running",
        "status": status.word,
        "status_reason": status.reason,
        "last_heartbeat": format_time(status.last_heartbeat) if status.last_heartbeat is not None else None,
        "error": record.error,
        "ended": format_time(ended) if ended is not None else None,
        "duration_s": duration,
        "uploaded": record.is_uploaded,
    }


def text(record: Summary) -> str:
    """Return the text that is printed of an experiment, indented as deep as it stands in the list."""
    return fast_json.harmless(fast_json.dumps(listed(record), indented=True)).replace("\n", "\n  ")


# --- keeping them ---------------------------------------------------------------------------------------------------


def kept(record: Summary) -> bytes:
    """Return an experiment's text to be kept, with a checksum: it is printed without being read."""
    content = text(record).encode()
    return crc32(content).to_bytes(_CHECKSUM_BYTES) + content


def text_of(kept: bytes) -> str:
    """Return the text that was kept.

    Raises:
        ValueError: It is damaged.
    """
    content = kept[_CHECKSUM_BYTES:]
    if crc32(content) != int.from_bytes(kept[:_CHECKSUM_BYTES]):
        raise ValueError("what is kept of an experiment is damaged")
    return content.decode()


def details_of(kept: bytes) -> dict[str, Any]:
    """Return the details of a summary (see `summarize`) from the text that was kept.

    Raises:
        ValueError: It is damaged.
    """
    shown = fast_json.loads(text_of(kept).encode())
    return {"git": shown["git"], "best": shown["best_checkpoint"], "latest": shown["latest_checkpoint"]}
