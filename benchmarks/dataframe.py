"""Ten thousand experiments as a data frame: `experiments.list().to_dataframe()` beside MLflow's `search_runs` on the same data.

Run it with ``tox run -e bench-dataframe``. MLflow gets its default store, SQLite, filled by bulk inserts into the tables that MLflow
itself has made: through its API that takes hours. Each contender is called several times in one process of its own, so that nobody
pays for imports; the first call, which fills caches, is not counted.
"""

from __future__ import annotations

import functools
import json
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

from _measure import OURS, interleave, parser, report, workplace
from listing import make_repository

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MLFLOW = "MLflow search_runs"

MLFLOW_CALL = "mlflow.search_runs(experiment_ids=['0'])"
OUR_CALLS = {
    OURS: "project.experiments.list().to_dataframe()",
    f"{OURS}, polars": "project.experiments.list().to_dataframe(library='polars')",
    f"{OURS}, to_records()": "project.experiments.list().to_records()",
    f"{OURS}, checkpoints=True": "project.experiments.list().to_dataframe(checkpoints=True)",
}


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--experiments", type=int, default=10_000, help="how many experiments there are")
    options.add_argument("--checkpoints", type=int, default=50, help="checkpoints of each of them")
    arguments = options.parse_args()
    with workplace(arguments.directory) as place:
        project = place / "project"
        make_repository(project, arguments.experiments, arguments.checkpoints)
        os.environ["KEEPSAKE_CACHE_DIR"] = str(place / "cache")
        ours = f"import keepsake; project = keepsake.Project(directory={str(project)!r})"
        processes = {name: Process(ours, call) for name, call in OUR_CALLS.items()}
        if has_mlflow():
            database = place / "mlflow.db"
            fill_mlflow(database, project)
            setup = f"import mlflow; mlflow.set_tracking_uri('sqlite:///{database}')"
            processes[MLFLOW] = Process(setup, MLFLOW_CALL)
        contenders = {name: functools.partial(process.call, arguments.experiments) for name, process in processes.items()}
        figures = interleave(contenders, arguments.rounds)
        report(f"{arguments.experiments:,} experiments of {arguments.checkpoints} checkpoints", figures["took"], MLFLOW, OURS)


class Process:
    """A process of its own that is told when to call something.

    Args:
        setup: What it does at first.
        call: What it calls then, each time.
    """

    def __init__(self, setup: str, call: str) -> None:
        code = f"""
import sys, time
{setup}
for line in sys.stdin:
    start = time.perf_counter()
    rows = len({call})
    print(time.perf_counter() - start, rows, flush=True)
"""
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def call(self, at_least: int) -> Mapping[str, float]:
        """Call it once, and make sure that it gave rows enough."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        took, rows = self._process.stdout.readline().split()
        if int(rows) < at_least:
            raise SystemExit(f"only {rows} rows of {at_least}")
        return {"took": float(took)}


# --- the same data for MLflow -----------------------------------------------------------------------------------------------


def has_mlflow() -> bool:
    try:
        import mlflow  # noqa: F401
    except ModuleNotFoundError:
        print("MLflow is not installed, so keepsake runs alone")
        return False
    return True


def fill_mlflow(database: Path, project: Path) -> None:
    """Write all experiments as runs of MLflow: params, every value of each metric by step, and the latest ones."""
    begin = time.perf_counter()
    setup = f"import mlflow; mlflow.set_tracking_uri('sqlite:///{database}'); mlflow.search_experiments()"
    subprocess.run([sys.executable, "-c", setup], check=True, stderr=subprocess.DEVNULL)
    connection = sqlite3.connect(database)
    with connection:
        for record in records(project):
            put_run(connection, record)
    connection.close()
    print(
        f"filled {database.stat().st_size / 1e6:,.0f} MB of SQLite for MLflow in {time.perf_counter() - begin:.0f} s", flush=True
    )


def records(project: Path) -> Iterator[dict[str, Any]]:
    for path in (project / ".keepsake" / "metadata" / "experiments").iterdir():
        yield json.loads(path.read_bytes())


def put_run(connection: sqlite3.Connection, record: dict[str, Any]) -> None:
    run = uuid.uuid5(uuid.NAMESPACE_OID, record["id"]).hex
    values = {
        "run_uuid": run,
        "name": record["id"][:7],
        "source_type": "LOCAL",
        "source_name": "",
        "entry_point_name": "",
        "user_id": record["user"],
        "status": "FINISHED",
        "start_time": 1_770_000_000_000,
        "end_time": 1_770_000_600_000,
        "deleted_time": None,
        "source_version": "",
        "lifecycle_stage": "active",
        "artifact_uri": f"/mlruns/0/{run}/artifacts",
        "experiment_id": 0,
    }
    put(connection, "runs", [values])
    params = {name: value for name, value in record["params"].items() if not isinstance(value, dict)}
    params |= {f"betas.{name}": value for name, value in record["params"]["betas"].items()}
    put(connection, "params", [{"key": name, "value": str(value), "run_uuid": run} for name, value in params.items()])
    points = [
        {
            "key": name,
            "value": value,
            "timestamp": 1_770_000_000_000 + one["step"],
            "run_uuid": run,
            "step": one["step"],
            "is_nan": 0,
        }
        for one in record["checkpoints"]
        for name, value in one["metrics"].items()
    ]
    put(connection, "metrics", points)
    put(connection, "latest_metrics", list({point["key"]: point for point in points}.values()))
    put(connection, "tags", [{"key": "mlflow.runName", "value": record["id"][:7], "run_uuid": run}])


def put(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        names, places = ", ".join(rows[0]), ", ".join(f":{name}" for name in rows[0])
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", rows)


if __name__ == "__main__":
    main()
