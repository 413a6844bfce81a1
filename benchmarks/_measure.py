"""What the benchmarks share: interleaved rounds, medians and their ratios, data to save, and keepsake 0.4.2 beside ours.

Nothing here asserts how long something takes: machines differ and have moods. What counts is the ratio of two medians of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from array import array
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Contender = Callable[[], Mapping[str, float]]

OURS = "keepsake"
ORIGINAL = "keepsake 0.4.2"
CONTENDER = Path(__file__).with_name("_contender.py")
MB = 10**6


# --- the command line -----------------------------------------------------------------------------------------------------


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="counted runs of each contender")
    parser.add_argument("--directory", type=Path, default=tempfile.gettempdir(), help="where files are made, and removed")
    return parser


@contextlib.contextmanager
def workplace(directory: Path) -> Iterator[Path]:
    """Say what machine this is, and give a directory for the time of the benchmark."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}, {cores} cores, {_file_system(directory)}"
    print(f"{system}, {platform.python_implementation()} {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=directory, prefix="keepsake-benchmark-") as place:
        yield Path(place)


def _file_system(directory: Path) -> str:
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown file system"
    rows = [line.split()[1:3] for line in mounts.read_text(encoding="utf-8").splitlines()]
    inside = [(point, kind) for point, kind in rows if directory.resolve().is_relative_to(point)]
    return max(inside, key=lambda row: len(row[0]))[1]


# --- the contenders -------------------------------------------------------------------------------------------------------


def original_python() -> Path | None:
    """Return the interpreter of the environment that keepsake 0.4.2 lives in; None, and say so, if there is none."""
    path = os.environ.get("KEEPSAKE_ORIGINAL")
    if path is None:
        print(f"without {ORIGINAL}: KEEPSAKE_ORIGINAL names no interpreter that has it (`tox run -e bench` makes one)")
    return Path(path) if path is not None else None


def pythons() -> dict[str, Path]:
    """Return the interpreters of the keepsakes that are here, by name."""
    original = original_python()
    return {OURS: Path(sys.executable)} | ({ORIGINAL: original} if original is not None else {})


def run_contender(python: Path, job: str, **arguments: Any) -> Any:
    """Let the keepsake of an interpreter do a job in a process of its own, and return what the job returns."""
    command = [str(python), str(CONTENDER), job, json.dumps(arguments, default=str)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment(python))
    return json.loads(done.stdout.splitlines()[-1])


def environment(python: Path) -> dict[str, str]:
    """Return our environment; for an interpreter that is not ours without the way to our package, which it would import."""
    hidden = {"PYTHONPATH"} if str(python) != sys.executable else set()
    return {name: value for name, value in os.environ.items() if name not in hidden} | {"KEEPSAKE_NO_ANALYTICS": "1"}


# --- what they work on ----------------------------------------------------------------------------------------------------


def write_weights(path: Path, size_bytes: int, *, rounded: bool = False) -> None:
    """Write what hardly shrinks, as weights do: float32 of a normal distribution.

    The same 4 MB come again and again, which no gzip can use: it looks back 32 KiB.

    Args:
        path: The file.
        size_bytes: Its length.
        rounded: Write what does shrink: the same values rounded to bfloat16 and kept as float32.
    """
    normal = random.Random(0)
    block = array("f", (normal.gauss(0, 0.02) for _ in range(MB))).tobytes()
    if rounded:
        halves = array("H", block)
        for lower in range(int(sys.byteorder == "big"), len(halves), 2):
            halves[lower] = 0
        block = halves.tobytes()
    with path.open("wb") as file:
        for start in range(0, size_bytes, len(block)):
            file.write(block[: size_bytes - start])


def settle(size_bytes: int = 0, directory: Path | None = None) -> None:
    """Give everybody the same start: the disk has finished what came before, and the memory that is needed is at hand.

    A virtual machine gives memory that is free back to its host, and takes ten times as long to write to what it has to get again. Whoever
    came first would pay for all, so that much is taken and let go again before: as a process has it, and as the cache of a file has it,
    which the system takes from other places.

    Args:
        size_bytes: How much is going to be written, into the page cache at least.
        directory: Where to.
    """
    if hasattr(os, "sync"):
        os.sync()
    if size_bytes and hasattr(mmap, "MAP_POPULATE"):
        mmap.mmap(-1, 3 * size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        piece = bytes(MB)
        for _ in range(3 * size_bytes // (2 * MB)):
            file.write(piece)


# --- measuring and reporting ----------------------------------------------------------------------------------------------


def interleave(contenders: Mapping[str, Contender], rounds: int, *, warm_up_rounds: int = 1) -> dict[str, dict[str, list[float]]]:
    """Run contenders in turn, so that a machine that changes its speed changes it for all of them.

    Each round has an order of its own, so that nobody always comes after the same: a machine is slower after hard work than after easy.

    Args:
        contenders: By name, what runs one of them once and returns figures by name.
        rounds: How often each is run and counted.
        warm_up_rounds: How often each is run before that.

    Returns:
        The figures by their name, then by the contender's.
    """
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: {name: [] for name in contenders})
    order = random.Random(0)
    for number in range(-warm_up_rounds, rounds):
        for name in order.sample(list(contenders), len(contenders)):
            for figure, value in contenders[name]().items():
                if number >= 0:
                    figures[figure][name].append(value)
    return figures


def report(title: str, seconds: Mapping[str, list[float]], *references: str) -> None:
    """Print each contender's median with its least and greatest value, and the ratio of its median to those of others."""
    print(f"\n{title}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    width = max(map(len, seconds))
    for name, values in seconds.items():
        spread = f"({in_words(min(values))} to {in_words(max(values))})"
        ratios = (f"{medians[name] / medians[other]:.3g} x {other}" for other in references if other in medians and other != name)
        print(f"  {name:<{width}}  {in_words(medians[name]):>8}  {spread:<24} {', '.join(ratios)}".rstrip(), flush=True)


def in_words(seconds: float) -> str:
    """Return a time for people, to three digits."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs"
