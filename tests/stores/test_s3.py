"""The suite on S3, and what only S3 can do: parts, batches, other people's servers, and many ways of refusing."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
import botocore.exceptions
import pytest

from keepsake.exceptions import (
    AccessDenied,
    ObjectNotFound,
    ReadError,
    RepositoryConfigurationError,
    StorageError,
    StorageUnavailable,
)
from keepsake.storage.s3 import S3Storage
from keepsake.storage.s3.upload import IN_FLIGHT_BYTES, MAX_PARTS, PART_BYTES, part_bytes
from tests.servers.proxy import Fault, Proxy, proxy
from tests.servers.s3 import MotoServer
from tests.storage.conformance import LONGEST_KEY, Raw, StorageTests, overrides_suite
from tests.stores.conftest import BUCKET


class RawS3:
    """The objects of the server, below a prefix."""

    def __init__(self, client: Any, root: str = "", bucket: str = BUCKET) -> None:
        self._client, self._root, self._bucket = client, root, bucket

    def get(self, key: str) -> bytes | None:
        try:
            return bytes(self._client.get_object(Bucket=self._bucket, Key=self._root + key)["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None

    def set(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._root + key, Body=content)

    def keys(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._root)
        return sorted(item["Key"].removeprefix(self._root) for page in pages for item in page.get("Contents", ()))


@pytest.fixture
def server(s3_server: MotoServer) -> MotoServer:
    return s3_server


@pytest.fixture
def storage(server: MotoServer) -> S3Storage:
    return S3Storage(BUCKET)


class TestS3(StorageTests):
    rig = "s3"

    @pytest.fixture
    def storage(self, server: MotoServer) -> S3Storage:
        return S3Storage(BUCKET)

    @pytest.fixture
    def raw(self, server: MotoServer) -> RawS3:
        return RawS3(server.client)


class TestS3Prefix(StorageTests):
    rig = "s3-prefix"

    @pytest.fixture
    def storage(self, server: MotoServer) -> S3Storage:
        for name in ("team/hot", "team/hotdog", "team/hotdogs/a", "team/hotdog.json", "a", "team/a"):
            RawS3(server.client).set(name, b"somebody else's")
        return S3Storage(f"{BUCKET}/team/hotdog")

    @pytest.fixture
    def raw(self, server: MotoServer) -> RawS3:
        return RawS3(server.client, "team/hotdog/")

    @pytest.mark.parametrize("key", ["with space", "per%20cent", "üñí/模型", "#hash?query", LONGEST_KEY[:1000]])
    @overrides_suite("the limit of 1,024 bytes is that of the prefix and the key together")
    def test_odd_keys_are_keys(self, storage: S3Storage, raw: Raw, key: str) -> None:
        super().test_odd_keys_are_keys(storage, raw, key)


class TestS3Faults(StorageTests):
    """A fifth of all requests fails, and nobody notices."""

    rig = "s3-faults"

    @pytest.fixture
    def storage(self, server: MotoServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Storage]:
        monkeypatch.setattr("keepsake.storage.s3.client.ATTEMPTS", 8)
        with proxy(server.url, share=0.2, seed=request.node.name) as between:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
            yield S3Storage(BUCKET)

    @pytest.fixture
    def raw(self, server: MotoServer) -> RawS3:
        return RawS3(server.client)


REAL_URL = os.environ.get("KEEPSAKE_TEST_S3_URL", "")


class TestS3Real(StorageTests):
    """The suite on a real bucket, where ``KEEPSAKE_TEST_S3_URL`` names one: moto forgives what others refuse."""

    __test__ = bool(REAL_URL)
    rig = "s3-real"

    @pytest.fixture
    def storage(self) -> Iterator[S3Storage]:
        location = f"{REAL_URL.removeprefix('s3://').rstrip('/')}/keepsake-test-{os.urandom(6).hex()}"
        storage = S3Storage(location)
        yield storage
        storage.delete([info.key for info in storage.list()])

    @pytest.fixture
    def raw(self, storage: S3Storage) -> RawS3:
        return RawS3(boto3.client("s3"), f"{storage.prefix}/", storage.bucket)

    @pytest.mark.parametrize("key", ["with space", "per%20cent", "üñí/模型", "#hash?query", LONGEST_KEY[:900]])
    @overrides_suite("the limit of 1,024 bytes is that of the prefix and the key together")
    def test_odd_keys_are_keys(self, storage: S3Storage, raw: Raw, key: str) -> None:
        super().test_odd_keys_are_keys(storage, raw, key)

    @pytest.mark.skipif("AWS_ENDPOINT_URL_S3" not in os.environ, reason="Amazon's own address cannot be reached through a proxy")
    @pytest.mark.parametrize("size_bytes", [1000, PART_BYTES + 1000])
    def test_what_arrives_damaged_is_refused(self, storage: S3Storage, monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
        storage.write("a", b"old")
        with proxy(os.environ["AWS_ENDPOINT_URL_S3"]) as between, monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL_S3", between.url)
            between.plan(Fault("alter request", match="PUT", times=1000))
            with pytest.raises(StorageError, match="cannot write a in"):
                storage.write("a", b"x" * size_bytes)
        assert storage.read("a") == b"old"


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 50_000_000])
@pytest.mark.parametrize("kind", ["stream", "path"])
def test_bodies_of_any_length_arrive(storage: S3Storage, tmp_path: Path, size_bytes: int, kind: str) -> None:
    content = random.Random(size_bytes).randbytes(size_bytes)
    path = tmp_path / "body"
    path.write_bytes(content)
    storage.write("a/b", path if kind == "path" else io.BytesIO(content))
    assert storage.read("a/b") == content
    with storage.open("a/b") as file:
        assert file.read() == content
    assert storage.read_range("a/b", max(0, size_bytes - 10), 100) == content[-10:]


@pytest.mark.parametrize("size_bytes", [1 << 20, 48 << 30, 49 << 30, 5 << 40])
@pytest.mark.parametrize("is_known", [True, False])
def test_an_object_of_any_size_has_few_enough_parts(size_bytes: int, *, is_known: bool) -> None:
    """The original stopped at 48.8 GiB: 10,000 parts of 5 MiB."""
    count, left = 0, size_bytes
    while left > 0:
        length = part_bytes(count, size_bytes if is_known else None)
        assert 5 << 20 <= length <= 5 << 30  # Amazon's limits for a part
        left -= length
        count += 1
    assert count <= MAX_PARTS


class _Counting:
    """A client that keeps the parts of an upload, and refuses what Amazon would."""

    def __init__(self, shortest: int) -> None:
        self.shortest = shortest
        self.bodies: dict[int, bytes] = {}

    def create_multipart_upload(self, **_: object) -> dict[str, object]:
        return {"UploadId": "1"}

    def upload_part(self, *, PartNumber: int, Body: bytes, **_: object) -> dict[str, object]:
        assert 1 <= PartNumber <= 10_000
        self.bodies[PartNumber] = Body
        return {"ETag": str(PartNumber)}

    def complete_multipart_upload(self, *, MultipartUpload: dict[str, Any], **_: object) -> dict[str, object]:
        numbers = [part["PartNumber"] for part in MultipartUpload["Parts"]]
        assert numbers == sorted(self.bodies)
        assert all(len(self.bodies[number]) >= self.shortest for number in numbers[:-1])
        return {}


@pytest.mark.parametrize("kind", ["stream", "path"])
@pytest.mark.parametrize("terabytes", [0.05, 1, 5])
def test_five_terabytes_are_no_more_than_ten_thousand_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, terabytes: float, kind: str
) -> None:
    """All of it a million times smaller: the shortest part, and the object."""
    monkeypatch.setattr("keepsake.storage.s3.upload.PART_BYTES", PART_BYTES >> 20)
    monkeypatch.setattr("keepsake.storage.s3.upload.IN_FLIGHT_BYTES", IN_FLIGHT_BYTES >> 20)
    client = _Counting(5)
    monkeypatch.setattr("keepsake.storage.s3.store.current_client", lambda: client)
    content = random.Random(1).randbytes(int(terabytes * (1 << 20)))
    path = tmp_path / "body"
    path.write_bytes(content)
    S3Storage(BUCKET).write("large", path if kind == "path" else io.BytesIO(content))
    assert len(client.bodies) > 1
    assert b"".join(client.bodies[number] for number in sorted(client.bodies)) == content


class _Failing(io.RawIOBase):
    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self._left = size_bytes

    def read(self, size: int = -1) -> bytes:
        if self._left <= 0:
            raise RuntimeError("the body failed")
        self._left -= size
        return b"x" * size


def test_an_upload_that_fails_leaves_nothing(storage: S3Storage, server: MotoServer) -> None:
    storage.write("a", b"old")
    with pytest.raises(RuntimeError, match="the body failed"):
        storage.write("a", cast("BinaryIO", _Failing(3 * PART_BYTES)))
    assert storage.read("a") == b"old"
    assert server.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


def test_memory_does_not_grow_with_what_is_stored(storage: S3Storage, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(400 << 20)
    storage.write("warm", b"x" * PART_BYTES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    storage.write("large", large)
    with storage.open("large") as stream:
        while stream.read(1 << 20):
            pass
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown_bytes < 150 << 20


# --- other people's servers -------------------------------------------------------------------------------------------


@pytest.fixture
def between(server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy(server.url) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.url)
        yield running


@pytest.mark.parametrize("size_bytes", [1000, 3 * PART_BYTES])
def test_a_body_that_breaks_off_is_fetched_on(storage: S3Storage, between: Proxy, size_bytes: int) -> None:
    content = random.Random(1).randbytes(size_bytes)
    storage.write("a", content)
    between.forget()
    between.plan(Fault("cut", match="GET", times=3))
    assert storage.read("a") == content
    between.plan(Fault("cut", match="GET", times=3))
    with storage.open("a") as file:
        assert file.read() == content
    assert between.requests[f"GET /{BUCKET}/a"] == 8


def test_a_body_that_stays_short_is_an_error(storage: S3Storage, between: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepsake.storage.s3.download.RESUMES", 2)
    storage.write("a", b"x" * 1000)
    between.plan(Fault("cut", match="GET"), Fault("reset", match="GET", times=1000))
    with pytest.raises(StorageUnavailable, match="cannot read a in"):
        storage.read("a")


def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(storage: S3Storage, between: Proxy) -> None:
    storage.write("a", b"old" * 10_000)
    between.plan(Fault("cut", match="GET"))
    with storage.open("a") as file:
        file.read(1)
        storage.write("a", b"new" * 10_000)
        with pytest.raises(ReadError, match="was replaced while it was read"):
            file.read()


@pytest.mark.parametrize("read", [lambda storage: storage.read("a"), lambda storage: storage.read_range("a", 0, 100_000)])
def test_what_is_replaced_while_it_is_read_at_once_is_read_anew(
    storage: S3Storage, server: MotoServer, between: Proxy, read: Callable[[S3Storage], bytes]
) -> None:
    old, new = random.Random(1).randbytes(100_000), random.Random(2).randbytes(100_000)
    storage.write("a", old)
    between.forget()
    between.plan(Fault("cut", match="GET", then=lambda: RawS3(server.client).set("a", new)))
    assert read(storage) == new
    # The first half of the old one, the refusal of its rest, and the new one.
    assert between.requests[f"GET /{BUCKET}/a"] == 3


def test_what_is_replaced_whenever_it_is_read_is_an_error_in_the_end(
    storage: S3Storage, server: MotoServer, between: Proxy
) -> None:
    storage.write("a", b"x" * 10_000)
    turns = iter(range(1000))
    between.plan(Fault("cut", match="GET", times=1000, then=lambda: RawS3(server.client).set("a", b"%d" % next(turns) * 5_000)))
    with pytest.raises(ReadError, match="was replaced while it was read"):
        storage.read("a")


def test_what_is_deleted_while_it_is_read_is_missing(storage: S3Storage, server: MotoServer, between: Proxy) -> None:
    storage.write("a", b"x" * 10_000)
    between.plan(Fault("cut", match="GET", then=lambda: server.client.delete_object(Bucket=BUCKET, Key="a")))
    with pytest.raises(ObjectNotFound):
        storage.read("a")


def test_what_is_read_whole_is_held_against_its_checksum(storage: S3Storage, between: Proxy) -> None:
    content = random.Random(1).randbytes(1_000_000)
    storage.write("a", content)
    between.plan(Fault("alter", match="GET", times=2))
    with pytest.raises(ReadError, match="a in s3://acme-hotdog does not match its checksum"):
        storage.read("a")
    with storage.open("a") as file, pytest.raises(ReadError, match="does not match its checksum"):
        list(iter(lambda: file.read(1000), b""))
    # A part of it cannot be compared, and those who read parts know the digests of what is in them.
    between.plan(Fault("cut", match="GET", times=2))
    assert storage.read("a") == content


@pytest.mark.parametrize("size_bytes", [1000, PART_BYTES])
def test_what_a_careless_store_takes_damaged_is_never_data(storage: S3Storage, between: Proxy, size_bytes: int) -> None:
    """moto does not compare the digest that an upload carries."""
    between.plan(Fault("alter request", match="PUT"))
    storage.write("a", b"x" * size_bytes)
    with pytest.raises(ReadError, match="does not match its checksum"):
        storage.read("a")


@pytest.mark.parametrize("size_bytes", [1000, 3 * PART_BYTES])
def test_an_upload_carries_the_digest_of_each_part(storage: S3Storage, between: Proxy, size_bytes: int) -> None:
    seen: list[tuple[Mapping[str, str], bytes]] = []
    between.watch = lambda line, headers, body: seen.append((headers, body)) if line.startswith("PUT") else None
    storage.write("a", random.Random(1).randbytes(size_bytes))
    assert sum(len(body) for _, body in seen) == size_bytes
    for headers, body in seen:
        assert headers["Content-MD5"] == base64.b64encode(hashlib.md5(body).digest()).decode()


def test_what_others_have_written_has_no_checksum(storage: S3Storage, server: MotoServer) -> None:
    RawS3(server.client).set("a", b"as 0.4.2 does")
    assert storage.read("a") == b"as 0.4.2 does"


@pytest.mark.parametrize("code", ["MissingContentMD5", "NotImplemented", "AccessDenied"])
def test_a_server_without_batches_deletes_one_by_one(storage: S3Storage, between: Proxy, code: str) -> None:
    for key in "abc":
        storage.write(key, b"x")
    body = f"<Error><Code>{code}</Code></Error>".encode()
    between.plan(Fault("status", match="POST", times=10, status=400, body=body))
    storage.delete(["a", "b", "nowhere"])
    assert [info.key for info in storage.list()] == ["c"]


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (404, "NoSuchBucket", ReadError, "bucket acme-hotdog does not exist"),
        (403, "InvalidAccessKeyId", AccessDenied, "credentials for s3://acme-hotdog were refused"),
        (403, "SignatureDoesNotMatch", AccessDenied, "were refused"),
        (403, "AccessDenied", AccessDenied, "do not allow it"),
        (400, "ExpiredToken", AccessDenied, "have expired"),
        (403, "RequestTimeTooSkewed", AccessDenied, "the clock of this machine is wrong"),
        (400, "AuthorizationHeaderMalformed", ReadError, "the bucket is in another region"),
        (404, "NoSuchKey", ObjectNotFound, "no object a in s3://acme-hotdog"),
        (503, "SlowDown", StorageUnavailable, "unreachable for now"),
        (500, "InternalError", StorageUnavailable, "unreachable for now"),
        (429, "TooManyRequests", StorageUnavailable, "unreachable for now"),
        (418, "Teapot", ReadError, "cannot read a in s3://acme-hotdog: Teapot m$"),
    ],
)
def test_each_refusal_is_an_error_of_its_own(
    storage: S3Storage, between: Proxy, monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: type[Exception], said: str
) -> None:
    monkeypatch.setattr("keepsake.storage.s3.download.RESUMES", 1)
    body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
    between.plan(Fault("status", times=1000, status=status, body=body))
    with pytest.raises(StorageError, match=said) as caught:
        storage.read("a")
    assert type(caught.value) is kind
    assert caught.value.url == "s3://acme-hotdog"


def test_a_missing_object_is_told_where_its_absence_is_refused(storage: S3Storage, between: Proxy) -> None:
    """So answer Amazon and Ceph those who may list below a prefix only."""
    storage.write("there", b"x")
    refused = Fault("status", match=f"/{BUCKET}/th", times=1000, status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
    between.plan(refused)
    uses: list[Callable[[str], object]] = [storage.read, storage.open, lambda key: storage.copy_from(storage, key, "copy")]
    for use in uses:
        with pytest.raises(ObjectNotFound):
            use("the")
        with pytest.raises(AccessDenied):
            use("there")


def test_the_bucket_is_asked_for_below_the_prefix_only(between: Proxy) -> None:
    seen: list[str] = []
    between.watch = lambda line, _headers, _body: seen.append(line)
    assert S3Storage(f"{BUCKET}/runs").exists()
    assert not S3Storage("nowhere-at-all/runs").exists()
    assert all("prefix=runs%2F" in line for line in seen)


def test_a_refusal_without_words_is_said_by_its_code(storage: S3Storage, between: Proxy) -> None:
    """As Ceph does."""
    between.plan(Fault("status", times=1000, status=403, body=b"<Error><Code>AccessDenied</Code><Message/></Error>"))
    with pytest.raises(AccessDenied) as caught:
        storage.read("a")
    assert list(caught.value.facts) == ["AccessDenied"]


def _every_sdk_error() -> list[Exception]:
    """Return one of each error that the library raises."""
    found: list[Exception] = []
    for kind in vars(botocore.exceptions).values():
        if isinstance(kind, type) and issubclass(kind, Exception):
            error = kind.__new__(kind)
            Exception.__init__(error, "something")
            found.append(error)
    return [error for error in found if not isinstance(error, botocore.exceptions.ClientError)]


@pytest.mark.parametrize("error", _every_sdk_error(), ids=lambda error: type(error).__name__)
def test_no_error_of_the_library_escapes(storage: S3Storage, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(S3Storage, "call", fail)
    monkeypatch.setattr("keepsake.storage.s3.download.RESUMES", 0)
    uses: list[Callable[[], object]] = [
        lambda: storage.read("a"),
        lambda: storage.open("a"),
        lambda: storage.read_range("a", 0, 1),
        lambda: storage.write("a", b"x"),
        lambda: storage.write("a", io.BytesIO(b"x" * (PART_BYTES + 1))),
        lambda: storage.delete(["a"]),
        lambda: storage.delete(["a", "b"]),
        lambda: list(storage.list("a")),
        lambda: storage.exists(),
        lambda: storage.copy_from(storage, "a", "b"),
    ]
    for use in uses:
        with pytest.raises(StorageError) as caught:
            use()
        assert caught.value.__cause__ is error


def test_no_credentials_is_said(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDenied, match="no AWS credentials for s3://acme-hotdog") as caught:
        storage.read("a")
    assert caught.value.hint is not None
    assert caught.value.facts[0].startswith("looked at: AWS_* variables")


def test_nobody_there_is_said(storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepsake.storage.s3.download.RESUMES", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    with pytest.raises(StorageUnavailable, match="cannot list s3://acme-hotdog: unreachable for now") as caught:
        list(storage.list())
    assert caught.value.message.endswith(f": http://127.0.0.1:{port})")


def test_a_forked_child_has_connections_of_its_own(storage: S3Storage) -> None:
    storage.write("a", b"x" * 100_000)
    child = os.fork()
    if child == 0:
        os._exit(0 if storage.read("a") == b"x" * 100_000 else 1)
    assert storage.read("a") == b"x" * 100_000
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("location", ["", "/", "a", "UP/../x", "bucket//x", "-bucket/x"])
def test_what_is_no_place_is_refused(location: str) -> None:
    with pytest.raises(RepositoryConfigurationError):
        S3Storage(location)
