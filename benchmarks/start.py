"""How long Python takes to start, with and without keepsake: whole processes.

Run it with ``tox run -e bench`` or ``python benchmarks/start.py``.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from _measure import interleave, parser, report, workplace

import keepsake

if TYPE_CHECKING:
    from pathlib import Path

FLOOR = "python -c pass"


def main() -> None:
    arguments = parser(__doc__, rounds=40).parse_args()
    with workplace(arguments.directory) as place:
        repository = record_experiments(place, count=10)
        commands = {
            FLOOR: ["-c", "pass"],
            'python -c "import keepsake"': ["-c", "import keepsake"],
            "keepsake --help": ["-m", "keepsake", "--help"],
            "keepsake ls, 10 experiments": ["-m", "keepsake", "ls", "-R", repository],
        }
        contenders = {name: functools.partial(run, place, command) for name, command in commands.items()}
        report("whole processes", interleave(contenders, arguments.rounds)["took"], FLOOR)


def record_experiments(place: Path, count: int) -> str:
    """Record small experiments and return the repository's URL."""
    url = f"file://{place / 'repository'}"
    project = keepsake.Project(repository=url, directory=place)
    for number in range(count):
        with project.experiments.create(params={"lr": 10.0**-number}, quiet=True) as experiment:
            for step in range(5):
                experiment.checkpoint(step=step, metrics={"loss": 1 / (step + 1)}, primary_metric=("loss", "minimize"))
    return url


def run(place: Path, command: list[str]) -> dict[str, float]:
    """Run a command of this Python from its start to its end."""
    start_s = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, cwd=place)
    return {"took": time.perf_counter() - start_s}


if __name__ == "__main__":
    main()
