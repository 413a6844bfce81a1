"""Lines for people on standard error. Nothing here knows what the lines are about.

They go through the logger ``keepsake``. A program that has set up logging gets them there; in any other they are printed as
``keepsake: …``. ``KEEPSAKE_LOG`` (``debug``, ``info``, ``warning``, ``error``) sets the least level; ``KEEPSAKE_DEBUG=1`` means
``debug``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

_logger = logging.getLogger("keepsake")
_said: set[str] = set()
_said_lock = threading.Lock()


def debug(text: str) -> None:
    """Say what only somebody who hunts an error wants to read."""
    _logger.debug(text)


def debug_exception(err: BaseException) -> None:
    """Show where an exception came from, for somebody who hunts it."""
    _logger.debug("caused by:", exc_info=err)


def info(text: str) -> None:
    """Say what happened as it should."""
    _logger.info(text)


def warning(text: str) -> None:
    """Say what went on otherwise than the person may think."""
    _logger.warning(text)


def error(text: str) -> None:
    """Say what could not be done."""
    _logger.error(text)


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


class _StandardError(logging.Handler):
    """Prints to whatever ``sys.stderr`` is at the moment, unless the program handles log records itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers or sys.stderr is None:
            return
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        try:
            sys.stderr.write(f"keepsake: {level}{self.format(record)}\n")
            sys.stderr.flush()
        except (OSError, ValueError, RuntimeError):
            # A closed or broken standard error must not stop a training, nor one that a signal's handler interrupted in the
            # middle of another line: Python refuses to write into that.
            return


def _set_up() -> None:
    name = "debug" if os.environ.get("KEEPSAKE_DEBUG") == "1" else os.environ.get("KEEPSAKE_LOG", "info")
    levels = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    _logger.setLevel(levels.get(name.lower(), logging.INFO))
    _logger.addHandler(_StandardError())


_set_up()
