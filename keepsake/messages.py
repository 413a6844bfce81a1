"""Lines for people on standard error. Nothing here knows what the lines are about.

They go through the logger ``keepsake``. A program that has set up logging gets them there; in any other they are printed as
``keepsake: …``. ``KEEPSAKE_LOG`` (``debug``, ``info``, ``warning``, ``error``) sets the least level; ``KEEPSAKE_DEBUG=1`` means
``debug``.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

_said: set[str] = set()
_said_lock = threading.Lock()


def debug(text: str) -> None:
    """Say what only somebody who hunts an error wants to read."""
    logger().debug(text)


def debug_exception(err: BaseException) -> None:
    """Show where an exception came from, for somebody who hunts it."""
    logger().debug("caused by:", exc_info=err)


def info(text: str) -> None:
    """Say what happened as it should."""
    logger().info(text)


def warning(text: str) -> None:
    """Say what went on otherwise than the person may think."""
    logger().warning(text)


def error(text: str) -> None:
    """Say what could not be done."""
    logger().error(text)


def warn_once(key: str, text: str) -> None:
    """Give a warning unless this process has given one for the same key before."""
    with _said_lock:
        if key in _said:
            return
        _said.add(key)
    warning(text)


def forget_said() -> None:
    """Let `warn_once` give every warning again."""
    with _said_lock:
        _said.clear()


# --- the logger -----------------------------------------------------------------------------------------------------

_waiting: list[_Late] = []
"""Handlers that wait for the logger."""


def logger() -> logging.Logger:
    """Return the logger, loaded now if nothing has been said yet."""
    from keepsake.log import logger

    for one in _waiting:
        one.add()
    _waiting.clear()
    return logger


@contextmanager
def handled_by(make: Callable[[], logging.Handler]) -> Iterator[None]:
    """Let a handler have all log records of the process, those of other libraries too, from the first of ours or `logger` on.

    Args:
        make: Makes it; not called before ``logging`` is loaded by somebody.
    """
    late = _Late(make)
    if "logging" in sys.modules:
        late.add()
    else:
        _waiting.append(late)
    try:
        yield
    finally:
        late.remove()


class _Late:
    """A handler of all log records that is made when it is needed."""

    def __init__(self, make: Callable[[], logging.Handler]) -> None:
        self._make = make
        self._handler: logging.Handler | None = None

    def add(self) -> None:
        import logging

        self._handler = self._make()
        logging.getLogger().addHandler(self._handler)

    def remove(self) -> None:
        if self._handler is not None:
            import logging

            logging.getLogger().removeHandler(self._handler)
        elif self in _waiting:
            _waiting.remove(self)
