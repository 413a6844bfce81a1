"""Running work in several threads and in the calling one, and in that alone where no thread can be started.

`concurrent.futures` takes no work once the interpreter ends, and from Python 3.12 on no thread can be started then: the very moment at
which the last checkpoints are stored.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 8
"""More make nothing faster: the memory is the limit then."""


BYTES_A_THREAD = 2 << 20
"""Less is done before a thread has started."""


def threads_for(size_bytes: int, *, is_far: bool = False) -> int:
    """Return how many threads are worth their start for so much data, on the processors that this process may use.

    Args:
        size_bytes: How much data.
        is_far: Whether they will mostly wait for what comes from elsewhere, which needs no processor.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_THREADS, MAX_THREADS if is_far else cpus, size_bytes // BYTES_A_THREAD))


def run_together(work: Callable[[], None], give_up: Callable[[], None], *, threads: int) -> None:
    """Call a function in several threads at once, this one among them; raise the first error when all have ended.

    Args:
        work: What takes its share from something common until nothing is left.
        give_up: Makes the others end soon, after an error.
        threads: How many threads.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as err:  # noqa: BLE001 - raised in the calling thread
            errors.append(err)
            give_up()

    others = [threading.Thread(target=guarded, name="keepsake-archive", daemon=True) for _ in range(threads - 1)]
    started = [thread for thread in others if _has_started(thread)]
    guarded()
    try:
        for thread in started:
            thread.join()
    except BaseException:
        give_up()
        for thread in started:
            thread.join()
        raise
    if errors:
        raise errors[0]


def run_side_by_side(*jobs: Callable[[], None]) -> None:
    """Call functions, each in a thread of its own and the last in this one; raise the first error when all have ended."""
    waiting = list(jobs)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                job = waiting.pop()
            job()

    run_together(work, waiting.clear, threads=len(jobs))


def _has_started(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
