"""The segments of a history: any points come back, whatever a killed process has left of the last one."""

from __future__ import annotations

import itertools
import math
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.exceptions import WriteError
from keepsake.repository import history, layout, verify
from keepsake.repository.copying import copy_experiments
from keepsake.repository.history import HistoryWriter, Point
from keepsake.repository.records import CheckpointRecord, ExperimentRecord
from keepsake.repository.repository import Repository
from keepsake.storage import DiskStorage, MemoryStorage

ID = "ab" * 32
NOW = datetime(2026, 11, 23, 4, 5, 6, 789, tzinfo=UTC)

numbers = st.floats() | st.integers(-(2**63), 2**63)
values: st.SearchStrategy[Any] = st.recursive(numbers | st.booleans(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
points = st.builds(
    Point,
    st.integers(0, 2**53),
    st.datetimes(timezones=st.just(UTC)),
    st.dictionaries(st.text(max_size=8), values, max_size=4),
)


def same(one: Any, other: Any) -> bool:
    """Tell whether values are the same; NaN is the same as NaN."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return type(one) is type(other) and one == other


def written(root: Path, *found: Point, after: int = 0) -> list[Path]:
    """Append points, and return the segments in the order in which they are read."""
    writer = HistoryWriter(root, ID, after=after)
    for point in found:
        writer.append(point)
    writer.close()
    return [root / key for key in Repository(DiskStorage(root)).history_keys(ID)]


def read(root: Path) -> list[Point]:
    return Repository(DiskStorage(root)).history(ID)


@given(st.lists(points, min_size=1, max_size=5))
def test_any_points_come_back(found: list[Point]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        written(Path(directory), *found)
        back = read(Path(directory))
        assert [(one.step, one.time) for one in back] == [(one.step, one.time) for one in found]
        assert all(same(one.metrics, other.metrics) for one, other in zip(back, found, strict=True))


@given(st.lists(points, min_size=1, max_size=4), st.data())
def test_of_a_line_that_was_cut_off_all_before_it_comes_back(found: list[Point], data: st.DataObject) -> None:
    lines = [point.to_line() for point in found]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    back = list(history.points_of(whole[:cut]))
    ends = [sum(map(len, lines[: i + 1])) for i in range(len(lines))]
    # The last byte of a line is its end, which the line can do without.
    assert len(back) == sum(end - 1 <= cut for end in ends)
    assert history.damaged_lines(whole[:cut]) == 0
    assert history.whole_lines(whole[:cut]) == whole[: max([end for end in ends if end <= cut], default=0)]


def test_a_line_that_makes_no_sense_costs_that_line_alone() -> None:
    good = Point(1, NOW, {"loss": 0.5}).to_line()
    bad = [
        b"nonsense\n",
        b"[]\n",
        b'{"step": "x", "time": "2026", "metrics": {}}\n',
        b'{"step": 1}\n',
        b'"' + b"\xff" * 3 + b'"\n',
    ]
    segment = good + b"".join(bad) + good
    assert len(list(history.points_of(segment))) == 2
    assert history.damaged_lines(segment) == len(bad)


@given(st.lists(points, max_size=8), st.lists(st.integers(0, 8), max_size=2))
def test_courses_are_the_columns_of_the_points(found: list[Point], cuts: list[int]) -> None:
    lines = [point.to_line() for point in found]
    ends = sorted({0, len(lines), *(min(cut, len(lines)) for cut in cuts)})
    segments = [b"".join(lines[start:end]) + b"not a point\n" for start, end in itertools.pairwise([*ends, len(lines)])]
    columns: dict[str, list[Any]] = {}
    for point in (Point.from_line(line) for line in lines):
        for name, value in point.metrics.items():
            columns.setdefault(name, []).append(value)
    assert repr(history.courses(segments, [])) == repr(columns)


def test_a_course_ends_with_what_came_last() -> None:
    lines = [Point(step, NOW + timedelta(seconds=step), {"loss": float(step), "lr": math.nan}).to_line() for step in range(3)]
    checkpoints = [
        CheckpointRecord(ID, NOW + timedelta(seconds=step), step, metrics={"loss": 10.0 * step, "val_loss": step})
        for step in (1, 2, 5)
    ]
    found = history.courses([b"".join(lines)], checkpoints)
    assert found.pop("lr") == pytest.approx([math.nan] * 3, nan_ok=True)
    assert found == {"loss": [0.0, 1.0, 2.0, 50.0], "val_loss": [1, 2, 5]}
    assert history.courses([], checkpoints) == {"loss": [10.0, 20.0, 50.0], "val_loss": [1, 2, 5]}
    assert history.courses([b'{"step":1,"time":5,"metrics":{"loss":3}}\n[]\n{"metrics":[1]}\n'], checkpoints[2:])["loss"] == [
        3,
        50.0,
    ]


def test_a_segment_ends_when_it_is_large_and_each_writer_begins_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "SEGMENT_BYTES", 200)
    made = [Point(step, NOW, {"loss": float(step)}) for step in range(10)]
    written(tmp_path, *made[:7])
    segments = written(tmp_path, *made[7:])
    assert len(segments) > 3
    assert all(path.stat().st_size <= 300 for path in segments)
    assert [history.order_of(path.name)[0] for path in segments] == list(range(1, len(segments) + 1))
    assert read(tmp_path) == made


def test_segments_that_lie_elsewhere_come_first(tmp_path: Path) -> None:
    [path] = written(tmp_path, Point(0, NOW, {}), after=41)
    assert path.name.startswith("000042-")


@contextmanager
def room_for(size_bytes: int) -> Iterator[None]:
    """Let files grow to a size and no further, as on a disk that is full."""
    earlier = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, earlier)


def test_a_point_that_finds_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path, ID)
    point = Point(0, NOW, {"loss": 0.25})
    writer.append(point)
    with room_for(len(point.to_line()) + 10), pytest.raises(WriteError):
        writer.append(Point(1, NOW, {"loss": 0.5}))
    writer.append(Point(2, NOW, {"loss": 0.75}))
    writer.close()
    assert [one.step for one in read(tmp_path)] == [0, 2]


def test_a_repository_that_has_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        HistoryWriter(tmp_path / "gone", ID).append(Point(0, NOW, {}))
    assert not (tmp_path / "gone").exists()


# --- as a part of a repository --------------------------------------------------------------------------------------


def with_history(root: Path) -> tuple[Repository, ExperimentRecord]:
    repository = Repository(DiskStorage(root))
    repository.prepare()
    record = ExperimentRecord(id=ID, created=NOW, outcome="finished")
    repository.save(record)
    written(root, Point(0, NOW, {"loss": 1.0}), Point(1, NOW, {"loss": 0.5}))
    return repository, record


def test_an_experiment_is_deleted_with_its_history(tmp_path: Path) -> None:
    repository, record = with_history(tmp_path)
    repository.delete_experiment(record)
    assert list(repository.storage.list(layout.METRICS_PREFIX)) == []


def test_an_experiment_is_copied_with_its_history_as_far_as_its_lines_are_whole(tmp_path: Path) -> None:
    repository, record = with_history(tmp_path)
    target = Repository(MemoryStorage())
    [key] = repository.history_keys(ID)
    with (tmp_path / key).open("ab") as file:
        file.write(b'{"step":2,"ti')
    assert copy_experiments(repository, target, [record]) == 1
    assert [one.step for one in target.history(ID)] == [0, 1]
    with (tmp_path / key).open("ab") as file:
        file.write(Point(2, NOW, {}).to_line()[len(b'{"step":2,"ti') :])
    assert copy_experiments(repository, target, [record]) == 1
    assert [one.step for one in target.history(ID)] == [0, 1, 2]
    assert copy_experiments(repository, target, [record]) == 0


def test_fsck_finds_lines_that_cannot_be_read(tmp_path: Path) -> None:
    repository, _ = with_history(tmp_path)
    assert verify.check(repository).findings == []
    [key] = repository.history_keys(ID)
    content = (tmp_path / key).read_bytes()
    (tmp_path / key).write_bytes(b"#" + content)
    [finding] = verify.check(repository).findings
    assert (finding.severity, finding.kind, finding.key) == ("damage", "history-damaged", key)
    assert verify.check(repository, quick=True).findings == []


def test_fsck_removes_a_history_that_belongs_to_nobody(tmp_path: Path) -> None:
    repository, record = with_history(tmp_path)
    [key] = repository.history_keys(ID)
    repository.storage.delete([layout.record_key(record.id)])
    [finding] = verify.check(repository).findings
    assert (finding.severity, finding.kind) == ("note", "orphan")
    os.utime(tmp_path / key, (0, 0))
    [finding] = verify.check(repository).findings
    assert finding.repair is not None
    finding.repair()
    assert verify.check(repository).findings == []


def test_a_foreign_file_beside_it_is_left_alone(tmp_path: Path) -> None:
    repository, _ = with_history(tmp_path)
    (tmp_path / "metrics" / "notes.txt").write_text("mine", encoding="utf-8")
    [finding] = verify.check(repository).findings
    assert (finding.severity, finding.kind, finding.key) == ("note", "foreign-file", "metrics/notes.txt")
