"""The history of an experiment: its metrics at points between checkpoints, of which there may be millions.

A point is one line, appended to a file that is never rewritten in a repository on disk; after `SEGMENT_BYTES` a new file is begun, and so
does each process that goes on with the experiment. The bytes are described in ``docs/format.md``.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from keepsake.exceptions import WriteError
from keepsake.repository import fast_json
from keepsake.repository.json_values import decode_value, encode_value, format_time, parse_time
from keepsake.repository.layout import metrics_prefix
from keepsake.storage.disk import disk_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from keepsake.exceptions import StorageError
    from keepsake.repository.records import CheckpointRecord

SEGMENT_BYTES = 4 << 20
"""Size from which on a new segment is begun: a store takes objects whole, so the one that grows is uploaded again and again."""


@dataclass(frozen=True, slots=True)
class Point:
    """The metrics at one moment of a training.

    Args:
        step: Number of the step, not negative.
        time: When they were logged, in UTC.
        metrics: Values by name, as `keepsake.values` leaves them.
    """

    step: int
    time: datetime
    metrics: dict[str, Any]

    def to_line(self) -> bytes:
        """Return the line that stands for it."""
        content = {"step": self.step, "time": format_time(self.time), "metrics": encode_value(self.metrics)}
        try:
            return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            # What only the fast encoder refuses, such as a number of more than 64 bits.
            return fast_json.dumps(content).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Point:
        """Read a line; raises `ValueError`, `KeyError`, `TypeError` or `OverflowError` where it is none."""
        content = json.loads(line)
        step, metrics = content["step"], decode_value(content["metrics"])
        if not isinstance(step, int) or not isinstance(metrics, dict):
            raise ValueError(f"no point: {line!r:.80}")
        return cls(step, parse_time(content["time"]), metrics)


def points_of(segment: bytes) -> Iterator[Point]:
    """Yield the points of a segment, without lines that are not whole: the process may have been killed while it wrote the last one."""
    for line in segment.split(b"\n"):
        with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            yield Point.from_line(line)


def courses(segments: Iterable[bytes], checkpoints: Sequence[CheckpointRecord]) -> dict[str, list[Any]]:
    """Return the values of each metric, oldest first, without their steps and times: what a page needs of millions of points.

    Of a metric that was logged as well as given to checkpoints, only those values of checkpoints are taken that came after what was logged.

    Args:
        segments: The segments of the history, in their order.
        checkpoints: The checkpoints, oldest first.
    """
    found: dict[str, list[Any]] = {}
    logged: dict[str, str] = {}
    for segment in segments:
        for line in segment.split(b"\n"):
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                content = _loaded(line)
                for name, value in content["metrics"].items():
                    found.setdefault(name, []).append(value if isinstance(value, float) else decode_value(value))
                    logged[name] = content["time"]
    last = {name: _time_or_none(time) for name, time in logged.items()}
    for checkpoint in checkpoints:
        for name, value in checkpoint.metrics.items():
            after = last.get(name)
            if after is None or checkpoint.created > after:
                found.setdefault(name, []).append(value)
    return found


def _loaded(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # What only the fast decoder refuses, such as half a surrogate pair, is no damage.
        return json.loads(line)


def _time_or_none(text: Any) -> datetime | None:
    with suppress(ValueError, TypeError, AttributeError, OverflowError):
        return parse_time(text)
    return None


def damaged_lines(segment: bytes) -> int:
    """Return how many lines of a segment are no points, not counting one at the end that was cut off."""
    *lines, _ = segment.split(b"\n")
    return len(lines) - sum(1 for _ in points_of(b"\n".join(lines)))


def whole_lines(segment: bytes) -> bytes:
    """Return a segment without a line at the end that is still being written."""
    return segment[: segment.rfind(b"\n") + 1]


def order_of(key: str) -> tuple[int, str]:
    """Return what segments are to be sorted by, so that their points come in the order in which they were logged."""
    name = key.rpartition("/")[2]
    number = name.partition("-")[0].partition(".")[0]
    return int(number) if number.isdecimal() else 0, name


class HistoryWriter:
    """Appends to the history of an experiment that this process records, in a repository on disk.

    A point that was appended outlives the process; a power cut may cost those since the last `sync`. Not for several threads.

    Args:
        root: The repository's directory.
        experiment_id: The experiment.
        after: The highest number of a segment that lies elsewhere.
    """

    def __init__(self, root: Path, experiment_id: str, *, after: int = 0) -> None:
        self._root = root
        self._prefix = metrics_prefix(experiment_id)
        self._number = after
        self._descriptor: int | None = None
        self._size_bytes = 0
        self._is_synced = True

    @property
    def is_synced(self) -> bool:
        """Whether nothing was appended since the last `sync`."""
        return self._is_synced

    def append(self, point: Point) -> None:
        """Add a point, whole or not at all.

        Raises:
            WriteError: There is no room, or the directory cannot be written.
        """
        line, written = point.to_line(), 0
        try:
            if self._descriptor is None or self._size_bytes >= SEGMENT_BYTES:
                self._descriptor = self._next_segment()
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as err:
            if self._descriptor is not None:
                # What is there of it would run into the next line.
                with suppress(OSError):
                    os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise self._error(err) from err
        self._size_bytes += len(line)
        self._is_synced = False

    def _next_segment(self) -> int:
        self.close()
        directory = self._root / self._prefix
        # Not the root: where it has gone, such as a file system that is not mounted any more, a new one would be hidden later.
        directory.parent.mkdir(exist_ok=True)
        directory.mkdir(exist_ok=True)
        self._number = max([self._number, *(order_of(path.name)[0] for path in directory.iterdir())]) + 1
        # Drawn in part: a process on another machine, which does not see this directory, may be at the same number.
        path = directory / f"{self._number:06d}-{os.urandom(4).hex()}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        self._size_bytes = 0
        return os.open(path, flags, 0o666)

    def sync(self) -> None:
        """Make what was appended outlive a power cut; does nothing if it does already."""
        if self._descriptor is not None and not self._is_synced:
            self._is_synced = True
            with suppress(OSError):
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the present segment; a further point begins a new one."""
        if self._descriptor is not None:
            self.sync()
            os.close(self._descriptor)
            self._descriptor = None

    def _error(self, err: OSError) -> StorageError:
        return disk_error(err, WriteError, "write", self._prefix, self._root)
