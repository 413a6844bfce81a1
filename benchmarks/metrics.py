"""What checkpoints of metrics alone cost as they become many, against keepsake 0.4.2.

Run it with ``tox run -e bench -- metrics``. The original takes a quarter of an hour for 5,000, so it stops at 1,000 without ``--full``.
"""

from __future__ import annotations

import functools
import shutil
from typing import TYPE_CHECKING

from _measure import ORIGINAL, OURS, interleave, parser, pythons, report, run_contender, workplace

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = (100, 1000, 5000, 20000)


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="how many checkpoints an experiment gets")
    options.add_argument("--full", action="store_true", help="run 0.4.2 for up to 5,000 as well")
    arguments = options.parse_args()
    most = {OURS: max(arguments.counts), ORIGINAL: 5000 if arguments.full else 1000}
    with workplace(arguments.directory) as place:
        keepsakes = pythons()
        each: dict[str, dict[str, list[float]]] = {name: {} for name in keepsakes}
        for count in arguments.counts:
            taking_part = {name: python for name, python in keepsakes.items() if count <= most[name]}
            for name, totals in compare(place, taking_part, count, arguments.rounds).items():
                each[name][f"{name}, {count:,}"] = [total / count for total in totals]
    for rows in each.values():
        report("each of so many, on average", rows, *list(rows)[:1])


def compare(place: Path, keepsakes: dict[str, Path], count: int, rounds: int) -> dict[str, list[float]]:
    """Measure and report one number of checkpoints, and return the total of each run."""
    contenders = {name: functools.partial(record, place, python, count) for name, python in keepsakes.items()}
    figures = interleave(contenders, rounds, warm_up_rounds=0)  # each contender warms up for itself
    report(f"{count:,} checkpoints of metrics: all of them, until the record lists the last", figures["all"], ORIGINAL)
    report(f"{count:,} checkpoints of metrics: median call", figures["median"], ORIGINAL)
    report(f"{count:,} checkpoints of metrics: last call", figures["last"], ORIGINAL)
    return figures["all"]


def record(place: Path, python: Path, count: int) -> dict[str, float]:
    """Let a keepsake make the checkpoints in a new repository."""
    repository = place / "repository"
    figures: dict[str, float] = run_contender(python, "metrics", repository=repository, directory=place, count=count)
    shutil.rmtree(repository)
    return figures


if __name__ == "__main__":
    main()
