"""The logger that all lines for people go through. `keepsake.messages` loads it with the first line: ``logging`` takes its time."""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger("keepsake")
"""The logger ``keepsake``."""


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
    if logger.level == logging.NOTSET:
        # What the program has set before counts.
        logger.setLevel(levels.get(name.lower(), logging.INFO))
    logger.addHandler(_StandardError())


_set_up()
