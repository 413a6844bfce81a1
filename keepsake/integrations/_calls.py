"""Noticing that a framework's fit has been left without an end: some frameworks call nobody when an exception or Ctrl-C ends it.

Without this, a notebook in which a training failed would go on saying that it runs.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from keepsake.repository.status import Outcome

Ending = tuple["Outcome", "BaseException | str | None"]

UNKNOWN_END = "the training was left without an end, as by an exception that was caught"


def call_watch(package: str, function: str) -> Callable[[], Ending | None]:
    """Return what tells how a training has ended that runs in the calling thread now, and None while it goes on.

    Holds no frame, so that nothing of the training is kept alive by it.

    Args:
        package: The framework.
        function: Its function that trains; of several on the stack, one inside the other, the outermost counts.
    """
    thread = threading.get_ident()
    code = _outermost(sys._getframe(1), package, function)
    before = _last_error()

    def ending() -> Ending | None:
        if code is None or any(frame.f_code is code for frame in _frames(sys._current_frames().get(thread))):
            return None
        error = _last_error()
        if error is None or error is before:
            return "failed", UNKNOWN_END
        return ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed"), error

    return ending


def _outermost(frame: FrameType | None, package: str, function: str) -> CodeType | None:
    found = None
    for one in _frames(frame):
        if one.f_code.co_name == function and one.f_globals.get("__name__", "").partition(".")[0] == package:
            found = one.f_code
    return found


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _last_error() -> BaseException | None:
    """Return what an interactive session, or the end of a program, has reported last."""
    error: object = getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None
