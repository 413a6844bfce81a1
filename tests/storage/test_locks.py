"""A lock is held by one, until it is given back or its process ends, however it ends."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from keepsake.storage.locks import ProcessLock, machine_id
from tests.conftest import Script

HOLDER = """
    import sys
    from pathlib import Path
    from keepsake.storage.locks import ProcessLock

    print(ProcessLock(Path({path!r})).acquire(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_one_holds_it(path: Path) -> None:
    first, second = ProcessLock(path), ProcessLock(path)
    assert first.acquire()
    assert first.is_real
    assert not second.acquire()
    assert not first.acquire()
    first.release()
    assert not path.exists()
    assert second.acquire()
    second.release(remove=False)
    assert path.exists()


def test_giving_back_what_is_not_held_does_nothing(path: Path) -> None:
    holder, other = ProcessLock(path), ProcessLock(path)
    assert holder.acquire()
    other.release()
    assert not ProcessLock(path).acquire()
    holder.release()
    holder.release()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_death_of_its_process_frees_it(path: Path, script: Callable[..., Script], number: signal.Signals) -> None:
    holder = script(HOLDER.format(path=str(path)))
    assert holder.line() == "True"
    lock = ProcessLock(path)
    assert not lock.acquire()
    holder.process.send_signal(number)
    holder.process.wait()
    assert lock.acquire()
    lock.release()


def test_a_forked_child_neither_has_it_nor_keeps_it(path: Path, script: Callable[..., Script]) -> None:
    holder = script(
        f"""
        import os, sys, time
        from pathlib import Path
        from keepsake.storage.locks import ProcessLock

        lock = ProcessLock(Path({str(path)!r}))
        lock.acquire()
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.write(write_end, str(ProcessLock(Path({str(path)!r})).acquire()).encode())
            sys.stdin.read()  # outlives its parent
            os._exit(0)
        print(os.read(read_end, 100).decode(), flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    assert holder.line() == "False"
    holder.process.wait()
    assert ProcessLock(path).acquire()


def test_waiting_for_it(path: Path) -> None:
    lock, waiting = ProcessLock(path), ProcessLock(path)
    assert lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    assert waiting.acquire(wait_s=60)
    thread.join()
    waiting.release()


def _count(path: Path, rounds: int) -> None:
    for _ in range(rounds):
        lock = ProcessLock(path)
        assert lock.acquire(wait_s=60)
        counter = path.with_name("counter")
        counter.write_text(str(int(counter.read_text()) + 1))
        lock.release()


def test_many_processes_and_threads_take_turns(path: Path) -> None:
    path.with_name("counter").write_text("0")
    processes = [multiprocessing.get_context("spawn").Process(target=_count, args=(path, 50)) for _ in range(3)]
    threads = [threading.Thread(target=_count, args=(path, 50)) for _ in range(3)]
    for one in (*processes, *threads):
        one.start()
    for one in (*processes, *threads):
        one.join()
    assert path.with_name("counter").read_text() == "300"


def test_a_file_that_was_replaced_is_not_taken_for_the_lock(path: Path, script: Callable[..., Script]) -> None:
    """Its holder removes the file while it holds it; whoever had opened that file already has a lock on nothing."""
    assert ProcessLock(path).acquire()
    path.unlink()
    holder = script(HOLDER.format(path=str(path)))
    assert holder.line() == "True"


def test_the_machine_has_a_name() -> None:
    assert machine_id() == machine_id() != ""


def test_no_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ProcessLock(tmp_path / "nowhere" / "lock").acquire()
    assert list(tmp_path.iterdir()) == []
