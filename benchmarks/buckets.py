"""What reading from and writing to a bucket costs: time over a slow line, requests and bytes on it, and memory here.

The server is moto's, on loopback. Run it with ``tox run -e bench -- buckets``. The memory is measured on Linux only.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from _measure import MB, interleave, parser, report, workplace, write_weights

import keepsake
from keepsake.repository import layout
from keepsake.repository.json_values import utc_now
from keepsake.repository.records import CheckpointRecord, ExperimentRecord

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from checkout import timed
from memory import memory_bytes, report_peak

from tests.servers.proxy import Proxy, proxy
from tests.servers.s3 import CREDENTIALS, moto_server

if TYPE_CHECKING:
    from keepsake.repository.repository import Repository

URL = "s3://benchmark/runs"
ONE_BY_ONE = "fetch the records one by one"


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--experiments", type=int, default=1000, help="how many experiments are listed")
    options.add_argument("--checkpoints", type=int, default=50, help="checkpoints of each of them")
    options.add_argument("--latency-ms", type=float, default=30, help="how long each request waits in the proxy")
    options.add_argument("--size-mb", type=int, default=2000, help="size of the file that is uploaded and downloaded")
    arguments = options.parse_args()
    os.environ |= CREDENTIALS
    with workplace(arguments.directory) as place, moto_server() as server, proxy(server.url) as between:
        server.client.create_bucket(Bucket="benchmark")
        os.environ |= {"AWS_ENDPOINT_URL_S3": between.url, "XDG_CACHE_HOME": str(place / "cache")}
        compare_listings(place, between, arguments)
        # Past the proxy, which keeps whole bodies in the memory of this process.
        os.environ["AWS_ENDPOINT_URL_S3"] = server.url
        measure_memory(place, arguments.size_mb * MB)
        os.environ["AWS_ENDPOINT_URL_S3"] = between.url
        count_bytes(place, between, arguments.size_mb * MB // 2)


def compare_listings(place: Path, between: Proxy, arguments: object) -> None:
    """List many experiments cold, with a warm cache, and one by one."""
    count, latency_s = arguments.experiments, arguments.latency_ms / 1000  # type: ignore[attr-defined]
    repository = keepsake.Project(repository=URL, directory=place).store_at_hand()
    repository.prepare()
    for number in range(count):
        checkpoints = [
            CheckpointRecord(layout.new_id(), utc_now(), step, metrics={"loss": 1 / (step + 1)})
            for step in range(arguments.checkpoints)  # type: ignore[attr-defined]
        ]
        repository.save(ExperimentRecord(layout.new_id(), utc_now(), {"number": number}, checkpoints=checkpoints))
    between.latency_s = latency_s
    contenders = {
        ONE_BY_ONE: functools.partial(timed, functools.partial(fetch_one_by_one, repository)),
        "list, nothing cached": functools.partial(list_cold, place),
        "list, all cached": functools.partial(timed, functools.partial(list_all, place)),
    }
    figures = interleave(contenders, arguments.rounds, warm_up_rounds=0)  # type: ignore[attr-defined]
    report(f"{count:,} experiments, {latency_s * 1000:g} ms away", figures["took"], ONE_BY_ONE)
    between.latency_s = 0.0
    count_a_change(place, between, repository)


def count_a_change(place: Path, between: Proxy, repository: Repository) -> None:
    """Change one of many experiments, list them, and count what was sent for it."""
    changed = repository.list_experiments()[-1]
    changed.params["changed"] = True
    repository.save(changed)
    between.forget()
    list_all(place)
    listed = sum(count for line, count in between.requests.items() if line.rstrip("/").endswith("/benchmark"))
    requests, received = sum(between.requests.values()), sum(between.received_bytes.values())
    print(
        f"\nlisted after one change: {listed} requests for the listing and {requests - listed} more, {received / MB:.3f} MB received"
    )


def fetch_one_by_one(repository: Repository) -> None:
    for info in list(repository.storage.list(layout.RECORDS_PREFIX)):
        json.loads(repository.storage.read(info.key))


def list_cold(place: Path) -> dict[str, float]:
    shutil.rmtree(place / "cache", ignore_errors=True)
    return timed(functools.partial(list_all, place))


def list_all(place: Path) -> None:
    """Do what ``keepsake ls`` does before it prints."""
    keepsake.Project(repository=URL, directory=place).index().summaries()


def measure_memory(place: Path, size_bytes: int) -> None:
    """Upload and download a large file."""
    if not sys.platform.startswith("linux"):
        return
    project = keepsake.Project(repository=URL, directory=place)
    experiment = project.experiments.create(quiet=True)
    (place / "first.txt").write_text("small", encoding="utf-8")
    experiment.checkpoint("first.txt")
    experiment.flush()  # now all is loaded that is loaded at the first use
    write_weights(place / "weights.bin", size_bytes)
    checkpoint = experiment.checkpoint("weights.bin", move=True)
    idle_bytes = memory_bytes("VmRSS")
    print(f"\n{size_bytes / 1e9:g} GB: most resident memory beyond the {idle_bytes / 2**20:.0f} MiB of the idle process")
    report_peak("flush(), until uploaded", idle_bytes, experiment.flush)
    experiment.stop()
    report_peak("checkout()", idle_bytes, functools.partial(checkpoint.checkout, place / "out", quiet=True))
    shutil.rmtree(place / "out")
    experiment.delete()


def count_bytes(place: Path, between: Proxy, size_bytes: int) -> None:
    """Open a small file beside a large one, and count what was sent for it."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        model = Path(directory) / "model"
        model.mkdir()
        (model / "config.json").write_text("{}", encoding="utf-8")
        write_weights(model / "weights.bin", size_bytes)
        project = keepsake.Project(repository=URL, directory=directory)
        with project.experiments.create(quiet=True) as experiment:
            checkpoint = experiment.checkpoint("model", move=True)
        between.forget()
        checkpoint.open("model/config.json").read()
        sent = sum(between.received_bytes.values())
        requests = sum(between.requests.values())
    print(f"\nconfig.json beside {size_bytes / 1e9:g} GB in one checkpoint: {sent / MB:.3f} MB received, {requests} requests")


if __name__ == "__main__":
    main()
