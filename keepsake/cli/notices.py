"""Log records as lines of a command line."""

from __future__ import annotations

import logging

from keepsake.cli.terminal import print_lines


class Notices(logging.Handler):
    """Prints log records as lines of a command line, such as ``warning: …``; the same line once only."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless the same was printed before."""
        said = self.format(record)
        if said in self._said:
            return
        self._said.add(said)
        first, *rest = said.split("\n")
        print_lines(first if record.levelno == logging.INFO else f"{record.levelname.lower()}: {first}", *rest)
