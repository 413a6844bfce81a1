"""A store of each kind with an empty bucket, behind a proxy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from keepsake import Project
from keepsake.storage import from_url
from tests.servers.gcs import FakeGCS
from tests.servers.proxy import Proxy, proxy
from tests.servers.s3 import CREDENTIALS, MotoServer, moto_server
from tests.storage.rigs import pytest_collection_finish, pytest_runtest_makereport

__all__ = ["pytest_collection_finish", "pytest_runtest_makereport"]

BUCKET = "acme-hotdog"


@pytest.fixture(autouse=True)
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let listings go over pages as short as few objects fill, since each has to be written first."""
    for kind in ("s3", "gcs"):
        monkeypatch.setattr(f"keepsake.storage.{kind}.store.PAGE_KEYS", 100)


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    with moto_server() as server:
        yield server


@pytest.fixture
def s3_server(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> MotoServer:
    """An S3 server with an empty bucket, which clients find."""
    moto.reset()
    moto.client.create_bucket(Bucket=BUCKET)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto.url)
    return moto


def real_bucket(scheme: str) -> str | None:
    """Return the bucket, and the prefix, of a real store that these tests may use, if a variable names one.

    To be asked before a test begins, which takes our variables away.
    """
    named = os.environ.get(f"KEEPSAKE_TEST_{scheme.upper()}_URL")
    return named.removeprefix(f"{scheme}://").rstrip("/") if named else None


REAL = {f"{scheme}-real": bucket for scheme in ("s3", "gs") if (bucket := real_bucket(scheme))}


@pytest.fixture(params=["s3", "gs", *REAL])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before a store with an empty bucket; clients are told of the proxy."""
    variable = "AWS_ENDPOINT_URL_S3" if request.param.startswith("s3") else "STORAGE_EMULATOR_HOST"
    with _server(request, monkeypatch) as url, proxy(url, seed=request.node.name) as between:
        monkeypatch.setenv(variable, between.url)
        yield between


@contextmanager
def _server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "s3":
        yield request.getfixturevalue("s3_server").url
    elif request.param == "gs":
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
        with FakeGCS(BUCKET) as fake:
            yield fake.url
    else:
        variable = "AWS_ENDPOINT_URL_S3" if request.param == "s3-real" else "STORAGE_EMULATOR_HOST"
        if variable not in os.environ:
            pytest.fail(
                f"{variable} must say where the proxy of these tests leads to; the suite alone runs without: -k TestS3Real"
            )
        yield os.environ[variable]


@pytest.fixture
def remote(project: Project, store: Proxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project that records into the store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.directory.parent / "cache"))
    kind = request.node.callspec.params["store"]
    scheme = kind.partition("-")[0]
    place = f"{REAL[kind]}/keepsake-test-{os.urandom(6).hex()}" if kind in REAL else BUCKET
    (project.directory / "keepsake.yaml").write_text(f"repository: {scheme}://{place}/runs\n", encoding="utf-8")
    yield Project()
    if kind in REAL:
        # What the test has left, whatever it did to the way there.
        store.is_down, store.share, store.latency_s = False, 0.0, 0.0
        store.plan_nothing()
        left = from_url(f"{scheme}://{place}")
        left.delete([info.key for info in left.list()])
