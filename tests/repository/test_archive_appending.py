"""A file is written from its beginning to its end out of bytes and of other files, whatever the system can and cannot do for it."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.repository.archive import appending, files, preallocation, splicing
from keepsake.repository.archive.appending import Appender
from keepsake.repository.archive.preallocation import WORTH_BYTES

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="only there files are spliced, and have their place allocated before"
)

CONTENT = os.urandom(3_000_000)


@dataclass(frozen=True)
class Held:
    """A file that can be appended from."""

    file: IO[bytes]

    def fileno(self) -> int:
        return self.file.fileno()

    def read(self, view: memoryview, start: int) -> None:
        if files.read_at(self.fileno(), view, start) < len(view):
            raise EOFError


@contextmanager
def held(content: bytes) -> Iterator[Held]:
    """A file, which is the same in the end."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(content)
        yield Held(file)
        file.seek(0)
        assert file.read() == content


@pytest.fixture
def source() -> Iterator[Held]:
    with held(CONTENT) as source:
        yield source


def count_open() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def parts_of(lengths: Sequence[int], before: bytes = b"before") -> list[tuple[bytes, int]]:
    return [(before + bytes([number % 256]), length) for number, length in enumerate(lengths)]


def joined(content: bytes, start: int, parts: Sequence[tuple[bytes, int]]) -> bytes:
    """What is written of some parts."""
    written = bytearray()
    for before, length in parts:
        written += before + content[start : start + length]
        start += length
    return bytes(written)


# --- bytes ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 50), st.integers(0, 600))
def test_what_is_appended_is_written_in_calls_that_end_at_multiples(
    buffers: list[bytes], call_bytes: int, expected_bytes: int
) -> None:
    content, ends = bytearray(), []

    def some(descriptor: int, views: list[bytes], start: int) -> int:
        assert start == len(content)
        content.extend(b"".join(views))
        ends.append(len(content))
        return len(content) - start

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appending, "write_some", some)
        patch.setattr(appending, "CALL_BYTES", call_bytes)
        with Appender(-1, expected_bytes) as appender:
            for number, buffer in enumerate(buffers):
                appender.append([buffer])
                assert 0 <= sum(map(len, buffers[: number + 1])) - appender.end < call_bytes
    assert content == b"".join(buffers)
    assert appender.end == len(content)
    assert all(end % call_bytes == 0 for end in ends[:-1])


def test_more_small_buffers_than_one_call_takes_are_appended(tmp_path: Path) -> None:
    buffers = [os.urandom(3) for _ in range(3 * files.MAX_BUFFERS + 5)]
    with (tmp_path / "file").open("wb") as file, Appender(file.fileno(), 0) as appender:
        appender.append(buffers)
    assert (tmp_path / "file").read_bytes() == b"".join(buffers)


def test_a_call_that_takes_less_than_it_is_given_is_followed_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "write_some", lambda descriptor, buffers, start: os.pwrite(descriptor, buffers[0][:1], start))
    with (tmp_path / "file").open("wb") as file, Appender(file.fileno(), 0) as appender:
        appender.append([b"one", memoryview(b"two"), b"three"])
    assert (tmp_path / "file").read_bytes() == b"onetwothree"


@linux_only
def test_what_was_allocated_and_is_not_used_is_given_back(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        with Appender(file.fileno(), 2 * WORTH_BYTES) as appender:
            appender.append([bytes(2 * files.CALL_BYTES)])
            assert os.fstat(file.fileno()).st_blocks * 512 >= WORTH_BYTES
            assert os.fstat(file.fileno()).st_size == 2 * files.CALL_BYTES
        assert os.fstat(file.fileno()).st_blocks * 512 < WORTH_BYTES
    assert (tmp_path / "file").stat().st_size == 2 * files.CALL_BYTES


def test_without_room_to_allocate_it_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that knows no such thing, or on a full disk: writing says what is the matter."""
    monkeypatch.setattr(preallocation, "_fallocate", lambda: lambda *_: -1)
    with (tmp_path / "file").open("wb") as file, Appender(file.fileno(), 2 * WORTH_BYTES) as appender:
        appender.append([b"content" * files.CALL_BYTES])
    assert (tmp_path / "file").read_bytes() == b"content" * files.CALL_BYTES


# --- other files ----------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.binary(min_size=1, max_size=200_000),
    st.tuples(st.integers(0, 1_000_000), st.lists(st.integers(0, 70_000), max_size=20)),
)


@given(st.lists(STEPS, max_size=6), st.sampled_from([1_000, 65_536, 100_001, 262_144]), st.booleans())
def test_bytes_and_parts_of_files_come_in_their_order(
    steps: list[bytes | tuple[int, list[int]]], call_bytes: int, has_pipe: bool
) -> None:
    expected = bytearray()
    with tempfile.TemporaryFile() as file, held(CONTENT) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(appending, "CALL_BYTES", call_bytes)
        if not has_pipe:
            patch.setattr(appending, "open_pipe", lambda: None)
        with Appender(file.fileno(), 0) as appender:
            for step in steps:
                if isinstance(step, bytes):
                    appender.append([step])
                    expected += step
                else:
                    parts = parts_of(step[1])
                    appender.append_from(source, step[0], parts)
                    expected += joined(CONTENT, step[0], parts)
                assert len(expected) - call_bytes < appender.end <= len(expected)
        assert appender.end == len(expected)
        assert file.read() == expected


SPLICED = parts_of([65_535] * 15)


def failing(after: int, error: OSError) -> Callable[..., int]:
    """A system that splices some times and then not any more."""
    left, splice = iter(range(after)), os.splice

    def spliced(*arguments: int, **options: int) -> int:
        if next(left, None) is None:
            raise error
        return splice(*arguments, **options)

    return spliced


@linux_only
@pytest.mark.parametrize("after", [*range(12), 29, 30, 31, 32, 33])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EAGAIN, errno.EPERM])
def test_where_files_cannot_be_spliced_they_are_read(
    after: int, number: int, source: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count_open()
    monkeypatch.setattr(os, "splice", failing(after, OSError(number, "cannot")))
    with (tmp_path / "file").open("wb") as file, Appender(file.fileno(), 0) as appender:
        for _ in range(2):
            appender.append([b"between"])
            appender.append_from(source, 7, SPLICED)
    assert (tmp_path / "file").read_bytes() == 2 * (b"between" + joined(CONTENT, 7, SPLICED))
    assert count_open() == before


@linux_only
@pytest.mark.parametrize("most", [3, 4_096, 70_000])
def test_a_splice_that_takes_less_than_it_is_given_is_followed_by_others(
    most: int, source: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splice, calls, parts = os.splice, [], parts_of([1, 0, 5_000, 65_535 if most > 3 else 50])

    def some(source: int, target: int, count: int, **options: int) -> int:
        calls.append(count)
        return splice(source, target, min(count, most), **options)

    monkeypatch.setattr(os, "splice", some)
    with (tmp_path / "file").open("wb") as file, Appender(file.fileno(), 0) as appender:
        appender.append_from(source, 0, parts)
    assert (tmp_path / "file").read_bytes() == joined(CONTENT, 0, parts)
    assert len(calls) > 2 * len(parts)


@linux_only
def test_a_pipe_that_is_too_small_is_no_pipe(source: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a user has so many that the system gives no larger ones."""
    monkeypatch.setattr(splicing, "_ROOM_BYTES", 4_096)
    with (tmp_path / "file").open("wb") as file, Appender(file.fileno(), 0) as appender:
        appender.append_from(source, 0, SPLICED)
    assert (tmp_path / "file").read_bytes() == joined(CONTENT, 0, SPLICED)


@linux_only
@pytest.mark.parametrize("name", ["pipe", "set_blocking"])
def test_without_pipes_files_are_read_and_nothing_stays_open(
    name: str, source: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    before = count_open()
    monkeypatch.setattr(os, name, refuse)
    with (tmp_path / "file").open("wb") as file, Appender(file.fileno(), 0) as appender:
        appender.append_from(source, 0, SPLICED)
    assert (tmp_path / "file").read_bytes() == joined(CONTENT, 0, SPLICED)
    assert count_open() == before


@linux_only
@pytest.mark.parametrize("has_pipe", [True, False])
def test_an_error_of_the_source_is_its_own_and_nothing_stays_open(
    has_pipe: bool, source: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_pipe:
        monkeypatch.setattr(appending, "open_pipe", lambda: None)
    before = count_open()
    with (tmp_path / "file").open("wb") as file, pytest.raises(EOFError), Appender(file.fileno(), 0) as appender:
        appender.append_from(source, len(CONTENT) - 100, parts_of([50, 51]))
    assert count_open() == before


@linux_only
def test_an_error_of_the_disk_is_its_own(source: Held) -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
        Appender(file.fileno(), 0) as appender,
    ):
        appender.append_from(source, 0, SPLICED)


@linux_only
def test_nothing_is_ever_written_into_a_pipe_that_holds_parts_of_files(
    source: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels without the mend of CVE-2022-0847 would write it into the file."""
    splice, write, spliced_into, written_into = os.splice, os.write, set(), set()

    def splicing_in(source_descriptor: int, target: int, count: int, **options: int) -> int:
        if source_descriptor == source.fileno():
            spliced_into.add(target)
        return splice(source_descriptor, target, count, **options)

    def writing(descriptor: int, content: bytes) -> int:
        written_into.add(descriptor)
        return write(descriptor, content)

    monkeypatch.setattr(os, "splice", splicing_in)
    monkeypatch.setattr(os, "write", writing)
    with (tmp_path / "file").open("wb") as file, Appender(file.fileno(), 0) as appender:
        for _ in range(3):
            appender.append_from(source, 0, SPLICED)
    assert spliced_into
    assert not spliced_into & written_into
