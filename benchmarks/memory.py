"""How much memory a checkpoint of 10 GB takes beyond what the idle process has: while it is packed, sealed and checked out.

Run it with ``tox run -e bench -- memory``. It needs Linux, and on the disk twice the size.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from _measure import in_words, parser, workplace, write_weights

import keepsake

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

GB = 10**9
MIB = 2**20
ROOM = 2.1
"""Room on the disk in sizes of the file: for the file and its archive, later for the archive and what is checked out."""


def main() -> None:
    options = parser(__doc__, rounds=1)
    options.add_argument("--size-gb", type=float, default=10, help="size of the file that is saved")
    arguments = options.parse_args()
    size_bytes = round(arguments.size_gb * GB)
    if shutil.disk_usage(arguments.directory).free < ROOM * size_bytes:
        sys.exit(f"{arguments.directory} has not {ROOM * size_bytes / GB:.1f} GB left: see --directory and --size-gb")
    with workplace(arguments.directory) as place:
        for _ in range(arguments.rounds):
            for move in (False, True):
                measure(place, size_bytes, move=move)


def measure(place: Path, size_bytes: int, *, move: bool) -> None:
    """Save a file into a new repository, remove it, and check it out."""
    repository, source, target = place / "repository", place / "weights.bin", place / "checkout"
    experiment = keepsake.Project(repository=f"file://{repository}", directory=place).experiments.create(quiet=True)
    (place / "first.txt").write_text("small", encoding="utf-8")
    experiment.checkpoint("first.txt")
    experiment.flush()  # now all is loaded that is loaded at the first use
    write_weights(source, size_bytes)
    idle_bytes = memory_bytes("VmRSS")
    print(
        f"\n{size_bytes / GB:g} GB of float32, move={move}: most resident memory beyond the {idle_bytes / MIB:.0f} MiB of the idle process"
    )
    checkpoint = report_peak("checkpoint()", idle_bytes, lambda: experiment.checkpoint(source, move=move))
    report_peak("flush(), until stored", idle_bytes, experiment.flush)
    source.unlink(missing_ok=True)
    report_peak("checkout()", idle_bytes, lambda: checkpoint.checkout(target, quiet=True))
    experiment.stop()
    shutil.rmtree(target)
    shutil.rmtree(repository)


def report_peak(name: str, idle_bytes: int, do: Callable[[], Result]) -> Result:
    """Do something, and print by how much memory rose above the idle process's at its peak."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak: proc(5)
    start_s = time.perf_counter()
    result = do()
    took = in_words(time.perf_counter() - start_s)
    print(f"  {name:<34} {(memory_bytes('VmHWM') - idle_bytes) / MIB:6.1f} MiB  in {took}", flush=True)
    return result


def memory_bytes(field: str) -> int:
    """Return the present (``VmRSS``) or the greatest (``VmHWM``) resident memory of this process."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
