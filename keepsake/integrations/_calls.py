"""Noticing that a framework's fit has been left without an end: some frameworks call nobody when an exception or Ctrl-C ends it.

Without this, a notebook in which a training failed would go on saying that it runs.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from keepsake.repository.status import Outcome

Ending = tuple["Outcome", "BaseException | str | None"]

UNKNOWN_END = "the training was left without an end, as by an exception that was caught"


class CallWatch:
    """Tells how a training has ended that runs in the calling thread now; called as `Experiment.watch` wants it.

    Holds the frame of the call, and with it what is trained: forget it with the training. By its code alone one call could not be told
    from the next.

    Args:
        package: The framework.
        function: Its function that trains; of several on the stack, one inside the other, the outermost counts. Where there is none,
            nothing is watched.
    """

    def __init__(self, package: str, function: str) -> None:
        self._thread = threading.get_ident()
        self._call = _outermost(sys._getframe(1), package, function)
        self._error_before = _last_error()
        self._is_over = False

    @property
    def is_running(self) -> bool:
        """Whether the call that is watched has not been left."""
        return self._call is not None and any(frame is self._call for frame in _frames(sys._current_frames().get(self._thread)))

    def __call__(self) -> Ending | None:
        """Return how the training has ended; None while it goes on."""
        if not self._is_over and (self._call is None or self.is_running):
            return None
        self._is_over, self._call = True, None
        error = _last_error()
        if error is None or error is self._error_before:
            return "failed", UNKNOWN_END
        return ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed"), error


def _outermost(frame: FrameType | None, package: str, function: str) -> FrameType | None:
    found = None
    for one in _frames(frame):
        if one.f_code.co_name == function and one.f_globals.get("__name__", "").partition(".")[0] == package:
            found = one
    return found


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _last_error() -> BaseException | None:
    """Return what an interactive session, or the end of a program, has reported last."""
    error: object = getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None
