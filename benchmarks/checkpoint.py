"""How long ``checkpoint(path)`` blocks the training, and how long it is until all is stored, against a plain copy and keepsake 0.4.2.

Run it with ``tox run -e bench -- checkpoint``.
"""

from __future__ import annotations

import functools
import os
import shutil
import time
from typing import TYPE_CHECKING

from _measure import MB, ORIGINAL, OURS, interleave, parser, pythons, report, run_contender, settle, workplace, write_weights

if TYPE_CHECKING:
    from pathlib import Path

COPY = "shutil.copyfile"
MOVE = "keepsake, move=True"


def main() -> None:
    options = parser(__doc__, rounds=10)
    options.add_argument("--size-mb", type=int, nargs="+", default=[1, 100, 1000], help="sizes of the file that is saved")
    arguments = options.parse_args()
    with workplace(arguments.directory) as place:
        keepsakes = pythons()
        for size_mb in arguments.size_mb:
            compare(place, keepsakes, size_mb, arguments.rounds)


def compare(place: Path, keepsakes: dict[str, Path], size_mb: int, rounds: int) -> None:
    """Measure and report one size."""
    project = place / "project"
    project.mkdir(exist_ok=True)
    write_weights(project / "weights.bin", size_mb * MB)
    contenders = {COPY: functools.partial(copy, project)}
    contenders |= {name: functools.partial(save, project, python) for name, python in keepsakes.items()}
    contenders[MOVE] = functools.partial(save_moved, project, keepsakes[OURS])
    figures = interleave(contenders, rounds)
    report(f"{size_mb:,} MB of float32: the call blocks", figures["blocks"], COPY, ORIGINAL)
    report(f"{size_mb:,} MB of float32: until stored (of a copy: until fsynced)", figures["stored"], COPY, ORIGINAL)


def copy(project: Path) -> dict[str, float]:
    """Do what a careful script does without any keepsake: copy the file, then wait for the disk."""
    target = project.parent / "copy.bin"
    settle((project / "weights.bin").stat().st_size, project)
    start_s = time.perf_counter()
    shutil.copyfile(project / "weights.bin", target)
    blocks_s = time.perf_counter() - start_s
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    stored_s = time.perf_counter() - start_s
    target.unlink()
    return {"blocks": blocks_s, "stored": stored_s}


def save(project: Path, python: Path, name: str = "weights.bin", *, move: bool = False) -> dict[str, float]:
    """Let a keepsake save the file into a new repository."""
    repository = project.parent / "repository"
    figures = run_contender(python, "checkpoint", repository=repository, directory=project, path=name, move=move)
    shutil.rmtree(repository)
    return {"blocks": figures["blocks"], "stored": figures["stored"]}


def save_moved(project: Path, python: Path) -> dict[str, float]:
    """Let ours take a file of its own."""
    shutil.copyfile(project / "weights.bin", project / "moved.bin")
    return save(project, python, "moved.bin", move=True)


if __name__ == "__main__":
    main()
