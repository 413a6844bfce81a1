"""Ten thousand experiments on the command line: whole commands on one local repository, beside keepsake 0.4.2.

Run it with ``tox run -e bench -- listing``. The repository is made in the way that 0.4.2 writes it.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _measure import ORIGINAL, OURS, environment, interleave, original_python, parser, report, workplace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLOOR = "python -c pass"
NO_INDEX = f"{OURS}, no index yet"


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--experiments", type=int, default=10_000, help="how many experiments there are")
    options.add_argument("--checkpoints", type=int, default=50, help="checkpoints of each of them")
    options.add_argument(
        "--many", type=int, default=100_000, help="how many there are of those with few checkpoints; 0 leaves them out"
    )
    arguments = options.parse_args()
    with workplace(arguments.directory) as place:
        original = original_python()
        small, large = place / "small", place / "large"
        make_repository(small, 10, 5)
        compare_start(small, arguments.rounds)
        ids = make_repository(large, arguments.experiments, arguments.checkpoints)
        compare_commands(large, ids, original, arguments.rounds)
        if arguments.many:
            few = place / "few"
            make_repository(few, arguments.experiments, 2)
            many = place / "many"
            make_repository(many, arguments.many, 2)
            compare_sizes(few, many, arguments.rounds)


# --- what is measured -----------------------------------------------------------------------------------------------------


def compare_start(project: Path, rounds: int) -> None:
    contenders = {
        FLOOR: functools.partial(run, [sys.executable, "-c", "pass"], project),
        "keepsake ls, 10 experiments": functools.partial(run, ours("ls"), project),
    }
    report("A small project", interleave(contenders, 4 * rounds)["took"], FLOOR)


def compare_commands(project: Path, ids: Sequence[str], original: Path | None, rounds: int) -> None:
    one, other = ids[len(ids) // 2][:10], ids[len(ids) // 3][:10]
    commands = {
        "ls": ["ls"],
        "ls --filter": ["ls", "--filter", "val_loss < 0.06"],
        "ls --json": ["ls", "--json"],
        "show by prefix": ["show", one],
        "diff by prefix": ["diff", one, other],
    }
    for title, words in commands.items():
        contenders = {OURS: functools.partial(run, ours(*words), project)}
        if title == "ls":
            contenders[NO_INDEX] = functools.partial(run_without_index, ours(*words), project)
        if original is not None:
            contenders[ORIGINAL] = functools.partial(run, [str(original.with_name("keepsake")), *words], project)
        figures = interleave(contenders, rounds)
        report(f"{title}, {len(ids):,} experiments", figures["took"], ORIGINAL)
        peaks = ", ".join(f"{name} {max(values) / 1000:.0f} MB" for name, values in figures["peak_kb"].items())
        print(f"  most resident memory: {peaks}")


def compare_sizes(few: Path, many: Path, rounds: int) -> None:
    """List the newest 50 of many, and of ten times as many."""
    contenders = {
        f"of those in {project.name}/": functools.partial(run, ours("ls", "-n", "50"), project) for project in (few, many)
    }
    figures = interleave(contenders, rounds)
    report("ls -n 50", figures["took"], next(iter(contenders)))
    print(f"  most resident memory: {', '.join(f'{name} {max(v) / 1000:.0f} MB' for name, v in figures['peak_kb'].items())}")


# --- running commands -----------------------------------------------------------------------------------------------------


def ours(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("keepsake")), *words]


def run_without_index(command: Sequence[str], project: Path) -> Mapping[str, float]:
    shutil.rmtree(project / "cache", ignore_errors=True)
    return run(command, project)


def run(command: Sequence[str], project: Path) -> Mapping[str, float]:
    """Run a command with its output in a file, and return how long it took and the most memory that it had."""
    env = {**environment(Path(command[0])), "KEEPSAKE_CACHE_DIR": str(project / "cache")}
    with (project / "output").open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=project, stdout=output, stdin=subprocess.DEVNULL, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command} failed: {os.waitstatus_to_exitcode(status)}")
    return {"took": took, "peak_kb": float(usage.ru_maxrss)}


# --- what they work on ----------------------------------------------------------------------------------------------------


def make_repository(project: Path, experiments: int, checkpoints: int) -> list[str]:
    """Write a project with records as keepsake 0.4.2 writes them, and return the IDs of its experiments."""
    chance = random.Random(0)
    directory = project / ".keepsake" / "metadata" / "experiments"
    directory.mkdir(parents=True)
    (project / "keepsake.yaml").write_text('repository: "file://.keepsake"\n', encoding="utf-8")
    (project / ".keepsake" / "repository.json").write_text('{"version":1}', encoding="utf-8")
    ids = []
    for number in range(experiments):
        record = make_record(chance, number, checkpoints)
        ids.append(record["id"])
        (directory / f"{record['id']}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return ids


def make_record(chance: random.Random, number: int, checkpoints: int) -> dict[str, Any]:
    begun = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=7 * number)
    rate = chance.choice([1e-4, 3e-4, 1e-3, 3e-3])
    return {
        "id": f"{chance.getrandbits(256):064x}",
        "created": moment(begun, chance),
        "params": {
            "lr": rate,
            "optimizer": chance.choice(["adamw", "sgd"]),
            "dropout": chance.choice([0.1, 0.3]),
            "batch_size": 64,
            "seed": number,
            "hidden_dim": 512,
            "n_layers": 6,
            "scheduler": "cosine",
            "betas": {"first": 0.9, "second": 0.999},
        },
        "host": "",
        "user": "ana",
        "config": {"repository": "file://.keepsake", "storage": ""},
        "command": f"train.py --lr {rate}",
        "path": "",
        "python_version": "3.11.7",
        "python_packages": {f"package-{index}": f"{index}.{index % 7}.1" for index in range(40)},
        "checkpoints": [make_checkpoint(chance, begun, step) for step in range(checkpoints)],
        "keepsake_version": "0.4.2",
    }


def make_checkpoint(chance: random.Random, begun: datetime, step: int) -> dict[str, Any]:
    return {
        "id": f"{chance.getrandbits(256):064x}",
        "created": moment(begun + timedelta(seconds=5 * step), chance),
        "metrics": {
            "train_loss": 2 / (step + 1) + 0.1 * chance.random(),
            "val_acc": chance.random(),
            "val_loss": 2 / (step + 1) + 0.2 * chance.random(),
        },
        "step": 100 * step,
        "path": "",
        "primary_metric": {"name": "val_loss", "goal": "minimize"},
    }


def moment(at: datetime, chance: random.Random) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{chance.randrange(10**9):09d}Z"


if __name__ == "__main__":
    main()
