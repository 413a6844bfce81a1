"""Jobs that a training need not wait for, done one after the other in a background thread."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


INTERRUPTIBLE_S = 0.5
"""How long to wait at a time: a signal that comes just before a wait begins is handled only when it is over."""


class Worker:
    """Does jobs in the order in which they come.

    The thread is a daemon: it never keeps the process alive, so whoever wants the jobs done before the end calls `drain`. Where no
    thread can be started any more, as at the end of the interpreter, `drain` does the jobs itself.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_busy = False

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job done; it must report its failures itself."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None

    def cancel(self) -> None:
        """Forget the jobs that have not begun, and wait for the one that has."""
        with self._changed:
            self._jobs.clear()
        self.drain()

    def close(self) -> None:
        """End the thread when no job is left; a further job starts a new one."""
        with self._changed:
            self._thread = None
            self._changed.notify_all()

    def drain(self, wait_s: float | None = None) -> bool:
        """Wait until all jobs are done.

        Args:
            wait_s: How long to wait at most, in seconds; None for as long as it takes.

        Returns:
            Whether all are done.
        """
        if self._thread is threading.current_thread():
            return False
        if self._thread is None and not self._is_busy:
            while self._jobs:
                self._jobs.popleft()()
            return True
        end = time.monotonic() + wait_s if wait_s is not None else math.inf
        with self._changed:
            while not (is_done := not self._jobs and not self._is_busy) and (left_s := end - time.monotonic()) > 0:
                self._changed.wait(min(left_s, INTERRUPTIBLE_S))
        return is_done

    def _run(self) -> None:
        thread = threading.current_thread()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._jobs) or self._thread is not thread)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                self._is_busy = True
            try:
                job()
            finally:
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()
