"""A store of each kind with an empty bucket, behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keepsake import Project
from tests.servers.gcs import FakeGCS
from tests.servers.proxy import Proxy, proxy
from tests.servers.s3 import CREDENTIALS, MotoServer, moto_server
from tests.storage.rigs import pytest_collection_finish, pytest_runtest_makereport

__all__ = ["pytest_collection_finish", "pytest_runtest_makereport"]

BUCKET = "acme-hotdog"


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


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before a store with an empty bucket; clients are told of the proxy."""
    if request.param == "s3":
        server: MotoServer = request.getfixturevalue("s3_server")
        with proxy(server.url, seed=request.node.name) as between:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
            yield between
    else:
        with FakeGCS(BUCKET) as fake, proxy(fake.url, seed=request.node.name) as between:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", between.url)
            monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
            yield between


@pytest.fixture
def remote(project: Project, store: Proxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that records into the store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.directory.parent / "cache"))
    scheme = request.node.callspec.params["store"]
    (project.directory / "keepsake.yaml").write_text(f"repository: {scheme}://{BUCKET}/runs\n", encoding="utf-8")
    return Project()
