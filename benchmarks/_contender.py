"""What a keepsake is made to do, ours or 0.4.2: the Python of either runs ``_contender.py JOB ARGUMENTS`` and reads a line of JSON.

One program serves both, because ours has the original's API.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _measure import settle

import keepsake

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_S = 0.0005
"""How often the files of 0.4.2 are looked at, which is how exact its figures are."""
SETTLED_S = 0.25
"""How long nothing may change until 0.4.2 counts as done; this time itself is not counted."""


def main() -> None:
    jobs: dict[str, Callable[..., dict[str, Any]]] = {"checkpoint": checkpoint, "metrics": metrics}
    job, arguments = sys.argv[1:]
    print(json.dumps(jobs[job](**json.loads(arguments))))


def checkpoint(repository: str, directory: str, path: str, move: bool = False) -> dict[str, Any]:
    """Make one checkpoint of a path, and measure how long the call takes and how long it is until all is stored."""
    experiment = start(repository, directory)
    settle(size_of(Path(directory, path)), Path(directory))
    start_s = time.perf_counter()
    made = experiment.checkpoint(path=path, step=1, metrics={"loss": 0.5}, quiet=True, **({"move": True} if move else {}))
    returned_s = time.perf_counter()
    if made.path is None:
        raise RuntimeError(f"{path} was not saved")
    stored_s = wait_until_stored(experiment, made, Path(repository))
    return {"id": made.id, "blocks": returned_s - start_s, "stored": stored_s - start_s}


def size_of(path: Path) -> int:
    """Return how much there is to save."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))


def metrics(repository: str, directory: str, count: int) -> dict[str, float]:
    """Make checkpoints of metrics alone, as fast as they come."""
    experiment = start(repository, directory)
    calls = []
    begin_s = time.perf_counter()
    for step in range(1, count + 1):
        values = {"loss": 1 / step, "accuracy": 1 - 1 / step}
        start_s = time.perf_counter()
        made = experiment.checkpoint(step=step, metrics=values, primary_metric=("loss", "minimize"), quiet=True)
        calls.append(time.perf_counter() - start_s)
    all_s = wait_until_stored(experiment, made, Path(repository)) - begin_s
    return {"all": all_s, "median": statistics.median(calls), "last": calls[-1]}


def start(repository: str, directory: str) -> Any:
    """Start an experiment, with a first small checkpoint that loads whatever is loaded at the first use."""
    Path(directory, "first.txt").write_text("small", encoding="utf-8")
    project = keepsake.Project(repository=f"file://{repository}", directory=directory)
    experiment = project.experiments.create(quiet=True)
    first = experiment.checkpoint(path="first.txt", step=0, metrics={"loss": 1.0}, quiet=True)
    wait_until_stored(experiment, first, Path(repository))
    return experiment


def wait_until_stored(experiment: Any, checkpoint: Any, repository: Path) -> float:
    """Wait until the repository holds a checkpoint, and return since when it does.

    Ours says so: then the archive is on the disk under its name, and the record has its digest. Of 0.4.2, which does neither
    of that and does not say when it is done, the files are watched until the record lists the checkpoint and nothing grows any more.
    """
    if hasattr(experiment, "flush"):
        experiment.flush()
        flushed_s = time.perf_counter()
        if None in files_of(experiment, checkpoint, repository):
            raise RuntimeError(f"{repository} has not all of {checkpoint}")
        return flushed_s
    seen, seen_s = None, 0.0
    while True:
        now_s = time.perf_counter()
        found = files_of(experiment, checkpoint, repository)
        if found != seen:
            seen, seen_s = found, now_s
        elif None not in found and now_s - seen_s > SETTLED_S:
            return seen_s
        time.sleep(POLL_S)


def files_of(experiment: Any, checkpoint: Any, repository: Path) -> tuple[int | None, ...]:
    """Return the sizes of the record, if it lists the checkpoint, and of the checkpoint's archive, if it should have one."""
    record = repository / "metadata" / "experiments" / f"{experiment.id}.json"
    archive = repository / "checkpoints" / f"{checkpoint.id}.tar.gz"
    text = record.read_text(encoding="utf-8") if record.exists() else ""
    recorded = len(text) if checkpoint.id in text else None
    if checkpoint.path is None:
        return (recorded,)
    return recorded, archive.stat().st_size if archive.exists() else None


if __name__ == "__main__":
    main()
