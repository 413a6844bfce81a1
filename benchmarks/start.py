"""How long Python takes to start, with and without keepsake: whole processes, interleaved, as ratios of medians.

Run it with ``tox run -e bench`` or ``python benchmarks/start.py [--runs N]``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLOOR = "python -c pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="counted runs of each command")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as directory:
        repository = record_experiments(Path(directory), count=10)
        commands = {
            FLOOR: [sys.executable, "-c", "pass"],
            'python -c "import keepsake"': [sys.executable, "-c", "import keepsake"],
            "keepsake --help": [sys.executable, "-m", "keepsake", "--help"],
            "keepsake ls, 10 experiments": [sys.executable, "-m", "keepsake", "ls", "-R", repository],
        }
        report(measure(commands, runs, Path(directory)))


def record_experiments(directory: Path, count: int) -> str:
    """Record small experiments and return the repository's URL."""
    import keepsake

    url = f"file://{directory / 'repository'}"
    project = keepsake.Project(repository=url, directory=directory)
    for number in range(count):
        with project.experiments.create(params={"lr": 10.0**-number}, quiet=True) as experiment:
            for step in range(5):
                experiment.checkpoint(step=step, metrics={"loss": 1 / (step + 1)}, primary_metric=("loss", "minimize"))
    return url


def measure(commands: dict[str, list[str]], runs: int, directory: Path) -> dict[str, list[float]]:
    """Run the commands in turn, so that a machine that changes its speed changes it for all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=directory)
            if number:  # the first round only warms the caches
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: dict[str, list[float]]) -> None:
    """Print medians and their ratio to the floor."""
    floor = statistics.median(seconds[FLOOR])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<32} median {median * 1000:7.1f} ms   {median / floor:5.2f} x {FLOOR}")


if __name__ == "__main__":
    main()
