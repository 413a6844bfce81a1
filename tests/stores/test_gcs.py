"""Google Cloud Storage, on a server of our own that speaks its API; and on a real bucket where one is named."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.cloud.storage", reason="the extra gcs is not installed")

import google.api_core.exceptions
import google.auth.exceptions
import google.auth.transport.requests
import google.cloud.storage
import google.cloud.storage.exceptions
import google.resumable_media
import requests
import urllib3.exceptions

from keepsake.exceptions import (
    AccessDenied,
    MissingDependency,
    ObjectNotFound,
    ReadError,
    RepositoryConfigurationError,
    StorageError,
    StorageUnavailable,
    WriteError,
)
from keepsake.storage.gcs import GCSStorage
from keepsake.storage.gcs.download import READ_BYTES
from keepsake.storage.gcs.errors import LOG_IN
from keepsake.storage.gcs.upload import PART_BYTES
from tests.servers.gcs import QUANTUM_BYTES, FakeGCS, Fault
from tests.storage.conformance import LARGE, LONGEST_KEY, BreaksOff, Raw, StorageTests, Unseekable, overrides_suite

BUCKET = "acme-models"

VERBS: list[tuple[str, Callable[[GCSStorage], Any]]] = [
    ("read", lambda storage: storage.read("a")),
    ("open", lambda storage: storage.open("a").read()),
    ("read_range", lambda storage: storage.read_range("a", 2, 3)),
    ("list", lambda storage: list(storage.list())),
    ("write", lambda storage: storage.write("a", b"new")),
    ("write in parts", lambda storage: storage.write("a", bytes(PART_BYTES + 1))),
    ("delete", lambda storage: storage.delete(["a"])),
    ("delete several", lambda storage: storage.delete(["a", "b", "c"])),
    ("copy", lambda storage: storage.copy_from(storage, "a", "b")),
    ("exists", lambda storage: storage.exists()),
    ("create", lambda storage: storage.create()),
]

every_verb = pytest.mark.parametrize("use", [use for _, use in VERBS], ids=[name for name, _ in VERBS])
KEYED_VERBS = [(name, use) for name, use in VERBS if name not in ("exists", "create")]


class RawGCS:
    """The objects of the server, below a prefix."""

    def __init__(self, server: FakeGCS, root: str = "") -> None:
        self._server, self._root = server, root

    def get(self, key: str) -> bytes | None:
        found = self._server.buckets[BUCKET].get(self._root + key)
        return found.content if found else None

    def set(self, key: str, content: bytes) -> None:
        self._server.put(BUCKET, self._root + key, content)

    def keys(self) -> list[str]:
        return sorted(name.removeprefix(self._root) for name in self._server.buckets[BUCKET] if name.startswith(self._root))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGCS]:
    with FakeGCS(BUCKET) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
        yield running


@pytest.fixture
def storage(server: FakeGCS) -> GCSStorage:
    return GCSStorage(BUCKET)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up at once, so that a test of what never mends does not last half a minute."""
    monkeypatch.setattr("keepsake.storage.gcs.errors.RETRY_FOR_S", 0.0)


# --- the suite --------------------------------------------------------------------------------------------------------


class TestGCS(StorageTests):
    rig = "gcs"

    @pytest.fixture
    def storage(self, server: FakeGCS) -> GCSStorage:
        return GCSStorage(BUCKET)

    @pytest.fixture
    def raw(self, server: FakeGCS) -> RawGCS:
        return RawGCS(server)


class TestGCSPrefix(StorageTests):
    rig = "gcs-prefix"

    @pytest.fixture
    def storage(self, server: FakeGCS) -> GCSStorage:
        for name in ("team/hot", "team/hotdog", "team/hotdogs/a", "team/hotdog.json", "a", "team/a"):
            server.put(BUCKET, name, b"somebody else's")
        return GCSStorage(f"{BUCKET}/team/hotdog")

    @pytest.fixture
    def raw(self, server: FakeGCS) -> RawGCS:
        return RawGCS(server, "team/hotdog/")

    @pytest.mark.parametrize("key", ["with space", "per%20cent", "üñí/模型", "#hash?query", LONGEST_KEY[:1000]])
    @overrides_suite("the limit of 1,024 bytes is that of the prefix and the key together")
    def test_odd_keys_are_keys(self, storage: GCSStorage, raw: Raw, key: str) -> None:
        super().test_odd_keys_are_keys(storage, raw, key)


class TestGCSFaults(StorageTests):
    """A fifth of all requests fails, and nobody notices."""

    rig = "gcs-faults"

    @pytest.fixture
    def server(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGCS]:
        # Each test has faults of its own, and the same ones in every run.
        with FakeGCS(BUCKET, share=0.2, seed=request.node.name) as running:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
            yield running

    @pytest.fixture
    def storage(self, server: FakeGCS) -> GCSStorage:
        return GCSStorage(BUCKET)

    @pytest.fixture
    def raw(self, server: FakeGCS) -> RawGCS:
        return RawGCS(server)


class RawReal:
    """A real bucket, by Google's own client."""

    def __init__(self, storage: GCSStorage) -> None:
        self._root = f"{storage.prefix}/"
        self._bucket = google.cloud.storage.Client().bucket(storage.bucket)

    def get(self, key: str) -> bytes | None:
        blob = self._bucket.blob(self._root + key)
        return bytes(blob.download_as_bytes()) if blob.exists() else None

    def set(self, key: str, content: bytes) -> None:
        self._bucket.blob(self._root + key).upload_from_string(content)

    def keys(self) -> list[str]:
        return sorted(blob.name.removeprefix(self._root) for blob in self._bucket.list_blobs(prefix=self._root))


REAL_URL = os.environ.get("KEEPSAKE_TEST_GS_URL", "")


class TestGCSReal(StorageTests):
    """The suite on a real bucket, where ``KEEPSAKE_TEST_GS_URL`` names one."""

    __test__ = bool(REAL_URL)
    rig = "gcs-real"

    @pytest.fixture
    def storage(self) -> Iterator[GCSStorage]:
        location = f"{REAL_URL.removeprefix('gs://').rstrip('/')}/keepsake-test-{os.urandom(6).hex()}"
        storage = GCSStorage(location)
        yield storage
        storage.delete([info.key for info in storage.list()])

    @pytest.fixture
    def raw(self, storage: GCSStorage) -> RawReal:
        return RawReal(storage)

    @pytest.mark.parametrize("key", ["with space", "per%20cent", "üñí/模型", "#hash?query", LONGEST_KEY[:900]])
    @overrides_suite("the limit of 1,024 bytes is that of the prefix and the key together")
    def test_odd_keys_are_keys(self, storage: GCSStorage, raw: Raw, key: str) -> None:
        super().test_odd_keys_are_keys(storage, raw, key)


# --- the server behaves as Google's client expects --------------------------------------------------------------------


def test_googles_own_client_understands_the_server(storage: GCSStorage, server: FakeGCS) -> None:
    bucket = google.cloud.storage.Client().bucket(BUCKET)
    bucket.blob("small").upload_from_string(b"small")
    content = os.urandom(LARGE)
    large = bucket.blob("large", chunk_size=1 << 20)
    large.upload_from_file(io.BytesIO(content), checksum="crc32c")
    assert (storage.read("small"), storage.read("large")) == (b"small", content)
    storage.write("ours", content)
    assert bucket.blob("ours").download_as_bytes(checksum="crc32c") == content
    assert bucket.blob("ours").download_as_bytes(start=5, end=9) == content[5:10]
    assert [blob.name for blob in bucket.list_blobs()] == ["large", "ours", "small"]
    with pytest.raises(google.api_core.exceptions.PreconditionFailed):
        bucket.blob("ours").upload_from_string(b"new", if_generation_match=0)
    bucket.blob("ours").delete()
    with pytest.raises(google.api_core.exceptions.NotFound):
        bucket.blob("ours").delete()
    damaged = bucket.blob("damaged")
    damaged.md5_hash = "AAAAAAAAAAAAAAAAAAAAAA=="
    with pytest.raises(google.api_core.exceptions.BadRequest):
        damaged.upload_from_string(b"x", checksum=None)


# --- locations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location", ["", "/prefix", "Acme", "a", "acme?x", "user:password@acme", "acme/a//b", "acme/../b", "acme/a\\b"]
)
def test_a_bad_location_is_refused(location: str) -> None:
    with pytest.raises(RepositoryConfigurationError) as caught:
        GCSStorage(location)
    assert caught.value.hint == "write gs://BUCKET/PREFIX"


def test_slashes_at_the_end_do_not_matter() -> None:
    assert GCSStorage("acme/").url == GCSStorage("acme").url == "gs://acme"
    assert GCSStorage("acme/models/").url == "gs://acme/models"
    assert repr(GCSStorage("acme/models")) == "GCSStorage('acme/models')"


def test_a_key_that_is_too_long_with_its_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="bad storage key"):
        GCSStorage("acme/models").read(LONGEST_KEY)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_small_read_is_one_request_on_a_connection_that_is_kept(storage: GCSStorage, server: FakeGCS) -> None:
    server.put(BUCKET, "a", b"x" * 2000)
    for _ in range(20):
        assert storage.read("a") == b"x" * 2000
        assert storage.read_range("a", 5, 1995) == b"x" * 1995
        with pytest.raises(ObjectNotFound):
            storage.read("missing")
    assert (len(server.requests), server.connections) == (60, 1)


def test_only_the_range_that_is_asked_for_is_sent(storage: GCSStorage, server: FakeGCS) -> None:
    server.put(BUCKET, "a", bytes(50_000_000))
    assert storage.read_range("a", 40_000_000, 1000) == bytes(1000)
    assert server.sent_bytes == 1000


@pytest.mark.parametrize("start", [0, 3, 700_000, LARGE - 2, LARGE, LARGE + 5])
def test_the_slice_is_taken_where_a_server_ignores_ranges(storage: GCSStorage, server: FakeGCS, start: int) -> None:
    content = os.urandom(LARGE)
    server.put(BUCKET, "a", content)
    server.plan(Fault("alt=media", ignore_range=True))
    assert storage.read_range("a", start, 600_000) == content[start : start + 600_000]


@pytest.mark.parametrize("again", ["range", "whole"])
@pytest.mark.parametrize("keep", [0, 1, READ_BYTES, LARGE - 1])
def test_a_body_that_breaks_off_is_continued(storage: GCSStorage, server: FakeGCS, keep: int, again: str) -> None:
    content = os.urandom(LARGE)
    server.put(BUCKET, "a", content)
    server.plan(Fault("alt=media", reset="inside", keep=keep), Fault("alt=media", ignore_range=again == "whole"))
    with storage.open("a") as file:
        assert file.read() == content
    assert len(server.requests) == 2
    assert "generation=" in server.requests[1]
    if again == "range":
        assert server.sent_bytes < LARGE + 2 * READ_BYTES


def test_what_breaks_off_again_and_again_is_read_as_long_as_it_goes_on(storage: GCSStorage, server: FakeGCS) -> None:
    content = os.urandom(LARGE)
    server.put(BUCKET, "a", content)
    server.plan(Fault("alt=media", times=20, reset="inside", keep=READ_BYTES))
    assert storage.read("a") == content


def test_what_never_comes_whole_is_an_error_and_no_data(
    storage: GCSStorage, server: FakeGCS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepsake.storage.gcs.errors.RETRY_FOR_S", 0.3)
    server.put(BUCKET, "a", bytes(1000))
    for use in (lambda: storage.read("a"), lambda: storage.read_range("a", 1, 999)):
        server.faults = [Fault("alt=media", reset="inside", keep=500), Fault("alt=media", times=1000, reset="inside", keep=0)]
        with pytest.raises(StorageUnavailable):
            use()


@pytest.mark.parametrize("knows_generations", [True, False])
@pytest.mark.parametrize("new", [os.urandom(LARGE), b"shorter", None], ids=["same length", "shorter", "gone"])
def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(
    storage: GCSStorage, server: FakeGCS, new: bytes | None, knows_generations: bool
) -> None:
    old = os.urandom(LARGE)
    server.put(BUCKET, "a", old)
    server.plan(Fault("alt=media", reset="inside", keep=5_000_000), Fault("generation=", ignore_generation=not knows_generations))
    with storage.open("a") as file:
        assert file.read(10) == old[:10]
        if new is None:
            storage.delete(["a"])
        else:
            storage.write("a", new)
        with pytest.raises(ReadError, match="a in gs://acme-models was replaced while it was read"):
            file.read()


@pytest.mark.parametrize("read", [lambda storage: storage.read("a"), lambda storage: storage.read_range("a", 0, LARGE)])
def test_what_is_replaced_while_it_is_read_at_once_is_read_anew(
    storage: GCSStorage, server: FakeGCS, read: Callable[[GCSStorage], bytes]
) -> None:
    server.put(BUCKET, "a", os.urandom(LARGE))
    new = os.urandom(LARGE)
    server.plan(Fault("alt=media", reset="inside", keep=5_000_000, then=lambda: server.put(BUCKET, "a", new)))
    assert read(storage) == new


def test_a_range_that_was_not_asked_for_is_no_data(storage: GCSStorage, server: FakeGCS) -> None:
    server.put(BUCKET, "a", b"0123456789")
    server.plan(Fault("alt=media", shift=1))
    with pytest.raises(ReadError, match="the answer does not say what it holds"):
        storage.read_range("a", 2, 3)


def test_what_is_read_whole_is_held_against_its_checksum(storage: GCSStorage, server: FakeGCS) -> None:
    server.put(BUCKET, "a", b"0123456789" * 100_000)
    server.plan(Fault("alt=media", times=2, corrupt=True))
    with pytest.raises(ReadError, match="does not match its checksum"):
        storage.read("a")
    with storage.open("a") as file, pytest.raises(ReadError, match="does not match its checksum"):
        list(iter(lambda: file.read(1000), b""))
    assert storage.read("a") == b"0123456789" * 100_000


def test_a_stream_that_is_left_early_leaves_no_connection_behind(storage: GCSStorage, server: FakeGCS) -> None:
    server.put(BUCKET, "a", bytes(20_000_000))
    for _ in range(3):
        with storage.open("a") as file:
            file.read(10)
    assert server.sent_bytes
    with pytest.raises(ValueError, match="closed"):
        file.read(10)


# --- listing ----------------------------------------------------------------------------------------------------------


def test_pages_of_any_size_make_one_listing(storage: GCSStorage, server: FakeGCS) -> None:
    server.page = 3
    names = [f"e/{number:02}" for number in range(10)] + ["e-1", "e.json", "e", "f", "e0"]
    for name in names:
        server.put(BUCKET, name, b"")
    assert [info.key for info in storage.list()] == sorted(names)
    assert [info.key for info in storage.list("e")] == ["e", *(f"e/{number:02}" for number in range(10))]


def test_what_only_begins_like_a_prefix_is_hardly_sent(storage: GCSStorage, server: FakeGCS) -> None:
    for number in range(500):
        server.put(BUCKET, f"e/ab{number}", b"")
    server.page = 10
    server.put(BUCKET, "e/ab/x", b"")
    assert [info.key for info in storage.list("e/ab")] == ["e/ab/x"]
    assert len(server.requests) == 1


def test_names_that_are_no_keys_are_left_out(storage: GCSStorage, server: FakeGCS) -> None:
    for name in ("folder/", "a//b", "../a", "/a", "a\\b", "x" * 300, "fine"):
        server.put(BUCKET, name, b"")
    assert [info.key for info in storage.list()] == ["fine"]


@pytest.mark.parametrize("skew", [timedelta(days=-3), timedelta(days=3)])
def test_ages_are_by_the_clock_of_the_store(storage: GCSStorage, server: FakeGCS, skew: timedelta) -> None:
    server.clock_skew = skew
    storage.write("old", b"")
    server.clock_skew = skew + timedelta(hours=1)
    storage.write("new", b"")
    ages = {info.key: info.age_s for info in storage.list()}
    assert 0 <= ages["new"] < 60
    assert 3599 <= ages["old"] < 3660


def test_an_answer_that_is_no_listing_is_an_error(storage: GCSStorage, server: FakeGCS) -> None:
    server.plan(Fault(r"/o\?", status=203, text="please sign in to the hotel's network"))
    with pytest.raises(ReadError):
        list(storage.list())


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 2 * PART_BYTES + 1])
def test_objects_of_every_length_arrive_whole(storage: GCSStorage, server: FakeGCS, length: int) -> None:
    content = os.urandom(length)
    storage.write("a", io.BufferedReader(Unseekable(content)))
    assert RawGCS(server).get("a") == content
    in_parts = [request for request in server.requests if request.startswith("PUT")]
    assert len(in_parts) == (0 if length <= PART_BYTES else -(-length // PART_BYTES))


@pytest.mark.parametrize("skip", [0, 1, 2], ids=["first part", "second part", "last part"])
@pytest.mark.parametrize("keep", [0, 100, 3_000_000, PART_BYTES])
def test_an_upload_that_breaks_off_goes_on_from_where_it_was(storage: GCSStorage, server: FakeGCS, keep: int, skip: int) -> None:
    content = os.urandom(2 * PART_BYTES + 3_500_000)
    server.plan(Fault("^PUT", skip=skip, reset="inside", keep=keep))
    storage.write("a", io.BufferedReader(Unseekable(content)))
    assert RawGCS(server).get("a") == content
    assert server.uploaded_bytes < len(content) + QUANTUM_BYTES


@pytest.mark.parametrize(
    "fault", [Fault("^PUT", skip=2, reset="after"), Fault("^PUT", skip=1, reset="after"), Fault("^PUT", status=503)]
)
def test_an_answer_that_is_lost_does_no_harm(storage: GCSStorage, server: FakeGCS, fault: Fault) -> None:
    content = os.urandom(2 * PART_BYTES + 5)
    server.plan(fault)
    storage.write("a", content)
    assert RawGCS(server).get("a") == content


def test_an_upload_that_the_store_has_lost_may_be_tried_again(storage: GCSStorage, server: FakeGCS) -> None:
    server.plan(Fault("^PUT", skip=1, status=410))
    with pytest.raises(StorageUnavailable, match="the store has lost what was uploaded"):
        storage.write("a", bytes(3 * PART_BYTES))
    assert RawGCS(server).keys() == []


@pytest.mark.parametrize("length", [5, PART_BYTES, 2 * PART_BYTES + 5])
def test_what_arrives_damaged_is_never_seen(storage: GCSStorage, server: FakeGCS, length: int) -> None:
    server.put(BUCKET, "a", b"old")
    server.plan(Fault("^PUT|uploadType=multipart", corrupt=True))
    with pytest.raises(WriteError, match="doesn't match"):
        storage.write("a", os.urandom(length))
    assert RawGCS(server).get("a") == b"old"


@pytest.mark.parametrize("length", [5, 2 * PART_BYTES + 5])
def test_what_a_careless_store_takes_damaged_is_taken_back(storage: GCSStorage, server: FakeGCS, length: int) -> None:
    server.checks = False
    server.plan(Fault("^PUT|uploadType=multipart", corrupt=True))
    with pytest.raises(WriteError, match="arrived damaged"):
        storage.write("a", os.urandom(length))
    assert RawGCS(server).keys() == []


def test_an_upload_whose_body_fails_is_given_up(storage: GCSStorage, server: FakeGCS) -> None:
    with pytest.raises(RuntimeError, match="broke off"):
        storage.write("a", io.BufferedReader(BreaksOff(3 * PART_BYTES)))
    assert server.uploads == {}
    assert RawGCS(server).keys() == []


def test_a_body_is_never_held_whole(storage: GCSStorage, server: FakeGCS) -> None:
    # In a process of its own, in whose memory the server is not.
    program = """
import io, pickle, resource, sys
class Zeros(io.RawIOBase):
    left = 300 << 20
    def readable(self): return True
    def readinto(self, buffer):
        count = min(self.left, len(buffer))
        buffer[:count] = bytes(count)
        self.left -= count
        return count
storage = pickle.load(sys.stdin.buffer)
storage.write("small", b"x")
storage.read("small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
storage.write("a", io.BufferedReader(Zeros()))
with storage.open("a") as file:
    length = sum(map(len, iter(lambda: file.read(1 << 20), b"")))
print(length, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    length, grown_kib = map(int, run(program, storage).split())
    assert length == 300 << 20
    assert grown_kib < 60 << 10


# --- beside the contract ----------------------------------------------------------------------------------------------


def test_a_bucket_is_made_when_asked_for_and_only_then(storage: GCSStorage, server: FakeGCS) -> None:
    new = GCSStorage("acme-new/prefix")
    assert not new.exists()
    for use in (lambda: new.write("a", b"x"), lambda: new.write("a", bytes(LARGE)), lambda: list(new.list())):
        with pytest.raises(StorageError):
            use()
    assert "acme-new" not in server.buckets
    new.create()
    assert new.exists()
    assert server.projects["acme-new"] == "acme"
    new.create()
    new.write("a", b"x")
    assert new.read("a") == b"x"


def test_a_bucket_is_made_once_though_the_answer_is_lost(storage: GCSStorage, server: FakeGCS) -> None:
    server.plan(Fault(r"^POST .*/b\?", reset="after"))
    GCSStorage("acme-new").create()
    assert "acme-new" in server.buckets


def test_the_name_of_somebody_elses_bucket_is_taken(storage: GCSStorage, server: FakeGCS) -> None:
    server.plan(Fault("^GET", status=403))
    with pytest.raises(WriteError, match="somebody else has a bucket named acme-models"):
        storage.create()


def test_without_a_project_no_bucket_is_made(storage: GCSStorage, server: FakeGCS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    with pytest.raises(WriteError, match="no Google Cloud project is known") as caught:
        GCSStorage("acme-new").create()
    assert caught.value.hint == "export GOOGLE_CLOUD_PROJECT=PROJECT"


@pytest.mark.parametrize("length", [0, 5, 5_000_000], ids=["empty", "short", "in several steps"])
def test_an_object_is_copied_by_the_store(storage: GCSStorage, server: FakeGCS, length: int) -> None:
    server.buckets["acme-archive"] = {}
    content = os.urandom(length)
    storage.write("old/a", content)
    archive = GCSStorage("acme-archive/2026")
    server.plan(Fault("rewriteTo", status=503))
    archive.copy_from(storage, "old/a", "new/a b")
    assert archive.read("new/a b") == content
    assert storage.read("old/a") == content


def test_what_is_missing_while_copying_is_named(storage: GCSStorage, server: FakeGCS) -> None:
    storage.write("a", b"x")
    with pytest.raises(ObjectNotFound) as missing:
        GCSStorage(f"{BUCKET}/copies").copy_from(storage, "missing", "b")
    assert (missing.value.url, missing.value.key) == (storage.url, "missing")
    with pytest.raises(WriteError, match="bucket acme-new does not exist"):
        GCSStorage("acme-new").copy_from(storage, "a", "b")
    with pytest.raises(ReadError, match="bucket acme-old does not exist"):
        storage.copy_from(GCSStorage("acme-old"), "a", "b")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "use"), KEYED_VERBS, ids=[name for name, _ in KEYED_VERBS])
def test_a_missing_bucket_is_no_missing_object(server: FakeGCS, name: str, use: Callable[[GCSStorage], Any]) -> None:
    with pytest.raises((ReadError, WriteError), match="bucket acme-new does not exist") as caught:
        use(GCSStorage("acme-new/models"))
    assert caught.value.hint == "keepsake init gs://acme-new/models"
    assert isinstance(caught.value, ReadError) == (
        name not in ("write", "write in parts", "delete", "delete several", "copy")
    ) or (name == "copy")


def test_what_is_missing_is_told_whatever_the_words_of_the_store(storage: GCSStorage, server: FakeGCS) -> None:
    server.plan(Fault("alt=media|^DELETE", times=4, status=404, text="gone fishing"))
    for use in (lambda: storage.read("a"), lambda: storage.read_range("a", 0, 1)):
        with pytest.raises(ObjectNotFound):
            use()
    storage.delete(["a"])
    with pytest.raises(ReadError, match="bucket acme-new does not exist"):
        GCSStorage("acme-new").read("a")


ANSWERS: list[tuple[int, str, type[StorageError], str, str | None]] = [
    (400, "bad", StorageError, "400 planned", None),
    (401, "authError", AccessDenied, "the Google Cloud credentials for gs://acme-models were refused", LOG_IN),
    (403, "forbidden", AccessDenied, "the Google Cloud credentials do not allow it", None),
    (408, "", StorageUnavailable, "unreachable for now", None),
    (412, "conditionNotMet", StorageError, "412 planned", None),
    (429, "rateLimitExceeded", StorageUnavailable, "unreachable for now", None),
    (500, "", StorageUnavailable, "unreachable for now", None),
    (501, "", StorageError, "501 planned", None),
    (502, "", StorageUnavailable, "unreachable for now", None),
    (503, "", StorageUnavailable, "unreachable for now", None),
    (504, "", StorageUnavailable, "unreachable for now", None),
]


@every_verb
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("status", "reason", "kind", "text", "hint"), ANSWERS)
def test_every_answer_has_its_error(
    storage: GCSStorage,
    server: FakeGCS,
    use: Callable[[GCSStorage], Any],
    status: int,
    reason: str,
    kind: type[StorageError],
    text: str,
    hint: str | None,
) -> None:
    server.put(BUCKET, "a", b"old value")
    server.plan(Fault("", times=10_000, status=status, reason=reason))
    with pytest.raises(kind, match=re.escape(text)) as caught:
        use(storage)
    assert caught.value.hint == hint
    assert caught.value.url == "gs://acme-models"


def test_a_limit_of_rate_is_no_refusal(storage: GCSStorage, server: FakeGCS) -> None:
    server.plan(Fault("^GET|^POST", times=3, status=403, reason="rateLimitExceeded"))
    storage.write("a", b"x")
    assert [info.key for info in storage.list()] == ["a"]


@every_verb
@pytest.mark.usefixtures("impatient")
def test_a_store_that_cannot_be_reached_is_unavailable(
    storage: GCSStorage, monkeypatch: pytest.MonkeyPatch, use: Callable[[GCSStorage], Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    with pytest.raises(StorageUnavailable, match="no connection"):
        use(storage)


@every_verb
@pytest.mark.usefixtures("impatient")
def test_a_store_that_does_not_answer_is_unavailable(
    storage: GCSStorage, server: FakeGCS, monkeypatch: pytest.MonkeyPatch, use: Callable[[GCSStorage], Any]
) -> None:
    monkeypatch.setattr("keepsake.storage.gcs.store.TIMEOUT_S", (0.2, 0.2))
    server.plan(Fault("", times=10_000, hang=True))
    with pytest.raises(StorageUnavailable, match="no connection"):
        use(storage)


def classes_of(*modules: Any) -> list[type[Exception]]:
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)
    }
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


SDK_ERRORS = classes_of(
    google.api_core.exceptions,
    google.auth.exceptions,
    google.cloud.storage.exceptions,
    google.resumable_media,
    requests.exceptions,
    urllib3.exceptions,
)


def made(kind: type[Exception]) -> Exception:
    """Make an error whatever its constructor wants; only its class matters."""
    for arguments in (["planned"] * count for count in range(4)):
        with suppress(Exception):
            return kind(*arguments)
    return kind.__new__(kind)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", SDK_ERRORS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_no_error_of_the_client_library_escapes(
    storage: GCSStorage, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:

    def fail(*_: Any, **__: Any) -> Any:
        raise made(kind)

    monkeypatch.setattr(google.auth.transport.requests.AuthorizedSession, "request", fail)
    answers = {
        google.api_core.exceptions.NotFound: "exists",
        google.api_core.exceptions.RequestRangeNotSatisfiable: "read_range",
    }
    for name, use in VERBS:
        if answers.get(kind) == name:
            continue
        with pytest.raises(StorageError) as caught:
            use(storage)
        assert isinstance(caught.value, ObjectNotFound) is False
        pickle.loads(pickle.dumps(caught.value))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "kind", classes_of(urllib3.exceptions, requests.exceptions), ids=lambda kind: f"{kind.__module__}.{kind.__name__}"
)
def test_no_error_of_a_connection_escapes_from_a_stream(
    storage: GCSStorage, server: FakeGCS, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    server.put(BUCKET, "a", bytes(LARGE))
    with storage.open("a") as file:
        file.read(10)

        def fail(*_: Any, **__: Any) -> Any:
            raise made(kind)

        monkeypatch.setattr(urllib3.HTTPResponse, "read", fail)
        with pytest.raises((ReadError, StorageUnavailable)):
            file.read()


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(server: FakeGCS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A service account whose tokens come from the server, which asks for one."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    file = tmp_path / "account.json"
    account = {
        "type": "service_account",
        "project_id": "acme-research",
        "private_key_id": "1",
        "private_key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        "client_email": "training@acme-research.iam.gserviceaccount.com",
        "token_uri": f"{server.url}/token",
    }
    file.write_text(json.dumps(account))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", server.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    server.tokens = set()
    return file


def test_the_application_default_credentials_are_used(signed: Path, server: FakeGCS) -> None:
    storage = GCSStorage(BUCKET)
    storage.write("a", b"x")
    assert storage.read("a") == b"x"
    GCSStorage("acme-new").create()
    assert server.projects["acme-new"] == "acme-research"


def test_a_token_that_runs_out_is_renewed(signed: Path, server: FakeGCS) -> None:
    storage = GCSStorage(BUCKET)
    storage.write("a", b"x")
    server.tokens = set()
    assert storage.read("a") == b"x"
    assert len([request for request in server.requests if "/token" in request]) == 2


def test_credentials_that_end_are_told_and_work_again_after_a_new_login(signed: Path, server: FakeGCS) -> None:
    storage = GCSStorage(BUCKET)
    storage.write("a", b"x")
    server.tokens, server.may_sign_in = set(), False
    for use in (lambda: storage.read("a"), lambda: storage.write("a", bytes(LARGE)), lambda: list(storage.list())):
        with pytest.raises(AccessDenied, match="have expired or cannot be renewed") as caught:
            use()
        assert caught.value.hint == "gcloud auth application-default login"
        assert "invalid_grant" in str(caught.value)
        assert "BEGIN PRIVATE KEY" not in str(caught.value)
    server.may_sign_in = True
    assert storage.read("a") == b"x"


def test_another_login_is_taken_up_by_a_program_that_runs(signed: Path, server: FakeGCS) -> None:
    storage = GCSStorage(BUCKET)
    server.plan(Fault("/token$", times=1000, status=400))
    with pytest.raises(AccessDenied):
        storage.write("a", b"x")
    signed.write_text(signed.read_text().replace("/token", "/token?of=another"))
    storage.write("a", b"x")
    assert storage.read("a") == b"x"


@every_verb
def test_missing_credentials_are_told_apart(
    signed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, use: Callable[[GCSStorage], Any]
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(AccessDenied, match="no Google Cloud credentials for gs://acme-models") as caught:
        use(GCSStorage(BUCKET))
    assert caught.value.hint == "gcloud auth application-default login"
    assert "missing.json was not found" in str(caught.value)


def test_a_token_endpoint_that_is_down_passes(signed: Path, server: FakeGCS) -> None:
    server.plan(Fault("/token", status=503))
    GCSStorage(BUCKET).write("a", b"x")
    assert RawGCS(server).get("a") == b"x"


def test_no_address_of_an_upload_is_shown(storage: GCSStorage, server: FakeGCS) -> None:
    server.plan(Fault("^PUT", status=400))
    with pytest.raises(WriteError) as caught:
        storage.write("a", bytes(LARGE))
    assert "upload_id" not in str(caught.value)


# --- the library ------------------------------------------------------------------------------------------------------


def test_the_library_is_loaded_when_it_is_used_and_its_absence_is_told() -> None:
    program = """
import sys
sys.modules["google.cloud.storage"] = sys.modules["google_crc32c"] = None
from keepsake.exceptions import MissingDependency
from keepsake.storage.gcs import GCSStorage
storage = GCSStorage("acme")
assert not [name for name in sys.modules if name.startswith(("google.auth", "google.api_core", "requests"))]
for use in (
    lambda: storage.read("a"), lambda: storage.open("a"), lambda: storage.read_range("a", 0, 1), lambda: list(storage.list()),
    lambda: storage.write("a", b""), lambda: storage.write("a", bytes(9_000_000)), lambda: storage.delete(["a"]),
    lambda: storage.exists(), lambda: storage.create(), lambda: storage.copy_from(storage, "a", "b"),
):
    try:
        use()
    except MissingDependency as err:
        print(err.hint)
"""
    assert run(program, None).splitlines() == ['pip install "keepsake[gcs]"'] * 10
    assert issubclass(MissingDependency, ImportError)


# --- processes and threads --------------------------------------------------------------------------------------------


def test_a_forked_child_leaves_its_parents_connections_alone(storage: GCSStorage, server: FakeGCS) -> None:
    program = """
import os, pickle, sys
storage = pickle.load(sys.stdin.buffer)
storage.write("a", b"parent")
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(storage.read("a") != b"parent")
    assert os.waitpid(child, 0)[1] == 0
assert storage.read("a") == b"parent"
"""
    run(program, storage)
    assert server.connections == 4


def test_a_program_with_busy_threads_can_be_forked(storage: GCSStorage, server: FakeGCS) -> None:
    program = """
import os, pickle, sys, threading
storage = pickle.load(sys.stdin.buffer)
storage.write("a", b"parent")
stop = threading.Event()
def work():
    while not stop.is_set():
        storage.read("a")
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
children = []
for number in range(5):
    child = os.fork()
    if not child:
        code = 1
        try:
            storage.write(f"c/{number}", b"child")
            assert storage.read(f"c/{number}") == b"child" and storage.read("a") == b"parent"
            code = 0
        finally:
            os._exit(code)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
stop.set()
for thread in threads:
    thread.join()
print(codes, [info.key for info in storage.list("c")])
"""
    assert run(program, storage) == "[0, 0, 0, 0, 0] ['c/0', 'c/1', 'c/2', 'c/3', 'c/4']"


def test_deleting_many_leaves_no_thread_and_stops_at_the_first_failure(storage: GCSStorage, server: FakeGCS) -> None:
    before = set(threading.enumerate())
    for number in range(200):
        server.put(BUCKET, f"d/{number}", b"")
    server.plan(Fault("^DELETE", status=403))
    with pytest.raises(AccessDenied):
        storage.delete(f"d/{number}" for number in range(200))
    assert RawGCS(server).keys()
    storage.delete(f"d/{number}" for number in range(200))
    assert RawGCS(server).keys() == []
    assert {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("keepsake")} == set()


def test_a_heartbeat_can_be_removed_while_the_program_ends(storage: GCSStorage, server: FakeGCS) -> None:
    server.put(BUCKET, "heartbeat", b"")
    run(
        "import atexit, pickle, sys\nstorage = pickle.load(sys.stdin.buffer)\natexit.register(storage.delete, ['heartbeat'])",
        storage,
    )
    assert RawGCS(server).keys() == []


def run(program: str, storage: GCSStorage | None) -> str:
    """Run a program in a process of its own, give it a pickled store, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(storage), capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()
