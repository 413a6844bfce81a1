"""Several threads that write to one file, of which one writes at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake.repository.archive import files
from keepsake.repository.archive.files import WriteQueue, write_at
from keepsake.repository.archive.threads import run_together


def put_together(queue: WriteQueue[int], items: Iterable[int]) -> None:
    """Let four threads put items into a queue."""
    left, taking = iter(items), threading.Lock()

    def work() -> None:
        while True:
            with taking:
                item = next(left, None)
            if item is None:
                return
            queue.put(item)

    run_together(work, queue.give_up, threads=4)


def test_one_writes_while_others_go_on_and_all_is_written() -> None:
    turns, inside, written = threading.Lock(), [], []

    def write(items: Sequence[int]) -> None:
        assert turns.acquire(blocking=False), "two threads write at once"
        inside.append(threading.get_ident())
        written.extend(items)
        turns.release()

    put_together(WriteQueue(write, room=2), range(2_000))
    assert sorted(written) == list(range(2_000))


def test_who_finds_another_writing_leaves_its_item_and_goes_on() -> None:
    is_writing, may_end, written = threading.Event(), threading.Event(), []

    def write(items: Sequence[str]) -> None:
        is_writing.set()
        may_end.wait(60)
        written.append(list(items))

    queue = WriteQueue(write, room=2)
    first = threading.Thread(target=queue.put, args=("first",))
    first.start()
    is_writing.wait(60)
    queue.put("second")
    queue.put("third")
    assert written == []
    may_end.set()
    first.join()
    assert written == [["first"], ["second", "third"]]


def test_after_an_error_nothing_is_written_and_nobody_waits() -> None:
    written: list[int] = []

    def write(items: Sequence[int]) -> None:
        if 3 in items:
            raise OSError("no space left")
        written.extend(items)

    queue = WriteQueue(write, room=1)
    with pytest.raises(OSError, match="no space"):
        put_together(queue, range(100))
    assert 3 not in written
    before = list(written)
    queue.put(1000)
    assert written == before


@given(st.lists(st.binary(max_size=20), max_size=12), st.integers(1, 7))
def test_a_call_that_takes_less_than_it_is_given_is_followed_by_others(buffers: list[bytes], most: int) -> None:
    content, calls = bytearray(1000), []

    def some(descriptor: int, views: list[bytes], start: int) -> int:
        taken = b"".join(bytes(view) for view in views)[:most]
        content[start : start + len(taken)] = taken
        calls.append(len(taken))
        return len(taken)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_some", some)
        write_at(-1, buffers, 5)
    assert content[5 : 5 + sum(map(len, buffers))] == b"".join(buffers)
    assert len(calls) <= max(1, sum(map(len, buffers)))


def test_more_buffers_than_one_call_takes_are_written(tmp_path) -> None:
    buffers = [os.urandom(3) for _ in range(files.MAX_BUFFERS + 5)]
    with (tmp_path / "file").open("wb") as file:
        write_at(file.fileno(), buffers, 0)
    assert (tmp_path / "file").read_bytes() == b"".join(buffers)
