"""How a process ends, told to the recorders that are live: normal end, uncaught exception, Ctrl-C, SIGTERM, fork.

Installed with the first live recorder of a process, and only where it takes nothing away: a signal's earlier handler is
called as before, and one that the program ignores stays ignored.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from keepsake.recording import cells

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from keepsake.repository.status import Outcome

TERMINATION_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a process politely: a scheduler's preemption or time limit, a closed terminal."""


class Ending(Protocol):
    """What is told when the process ends."""

    def finish(self, outcome: Outcome, error: BaseException | str | None = None) -> None:
        """Record the outcome; must not raise and may be called again."""

    def abandon(self) -> None:
        """Stop without recording anything more."""


_live: list[Ending] = []
_earlier: dict[int, Callable[[int, FrameType | None], Any] | int] = {}
_last_exception: BaseException | None = None
_received: signal.Signals | None = None
_busy = 0
_deferred: signal.Signals | None = None
_atexit_registered = False
_forking = threading.local()


def register(recorder: Ending) -> None:
    """Tell this recorder when the process ends."""
    global _atexit_registered, _last_exception
    _live.append(recorder)
    if not _atexit_registered:
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before_fork, after_in_parent=_restore_mask, after_in_child=_after_fork_in_child)
        _last_exception = _uncaught()
        _atexit_registered = True
    _install_handlers()


def unregister(recorder: Ending) -> None:
    """Forget a recorder; with the last one the signals' earlier handlers come back."""
    if recorder in _live:
        _live.remove(recorder)
    if not _live:
        _remove_handlers()


def live() -> list[Ending]:
    """Return who will be told when the process ends."""
    return _live.copy()


class Uninterrupted:
    """Puts off termination signals until the block is left, so that none arrives in the middle of our own writing."""

    def __enter__(self) -> None:
        global _busy
        # Python delivers signals to the main thread only.
        self._counts = threading.current_thread() is threading.main_thread()
        _busy += self._counts

    def __exit__(self, *_: object) -> None:
        global _busy, _deferred
        _busy -= self._counts
        if self._counts and not _busy and _deferred is not None:
            signum, _deferred = _deferred, None
            _on_signal(signum, None)


# --- the end of the interpreter -------------------------------------------------------------------------------------


def _at_exit() -> None:
    exception = _uncaught()
    try:
        for recorder in live():
            if exception is not None and exception is not _last_exception:
                recorder.finish("interrupted" if isinstance(exception, KeyboardInterrupt) else "failed", exception)
            elif _received is not None:
                recorder.finish("interrupted", _received.name)
            else:
                recorder.finish(*cells.ending_of(recorder))
    except KeyboardInterrupt:
        # The person does not want to wait for what is still being stored, and has been told where it is.
        pass


def _uncaught() -> BaseException | None:
    """Return the exception that ended the program.

    The interpreter leaves it in ``sys.last_value`` before it calls ``sys.excepthook``, whoever replaced that hook. An
    interactive session puts each failed statement there and lives on, so there it says nothing about the end.
    """
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return None
    last: object = getattr(sys, "last_value", None)
    return last if isinstance(last, BaseException) else None


# --- fork -----------------------------------------------------------------------------------------------------------


def _before_fork() -> None:
    # What reaches the child before it has the handlers of a child waits: ours would take it, and nobody would die of it.
    if hasattr(signal, "pthread_sigmask"):
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINATION_SIGNALS)


def _restore_mask() -> None:
    if (mask := getattr(_forking, "mask", None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    # The child inherits the recorders but they are the parent's: it must not record their end. Nor do its signals concern us, and a
    # handler of Python's is worse than none where it waits in C code: a pool that ends its workers would wait for them for ever.
    global _busy, _deferred
    _live.clear()
    _busy, _deferred = 0, None
    _remove_handlers()
    _restore_mask()


# --- signals --------------------------------------------------------------------------------------------------------


def _install_handlers() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for signum in TERMINATION_SIGNALS:
        earlier = signal.getsignal(signum)
        # None: installed by C code, which we cannot call. Ignored (nohup): then it must not end the process.
        if earlier in (None, signal.SIG_IGN, _on_signal):
            continue
        assert earlier is not None
        _earlier[signum] = earlier
        signal.signal(signum, _on_signal)


def _remove_handlers() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for signum in list(_earlier):
        # Where somebody has put a handler over ours it stays; ours then passes the signal on and does nothing else.
        if signal.getsignal(signum) is _on_signal:
            signal.signal(signum, _earlier.pop(signum))


def _on_signal(signum: int, frame: FrameType | None) -> None:
    global _received, _deferred
    received = signal.Signals(signum)
    if _busy:
        _deferred = received
        return
    _received = received
    earlier = _earlier.get(signum, signal.SIG_DFL)
    if callable(earlier):
        # The program decides what the signal means. If it ends the process, _at_exit records that it was interrupted.
        earlier(signum, frame)
        return
    for recorder in live():
        recorder.finish("interrupted", received.name)
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
