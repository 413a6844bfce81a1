"""How long a checkpoint blocks a training whose store fails a fifth of all requests and then is gone for a while, beside one on disk.

Run it with ``tox run -e bench -- outages``. The servers, one that speaks S3 and one that speaks Google's API, are on loopback.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from _measure import MB, in_words, parser, report, workplace, write_weights

import keepsake
from keepsake.repository import verify

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.servers.gcs import FakeGCS
from tests.servers.proxy import Proxy, proxy
from tests.servers.s3 import CREDENTIALS, moto_server

if TYPE_CHECKING:
    import argparse

BUCKET = "benchmark"
FAILING_SHARE = 0.2
ON_DISK = "a directory"


def main() -> None:
    options = parser(__doc__, rounds=1)
    options.add_argument("--checkpoints", type=int, default=50)
    options.add_argument("--interval-s", type=float, default=1.0, help="how long a step of the training takes")
    options.add_argument("--outage-s", type=float, default=30.0, help="for how long the server is gone")
    options.add_argument("--size-mb", type=int, default=1, help="size of each checkpoint")
    arguments = options.parse_args()
    os.environ |= CREDENTIALS | {"GOOGLE_CLOUD_PROJECT": "benchmark"}
    blocked: dict[str, list[float]] = {}
    with workplace(arguments.directory) as place, ExitStack() as servers:
        moto = servers.enter_context(moto_server())
        moto.client.create_bucket(Bucket=BUCKET)
        google = servers.enter_context(FakeGCS(BUCKET))
        stores = {
            ON_DISK: (f"file://{place / 'repository'}", None),
            "S3": (f"s3://{BUCKET}", servers.enter_context(proxy(moto.url))),
            "Google Cloud Storage": (f"gs://{BUCKET}", servers.enter_context(proxy(google.url))),
        }
        os.environ |= {"AWS_ENDPOINT_URL_S3": stores["S3"][1].url, "STORAGE_EMULATOR_HOST": stores["Google Cloud Storage"][1].url}
        for _ in range(arguments.rounds):
            for name, (url, between) in stores.items():
                blocked.setdefault(name, []).extend(train(place, name, url, between, arguments))
    report("checkpoint() blocks the training for", blocked, ON_DISK)
    print(f"  the longest of all: {', '.join(f'{name} {in_words(max(values))}' for name, values in blocked.items())}")


def train(place: Path, name: str, url: str, between: Proxy | None, arguments: argparse.Namespace) -> list[float]:
    """Train through an outage, and return how long each checkpoint has blocked."""
    project = keepsake.Project(repository=url, directory=place)
    blocked = []
    weights = place / "weights.bin"
    if between is not None:
        between.share = FAILING_SHARE
    experiment = project.experiments.create(quiet=True)
    gone_from = time.monotonic() + min(10.0, arguments.checkpoints * arguments.interval_s / 5)
    for step in range(arguments.checkpoints):
        write_weights(weights, arguments.size_mb * MB)
        time.sleep(arguments.interval_s)
        if between is not None:
            between.is_down = 0 <= time.monotonic() - gone_from < arguments.outage_s
        start = time.perf_counter()
        experiment.checkpoint("weights.bin", step=step, metrics={"loss": 1 / (step + 1)})
        blocked.append(time.perf_counter() - start)
    if between is not None:
        between.is_down = False
    start = time.perf_counter()
    experiment.stop()
    took = time.perf_counter() - start
    if between is not None:
        between.share = 0.0
    found = verify.check(project.store_at_hand())
    print(
        f"{name}: {found.checkpoints} checkpoints there, {len(found.findings)} findings, {in_words(took)} to upload the rest",
        flush=True,
    )
    experiment.delete()
    return blocked


if __name__ == "__main__":
    main()
