"""``keepsake`` and ``python -m keepsake``: the process of a command, from its start to its end.

A command lives for a moment, and much of it would go by with what Python does for programs that live long.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its code."""
    # To look for cycles among all modules and ten thousand experiments again and again takes longer than most of what a command does.
    gc.set_threshold(2_000_000, 50, 50)
    codes: list[int] = []
    # What is registered first is called last: when all threads have ended, and all has been done that waits for the end.
    atexit.register(_leave, codes)
    try:
        from keepsake.cli import run

        codes.append(run(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        # While modules were loaded; of all that comes later, `run` takes care.
        sys.stderr.write("\ninterrupted\n" if sys.stderr.isatty() else "interrupted\n")
        codes.append(130)
    sys.exit(codes[0])


def _leave(codes: Sequence[int]) -> None:
    """End the process and leave its memory to the system: to tidy up takes Python a fifth of the time of ``ls``."""
    if not codes:
        # An error that nothing has caught is on its way out, and Python shows it.
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # A stream that is closed, or not there at all.
            continue
    os._exit(codes[0])


if __name__ == "__main__":
    main()
