"""Extracting archives without an index: one thread reads while another one writes."""

from __future__ import annotations

import gzip
import io
import os
import random
import sys
import tarfile
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keepsake.exceptions import ReadError, WriteError
from keepsake.repository import archive
from keepsake.repository.archive import preallocation, stream, threads, unpacking
from keepsake.repository.archive.extraction import Extraction
from keepsake.repository.archive.spaces import Spaces
from tests.archives import Held

ID = "a" * 64
LARGE_BYTES = 5 * stream.CHUNK_BYTES + 7


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two threads share the work, also where this machine has one processor."""
    monkeypatch.setattr(unpacking, "threads_for", lambda size_bytes, **_: unpacking.STREAM_THREADS)


def tar_of(contents: dict[str, bytes]) -> bytes:
    """Return a tar.gz as another program makes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{ID}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def some_contents(count: int = 40) -> dict[str, bytes]:
    values = random.Random(1)
    contents = {f"some/{number}.bin": values.randbytes(values.choice([0, 1, 700, 70_000])) for number in range(count)}
    return contents | {"large.bin": values.randbytes(LARGE_BYTES), "zeros.bin": bytes(LARGE_BYTES)}


def test_all_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    contents = some_contents()
    written: list[int] = []
    archive.extract(Held(tar_of(contents)), tmp_path, on_progress=written.append)
    assert {
        path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    } == contents
    assert sum(written) == sum(map(len, contents.values()))


def test_memory_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    take = Spaces.take

    def noticed(spaces: Spaces, size_bytes: int) -> memoryview:
        space = take(spaces, size_bytes)
        if not any(space.obj is known for known in taken):
            taken.append(space.obj)
        return space

    monkeypatch.setattr(Spaces, "take", noticed)
    archive.extract(Held(tar_of({"large.bin": bytes(40 * stream.CHUNK_BYTES)})), tmp_path)
    assert len(taken) <= unpacking.STREAM_THREADS + 2 * unpacking.WAITING_WRITES


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_of_an_archive_that_was_cut_nothing_is_left(left: float, tmp_path: Path) -> None:
    content = tar_of(some_contents())
    with pytest.raises(ReadError, match="damaged"):
        archive.extract(Held(content[: int(left * len(content))]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_writing_fails_both_threads_end_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def refuse(descriptor: int, buffers: object, start: int) -> None:
        calls.append(threading.get_ident())
        if len(calls) == 3:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(unpacking, "write_at", refuse)
    with pytest.raises(WriteError, match="no space left"):
        archive.extract(Held(tar_of(some_contents())), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "keepsake-archive"]


def test_nothing_is_left_of_a_directory_that_two_threads_wanted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = archive.ArchivedFile("some", 0, 0o755, datetime.fromtimestamp(0, UTC), "directory", None)
    file = archive.ArchivedFile("some/file", 1, 0o644, datetime.fromtimestamp(0, UTC), "file", None)
    mkdir = Path.mkdir
    extraction = Extraction(tmp_path)

    def slow(path: Path) -> None:
        mkdir(path)
        monkeypatch.setattr(Path, "mkdir", mkdir)
        # Here the other thread comes along.
        extraction.create(file).close()

    monkeypatch.setattr(Path, "mkdir", slow)
    with suppress(ReadError), extraction:
        extraction.write_empty(directory)
        raise ReadError("damaged")
    assert list(tmp_path.iterdir()) == []


def test_one_thread_does_both_where_no_other_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_has_started", lambda thread: False)
    contents = some_contents()
    archive.extract(Held(tar_of(contents)), tmp_path)
    assert (tmp_path / "large.bin").read_bytes() == contents["large.bin"]


@pytest.mark.skipif(sys.platform != "linux", reason="only there a file's place is allocated before")
def test_no_more_is_allocated_than_there_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header may claim any size: that must not fill the disk."""
    allocated, allocate = [], unpacking.preallocate

    def noticed(descriptor: int, start: int, size_bytes: int) -> None:
        allocated.append((start, size_bytes))
        allocate(descriptor, start, size_bytes)

    monkeypatch.setattr(unpacking, "preallocate", noticed)
    tar = io.BytesIO()
    member = tarfile.TarInfo(f"{ID}/huge.bin")
    member.size = 1 << 50
    tar.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(LARGE_BYTES))
    with pytest.raises(ReadError, match="damaged"):
        archive.extract(Held(gzip.compress(tar.getvalue())), tmp_path)
    assert allocated == [(0, preallocation.STEP_BYTES)]
    assert list(tmp_path.iterdir()) == []


def test_a_space_begins_with_a_page_and_is_large_enough() -> None:
    spaces = Spaces()
    assert len(spaces.take(0)) == 0
    small = spaces.take(10)
    spaces.give_back(small)
    large = spaces.take(100_000)
    assert (len(small), len(large)) == (10, 100_000)
    large[:] = bytes(len(large))
    spaces.give_back(memoryview(b"not from here"))
    assert spaces.take(1).obj is not large.obj
