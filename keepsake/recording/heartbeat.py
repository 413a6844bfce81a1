"""The beat of a live experiment: a thread that says every few seconds that the process is alive."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from keepsake import messages

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S = 10.0
"""Seconds between two beats. Readers wait for three of them, which is 0.4.2's tolerance of 30 s."""


class HeartbeatThread:
    """Calls a function at once and then at every interval, until it is stopped or the process ends.

    A daemon thread: it never keeps the process alive. Threads do not survive a fork, so forked children never beat.

    Args:
        beat: Writes one beat; returns False when there is nothing to beat for any more. What it raises is reported once.
        interval_s: Seconds between two beats.
    """

    def __init__(self, beat: Callable[[], bool], interval_s: float = INTERVAL_S) -> None:
        self._beat = beat
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keepsake-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """End the beat; when this returns, no further beat will be written."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        failing = False
        while not self._stopped.wait(self._interval_s):
            try:
                if not self._beat():
                    return
                failing = False
            except Exception as err:  # noqa: BLE001 - nothing of ours may stop a training
                if not failing:
                    messages.warning(f"cannot write the heartbeat: {err}; other people may see this experiment as stopped")
                failing = True
