"""When the record of a live experiment is rewritten: soon after a change, and seldom enough to cost the training nothing."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_INTERVAL_S = 1.0
"""Shortest time between two rewritings: a reader on the same disk sees the journal anyway, one elsewhere is a second behind."""

MIN_PAUSE_FACTOR = 20
"""The pause after a rewriting in terms of its own duration, so that it takes up at most 5 % of the time, however large the record."""

RETRY_INTERVAL_S = 10.0
"""The pause after a rewriting that failed."""

SYNC_INTERVAL_S = 2.0
"""Where the pause is longer than this, the journal is synced meanwhile."""


class Publisher:
    """Calls for a rewriting in a background thread: at most one at a time, and one waiting.

    A daemon thread; whoever wants the last change published calls for it himself.

    Args:
        publish: Rewrites the record and tells whether it could; must not raise.
        sync: Syncs the journal; must not raise.
    """

    def __init__(self, publish: Callable[[], bool], sync: Callable[[], None]) -> None:
        self._publish = publish
        self._sync = sync
        self._changed = threading.Event()
        self._closed = threading.Event()
        # Reentrant, because a signal's handler may end an experiment while the same thread is in here.
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None

    def notify(self) -> None:
        """Say that there is something to publish."""
        with self._starting:
            if self._thread is None:
                # Each thread has an event of its own: one that was closed must not go on for the next.
                self._closed = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._closed,), name="keepsake-publisher", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    # The interpreter is about to end, and the last rewriting is done by the thread that ends it.
                    self._thread = None
        self._changed.set()

    def close(self) -> None:
        """End the thread, and wait for a rewriting in flight; a further change starts a new one."""
        with self._starting:
            thread, self._thread = self._thread, None
            self._closed.set()
            self._changed.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self, closed: threading.Event) -> None:
        while True:
            self._changed.wait()
            if closed.is_set():
                # What has changed since is for the next thread.
                return
            self._changed.clear()
            start = time.monotonic()
            if self._publish():
                self._pause(closed, max(MIN_INTERVAL_S, MIN_PAUSE_FACTOR * (time.monotonic() - start)))
            else:
                self._pause(closed, RETRY_INTERVAL_S)
                self._changed.set()

    def _pause(self, closed: threading.Event, pause_s: float) -> None:
        end = time.monotonic() + pause_s
        while (left_s := end - time.monotonic()) > 0:
            if closed.wait(min(left_s, SYNC_INTERVAL_S)):
                return
            self._sync()
