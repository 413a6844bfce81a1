"""How long files take to come back: ``keepsake checkout`` against 0.4.2, and one small file out of a large archive.

Run it with ``tox run -e bench -- checkout``.
"""

from __future__ import annotations

import filecmp
import functools
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from typing import TYPE_CHECKING

from _measure import (
    MB,
    ORIGINAL,
    OURS,
    environment,
    interleave,
    parser,
    pythons,
    report,
    run_contender,
    settle,
    workplace,
    write_weights,
)

import keepsake

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

SMALL = "model/z-config.json"
"""Its name puts it behind the weights, where somebody who reads from the start comes last."""
LARGE = "model/weights.bin"
SCAN = "find it with Python's tarfile"
READ = "read the archive's bytes"
COPIED = "read and write in all threads"
DIGESTED = "read, sha256 and write in all threads"
"""What the machine takes for the bare work, without the start of a command: nobody who does it can be faster."""


def main() -> None:
    options = parser(__doc__, rounds=10)
    options.add_argument("--size-mb", type=int, default=1000, help="size of the large file")
    options.add_argument("--rounded", action="store_true", help="weights that were rounded to bfloat16, which gzip makes smaller")
    arguments = options.parse_args()
    with workplace(arguments.directory) as place:
        keepsakes = pythons()
        project = place / "project"
        (project / "model").mkdir(parents=True)
        write_weights(project / LARGE, arguments.size_mb * MB, rounded=arguments.rounded)
        write_weights(project / SMALL, 10_000)
        ids = {writer: record(place, writer, python) for writer, python in keepsakes.items()}
        compare_checkouts(place, keepsakes, ids, arguments.rounds)
        compare_reads(place, ids[OURS], arguments.rounds)


def record(place: Path, writer: str, python: Path) -> str:
    """Let a keepsake save the model into a repository of its own, and return the checkpoint's ID."""
    arguments = {"repository": place / writer, "directory": place / "project", "path": "model"}
    return str(run_contender(python, "checkpoint", **arguments)["id"])


def compare_checkouts(place: Path, keepsakes: dict[str, Path], ids: dict[str, str], rounds: int) -> None:
    """Let each command line check out what each has written."""
    contenders = {
        named(reader, writer): functools.partial(check_out, place, python, writer, ids[writer])
        for writer in ids
        for reader, python in keepsakes.items()
    }
    contenders |= {name: functools.partial(do_bare_work, place, with_digests=name == DIGESTED) for name in (COPIED, DIGESTED)}
    figures = interleave(contenders, rounds)
    references = named(ORIGINAL, ORIGINAL), named(ORIGINAL, OURS)
    report("keepsake checkout of the whole checkpoint, as a command", figures["took"], *references)


def named(reader: str, writer: str) -> str:
    return f"{reader} reads its own" if reader == writer else f"{reader} reads that of {writer}"


def check_out(place: Path, python: Path, writer: str, id: str) -> dict[str, float]:
    """Run one command line's checkout, and see that it gives back what was saved."""
    target = place / "checkout"
    is_ours = str(python) == sys.executable
    program = [python, "-m", "keepsake"] if is_ours else [python.parent / "keepsake"]
    command = [*program, "checkout", id, "-f", "-o", target, "-R", f"file://{place / writer}"]
    settle((place / "project" / LARGE).stat().st_size, place)
    start_s = time.perf_counter()
    subprocess.run(command, check=True, cwd=place / "project", env=environment(python), capture_output=True)
    took_s = time.perf_counter() - start_s
    for name in (LARGE, SMALL):
        if not filecmp.cmp(place / "project" / name, target / name, shallow=False):
            raise RuntimeError(f"{command} did not give back {name}")
    shutil.rmtree(target)
    return {"took": took_s}


def do_bare_work(place: Path, *, with_digests: bool) -> dict[str, float]:
    """Copy the large file piece by piece in as many threads as there are cores, each piece digested or not."""
    source, target = place / "project" / LARGE, place / "copy.bin"
    settle(source.stat().st_size, place)
    start_s = time.perf_counter()
    pieces, turn = iter(range(0, source.stat().st_size, MB)), threading.Lock()

    def work() -> None:
        # Beginning with a page: what the allocator gives does not, and some processors take five times as long to read a file into it.
        buffer = memoryview(mmap.mmap(-1, MB))
        while True:
            with turn:
                position = next(pieces, None)
            if position is None:
                return
            piece = buffer[: os.preadv(read_from.fileno(), [buffer], position)]
            if with_digests:
                hashlib.sha256(piece).digest()
            os.pwrite(write_to.fileno(), piece, position)

    with source.open("rb") as read_from, target.open("wb") as write_to:
        threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    took_s = time.perf_counter() - start_s
    target.unlink()
    return {"took": took_s}


def compare_reads(place: Path, id: str, rounds: int) -> None:
    """Read the small file alone, and the archive as a whole."""
    project = keepsake.Project(repository=f"file://{place / OURS}", directory=place / "project")
    checkpoint = project.experiments.get(id).checkpoints[-1]
    archive = place / OURS / "checkpoints" / f"{id}.tar.gz"
    contenders = {
        "checkpoint.open() of it": functools.partial(timed, lambda: read(checkpoint.open(SMALL))),
        "checkpoint.open() of the large file": functools.partial(timed, lambda: read(checkpoint.open(LARGE))),
        SCAN: functools.partial(timed, lambda: scan(archive)),
        READ: functools.partial(timed, lambda: read(archive.open("rb", buffering=0))),
    }
    figures = interleave(contenders, rounds)
    report("one file of 10 kB out of the archive, opened and read", figures["took"], SCAN, READ)


def timed(do: Callable[[], None]) -> dict[str, float]:
    start_s = time.perf_counter()
    do()
    return {"took": time.perf_counter() - start_s}


def read(file: BinaryIO | io.FileIO) -> None:
    """Read a file to its end, a piece at a time."""
    with file:
        while file.read(MB):
            pass


def scan(archive: Path) -> None:
    """Read an archive up to the small file, and that, as without its index."""
    with tarfile.open(archive) as tar:
        member = next(member for member in tar if member.name.endswith(SMALL))
        content = tar.extractfile(member)
        if content is not None:
            content.read()


if __name__ == "__main__":
    main()
