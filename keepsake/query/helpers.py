"""Processes that read records for this one, so that a first listing of thousands is done by all cores.

Each is a Python of its own that is told keys and answers what the index keeps of these records, until its standard input ends. One that
cannot be started or dies costs nothing but its help.
"""

from __future__ import annotations

import marshal
import struct
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from keepsake.exceptions import ObjectNotFound
from keepsake.query.entries import Entry, entry_or_damage
from keepsake.storage.disk import DiskStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHUNK = 250
"""How many records a process is told at once: their entries are about a megabyte."""

MOST_BYTES = 1 << 30
"""No message is as long. What looks so was printed by something else, such as a module that each Python of this machine loads."""

_LENGTH = struct.Struct("<q")


def read(storage: DiskStorage, keys: Sequence[str], count: int) -> Iterator[Entry | str]:
    """Yield the entries of records, or what is wrong with them, in the order of their keys; those that are gone are left out.

    Args:
        storage: Where they lie.
        keys: Their keys.
        count: How many processes read them.
    """
    from concurrent.futures import ThreadPoolExecutor

    chunks = [keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK)]
    idle: SimpleQueue[_Helper] = SimpleQueue()

    def ask(chunk: Sequence[str]) -> list[Entry | str]:
        helper = idle.get()
        try:
            return helper.read(chunk)
        finally:
            idle.put(helper)

    with ExitStack() as stack:
        for _ in range(count):
            idle.put(stack.enter_context(_Helper(storage)))
        pool = stack.enter_context(ThreadPoolExecutor(count))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for answer in pool.map(ask, chunks):
            yield from answer


class _Helper:
    """A process that reads records; without it this one does.

    Args:
        storage: Where they lie.
    """

    def __init__(self, storage: DiskStorage) -> None:
        self._storage = storage
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Helper:
        # Where this process has found its modules, so does that one.
        modules = f"import sys; sys.path[:] = {sys.path!r}"
        code = f"{modules}; from keepsake.query.helpers import serve; serve({str(self._storage.root)!r})"
        with suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._end(self._process)

    def read(self, keys: Sequence[str]) -> list[Entry | str]:
        """Return the entries of records, or what is wrong with them; those that are gone are left out."""
        if self._process is not None and self._process.stdin is not None and self._process.stdout is not None:
            try:
                _send(self._process.stdin, list(keys))
                return [found if isinstance(found, str) else Entry(*found) for found in _received(self._process.stdout)]
            except (OSError, EOFError, ValueError, TypeError):
                self._end(self._process)
                self._process = None
        return _read(self._storage, keys)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        process.kill()
        process.wait()


def serve(root: str) -> None:
    """Be such a process, for records below a directory."""
    import gc
    import signal

    # Ctrl-C reaches all processes of a terminal; this one ends with the one that it helps.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    storage = DiskStorage(Path(root))
    with suppress(EOFError, OSError):
        while True:
            keys = _received(sys.stdin.buffer)
            _send(sys.stdout.buffer, [found if isinstance(found, str) else tuple(found) for found in _read(storage, keys)])


def _read(storage: DiskStorage, keys: Sequence[str]) -> list[Entry | str]:
    found = []
    for key in keys:
        with suppress(ObjectNotFound):
            found.append(entry_or_damage(key, storage.read(key)))
    return found


def _send(pipe: IO[bytes], value: Any) -> None:
    content = marshal.dumps(value)
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _received(pipe: IO[bytes]) -> Any:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    [length] = _LENGTH.unpack(head)
    if not 0 <= length < MOST_BYTES:
        raise ValueError("this is no message")
    return marshal.loads(pipe.read(length))
